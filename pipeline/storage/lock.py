"""Locks of a run: one driver at a time works on it, and an earlier attempt at a task cannot write over a later one.

In a folder the lock is the kernel's. In object storage it is a lease, an object that its holder renews. That rests on
conditional puts; times are of the storage's clock, read from objects that the process puts. The lease warns two people
who work on one run; what protects the run itself is the conditional put of run.json (``pipeline.storage.backend``).

Fencing is for tasks: a worker that the driver has lost may run on, and must not write then. Before every attempt the
driver writes its id into the task's folder (the fencing token); before writing, a worker checks that it is its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import printable
from quoin.pipeline.storage.cache import is_alive
from quoin.pipeline.storage.disk import open_lock_file, write_atomic
from quoin.pipeline.storage.object_store import Bucket, StoredObject, is_storage_unavailable, storage_url

LEASE_NAME = "logs/lease.json"
RENEW_SECONDS = 20.0
STALE_SECONDS = 120.0  # more than a renewal and the minute for which a request is repeated
FENCING_TOKEN_FILE = "fencing_token"  # noqa: S105  (a file name)


@contextmanager
def lock_run(location: Path | str) -> Iterator[None]:
    """Hold the lock of the run at ``location``; QuoinError that names the process which holds it already."""
    url = storage_url(location)
    with hold_lease(url) if url else _lock_folder(Path(location)):
        yield


@contextmanager
def _lock_folder(run_path: Path) -> Iterator[None]:
    """Hold the run folder's lock; QuoinError where another process holds it.

    The lock is the kernel's (flock), so it goes with the process that held it, however that ended: none is ever stale.
    Its file is a hidden one, so that whoever tidies the folder leaves it.
    """
    path = run_path / ".lock"
    with open_lock_file(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise QuoinError(
                f"Another quoin works in this run folder ({holder})", where=run_path, hint="wait for it, or stop it"
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        yield


# -- the lease of a run in object storage ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeaseHolder:
    """Who holds a lease."""

    id: str
    process: int
    host: str

    @classmethod
    def of_this_process(cls) -> LeaseHolder:
        return cls(uuid.uuid4().hex, os.getpid(), socket.gethostname())

    @classmethod
    def from_bytes(cls, data: bytes) -> LeaseHolder:
        try:
            fields = json.loads(data)
            return cls(fields["id"], int(fields["process"]), fields["host"])
        except (ValueError, TypeError, KeyError):
            return cls("", 0, "an unknown machine")

    def to_bytes(self, n_renewals: int = 0) -> bytes:
        """The lease; ``n_renewals`` gives every renewal other content, and so another ETag."""
        return json.dumps({**vars(self), "n_renewals": n_renewals}).encode()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @property
    def has_exited(self) -> bool:
        """Whether the holder was a process of this machine, and has ended."""
        return bool(self.process) and self.host == socket.gethostname() and not is_alive(self.process)


@contextmanager
def hold_lease(url: str) -> Iterator[None]:
    """Hold the lease of the run at ``url``; QuoinError where another process holds it.

    A lease whose holder has ended, or has not renewed it for STALE_SECONDS, is taken over; standard error says so.
    """
    bucket, holder = Bucket(url), LeaseHolder.of_this_process()
    etag = bucket.put_if_match(LEASE_NAME, holder.to_bytes(), None) or _take_over(bucket, holder)
    ended = threading.Event()
    renewer = threading.Thread(target=_renew, args=(url, holder, etag, ended), name="lease", daemon=True)
    renewer.start()
    away = False
    try:
        yield
    except BaseException as error:  # whatever ended the work, a SystemExit too, goes on from here
        away = is_storage_unavailable(error)  # the lease will end by itself
        raise
    finally:
        ended.set()
        if not away:
            renewer.join()
            _release(bucket, holder)


def _take_over(bucket: Bucket, holder: LeaseHolder) -> str:
    stored = bucket.get(LEASE_NAME)
    if stored is None:
        etag = bucket.put_if_match(LEASE_NAME, holder.to_bytes(), None)  # its holder has just ended
    else:
        other_holder = LeaseHolder.from_bytes(stored.data)
        age_s = _age_seconds(bucket, stored, holder)
        if not other_holder.has_exited and age_s < STALE_SECONDS:
            raise _held_error(bucket.url, other_holder)
        why = "has ended" if other_holder.has_exited else f"has not been heard of for {age_s:.0f} s"
        etag = bucket.put_if_match(LEASE_NAME, holder.to_bytes(), stored.etag)
        if etag is not None:
            sentence = printable(f"{other_holder}, which worked on {bucket.url}, {why}: going on in its place")
            print(sentence, file=sys.stderr)
    if etag is None:
        raise _held_error(bucket.url, LeaseHolder.from_bytes(bucket.read(LEASE_NAME) or b""))
    return etag


def _age_seconds(bucket: Bucket, stored: StoredObject, holder: LeaseHolder) -> float:
    """Age of an object, by the storage's clock."""
    probe = f"logs/now-{holder.id}"
    bucket.put(probe, b"")
    now = bucket.head(probe)
    bucket.remove(probe)
    modified: datetime = stored.modified
    return (now[1] - modified).total_seconds() if now is not None else 0.0


def _held_error(url: str, holder: LeaseHolder) -> QuoinError:
    hint = f"wait for it, or stop it; if it is gone, try again in {STALE_SECONDS / 60:.0f} minutes"
    return QuoinError(f"Another quoin works on this run ({holder})", where=url, hint=hint)


def _renew(url: str, holder: LeaseHolder, etag: str, ended: threading.Event) -> None:
    """Renew the lease until ``ended`` is set; stop where another process holds it, as the next commit then fails.

    A put may be refused although the lease is still held: when the answer to an earlier put was lost.
    """
    bucket, held, n_renewals = Bucket(url), etag, 0
    while not ended.wait(RENEW_SECONDS):
        n_renewals += 1
        try:
            renewed = bucket.put_if_match(LEASE_NAME, holder.to_bytes(n_renewals), held)
            if (
                renewed is None
                and (stored := bucket.get(LEASE_NAME))
                and LeaseHolder.from_bytes(stored.data).id == holder.id
            ):
                renewed = stored.etag
        except QuoinError:  # the work itself meets the silent storage, and says so
            continue
        if renewed is None:
            return
        held = renewed


def _release(bucket: Bucket, holder: LeaseHolder) -> None:
    try:
        stored = bucket.read(LEASE_NAME)
        if stored is not None and LeaseHolder.from_bytes(stored).id == holder.id:
            bucket.remove(LEASE_NAME)
    except QuoinError:  # it ends by itself
        pass


# -- the fencing token of a task ---------------------------------------------------------------------------------------


class SupersededError(QuoinError):
    """A later attempt has taken this task over."""


def fence(folder: Path, attempt_id: str) -> None:
    """Write the fencing token of ``folder``: from here on only this attempt may write there. For the driver."""
    write_atomic(folder / FENCING_TOKEN_FILE, attempt_id.encode("ascii"))


def check_fence(folder: Path, attempt_id: str) -> None:
    """Raise SupersededError where a later attempt has taken ``folder`` over; to be called right before writing.

    An attempt without id ("") is never superseded.
    """
    if attempt_id and (folder / FENCING_TOKEN_FILE).read_text(encoding="ascii") != attempt_id:
        raise SupersededError("A later attempt has taken this block over", where=folder)
