"""Storage that does not answer for a while, and errors that waiting does not mend."""

import errno
import os
from pathlib import Path

import pytest

from quoin.pipeline.core import cancellation
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.disk import retry, write_atomic


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quoin.pipeline.storage.disk.INITIAL_BACKOFF_SECONDS", 0.01)


def test_a_folder_that_is_gone_for_a_while_is_waited_for(tmp_path: Path) -> None:
    folder, told = tmp_path / "run", list[str]()
    folder.mkdir()
    folder.rename(tmp_path / "away")

    def tell(message: str) -> None:
        told.append(message)
        if len(told) == 3:
            (tmp_path / "away").rename(folder)

    retry(lambda: write_atomic(folder / "file", b"x"), folder, tell)
    assert (folder / "file").read_bytes() == b"x"
    assert len(told) == 3
    assert "does not respond: trying again" in told[0]


def test_patience_ends(tmp_path: Path) -> None:
    calls = []

    def never() -> None:
        calls.append(1)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with pytest.raises(OSError, match=r"[Ss]tale"):
        retry(never, tmp_path, lambda message: None, timeout_s=0.1)
    assert 3 <= len(calls) <= 5  # 0.01 + 0.02 + 0.04 s


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), QuoinError("Too dark"), ValueError("a mistake")])
def test_what_does_not_pass_is_raised_at_once(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        retry(fail, tmp_path, lambda message: pytest.fail("waited"))


def test_who_is_asked_to_stop_does_not_wait(tmp_path: Path) -> None:
    def fail() -> None:
        cancellation.request()
        raise TimeoutError

    try:
        with pytest.raises(cancellation.WorkCancelled):
            retry(fail, tmp_path, lambda message: None)
    finally:
        cancellation.clear()
