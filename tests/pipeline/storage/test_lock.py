"""One driver at a time on a run in object storage."""

from __future__ import annotations

import time

import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import lock
from quoin.pipeline.storage.lock import LeaseHolder, hold_lease, lock_run
from quoin.pipeline.storage.object_store import Bucket, StorageUnavailable

OTHER = LeaseHolder("other", 12, "another-machine")


def stamp_of(url: str) -> str:
    found = Bucket(url).get(lock.LEASE_NAME)
    assert found is not None
    return found.etag


def test_a_second_driver_is_refused_and_told_who_is_first(bucket: str):
    url = f"{bucket}/run"
    with lock_run(url):
        with pytest.raises(QuoinError, match=r"Another quoin works on this run \(process .* on "), lock_run(url):
            pass
        assert Bucket(url).read(lock.LEASE_NAME) is not None, "who was refused has taken nothing away"
    with lock_run(url):
        pass
    assert Bucket(url).is_empty(), "nothing is left behind"


def test_one_that_is_no_longer_renewed_is_taken_over(bucket: str, monkeypatch, capsys):
    url = f"{bucket}/run"
    Bucket(url).put(lock.LEASE_NAME, OTHER.to_bytes())
    with pytest.raises(QuoinError, match="process 12 on another-machine"), hold_lease(url):
        pass
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.0)
    with hold_lease(url):
        said = capsys.readouterr().err
        assert "process 12 on another-machine" in said
        assert "going on in its place" in said


def test_one_of_a_process_that_has_ended_here_is_taken_over_at_once(bucket: str, capsys):
    url = f"{bucket}/run"
    gone = LeaseHolder("gone", 2**22 + 1, LeaseHolder.of_this_process().host)  # larger than any process number
    Bucket(url).put(lock.LEASE_NAME, gone.to_bytes())
    with hold_lease(url):
        assert "has ended" in capsys.readouterr().err


def test_a_damaged_lease_is_somebody_s_until_it_is_old(bucket: str, monkeypatch):
    url = f"{bucket}/run"
    Bucket(url).put(lock.LEASE_NAME, b"{")
    with pytest.raises(QuoinError, match="unknown machine"), hold_lease(url):
        pass
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.0)
    with hold_lease(url):
        pass


def test_an_answer_that_is_lost_costs_no_lease(bucket: str, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    url, put_if_match, lost = f"{bucket}/run", Bucket.put_if_match, []

    def put_and_lose(self: Bucket, name: str, data: bytes, etag: str | None) -> str | None:
        answer = put_if_match(self, name, data, etag)
        if etag is not None and not lost:
            lost.append(answer)
            raise StorageUnavailable("The storage does not answer", where=url)
        return answer

    monkeypatch.setattr(Bucket, "put_if_match", put_and_lose)
    with hold_lease(url):
        deadline = time.monotonic() + 30
        while not lost or stamp_of(url) == lost[0]:
            assert time.monotonic() < deadline, "it is not renewed any more"
            time.sleep(0.05)


def test_it_is_renewed_while_it_is_held_and_left_to_who_took_it(bucket: str, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    url = f"{bucket}/run"
    with hold_lease(url):
        stamps = set()
        deadline = time.monotonic() + 30
        while len(stamps) < 3 and time.monotonic() < deadline:
            found = Bucket(url).get(lock.LEASE_NAME)
            assert found is not None
            stamps.add(found.etag)
        assert len(stamps) == 3
        Bucket(url).put(lock.LEASE_NAME, OTHER.to_bytes())
        time.sleep(0.3)
    assert LeaseHolder.from_bytes(Bucket(url).read(lock.LEASE_NAME) or b"") == OTHER
