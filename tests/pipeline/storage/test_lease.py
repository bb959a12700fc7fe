"""One driver at a time on a run in object storage."""

from __future__ import annotations

import time

import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import lease
from quoin.pipeline.storage.lease import Holder, leased
from quoin.pipeline.storage.lock import locked
from quoin.pipeline.storage.object_store import Bucket, StorageAway

OTHER = Holder("other", 12, "another-machine")


def stamp_of(url: str) -> str:
    found = Bucket(url).look(lease.NAME)
    assert found is not None
    return found.stamp


def test_a_second_driver_is_refused_and_told_who_is_first(bucket: str):
    url = f"{bucket}/run"
    with locked(url):
        with pytest.raises(QuoinError, match=r"Another quoin works on this run \(process .* on "), locked(url):
            pass
        assert Bucket(url).read(lease.NAME) is not None, "who was refused has taken nothing away"
    with locked(url):
        pass
    assert Bucket(url).is_empty(), "nothing is left behind"


def test_one_that_is_no_longer_renewed_is_taken_over(bucket: str, monkeypatch, capsys):
    url = f"{bucket}/run"
    Bucket(url).put(lease.NAME, OTHER.told())
    with pytest.raises(QuoinError, match="process 12 on another-machine"), leased(url):
        pass
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)
    with leased(url):
        said = capsys.readouterr().err
        assert "process 12 on another-machine" in said
        assert "going on in its place" in said


def test_one_of_a_process_that_has_ended_here_is_taken_over_at_once(bucket: str, capsys):
    url = f"{bucket}/run"
    gone = Holder("gone", 2**22 + 1, Holder.here().host)  # larger than any process number
    Bucket(url).put(lease.NAME, gone.told())
    with leased(url):
        assert "has ended" in capsys.readouterr().err


def test_a_damaged_lease_is_somebody_s_until_it_is_old(bucket: str, monkeypatch):
    url = f"{bucket}/run"
    Bucket(url).put(lease.NAME, b"{")
    with pytest.raises(QuoinError, match="unknown machine"), leased(url):
        pass
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)
    with leased(url):
        pass


def test_an_answer_that_is_lost_costs_no_lease(bucket: str, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    url, put_if, lost = f"{bucket}/run", Bucket.put_if, []

    def put_and_lose(self: Bucket, name: str, data: bytes, stamp: str | None) -> str | None:
        answer = put_if(self, name, data, stamp)
        if stamp is not None and not lost:
            lost.append(answer)
            raise StorageAway("The storage does not answer", where=url)
        return answer

    monkeypatch.setattr(Bucket, "put_if", put_and_lose)
    with leased(url):
        deadline = time.monotonic() + 30
        while not lost or stamp_of(url) == lost[0]:
            assert time.monotonic() < deadline, "it is not renewed any more"
            time.sleep(0.05)


def test_it_is_renewed_while_it_is_held_and_left_to_who_took_it(bucket: str, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    url = f"{bucket}/run"
    with leased(url):
        stamps = set()
        deadline = time.monotonic() + 30
        while len(stamps) < 3 and time.monotonic() < deadline:
            found = Bucket(url).look(lease.NAME)
            assert found is not None
            stamps.add(found.stamp)
        assert len(stamps) == 3
        Bucket(url).put(lease.NAME, OTHER.told())
        time.sleep(0.3)
    assert Holder.read(Bucket(url).read(lease.NAME) or b"") == OTHER
