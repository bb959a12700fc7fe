"""One driver at a time on a run in object storage: a lease, an object that its holder renews.

Where a folder has the kernel's lock, here is only a put under a condition. All times are of the storage's clock, which
a process learns from what it puts. The lease keeps two people from working on one run unawares; what keeps the run
whole should both do is the condition on the put of run.json (``pipeline.storage.backend``).
"""

from __future__ import annotations

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

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.cache import lives
from quoin.pipeline.storage.object_store import Bucket, Stored, is_away

NAME = "logs/lease.json"
RENEW_SECONDS = 20.0
STALE_SECONDS = 120.0  # more than a renewal and the minute for which a request is repeated


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    id: str
    process: int
    host: str

    @classmethod
    def here(cls) -> Holder:
        return cls(uuid.uuid4().hex, os.getpid(), socket.gethostname())

    @classmethod
    def read(cls, data: bytes) -> Holder:
        try:
            said = json.loads(data)
            return cls(said["id"], int(said["process"]), said["host"])
        except (ValueError, TypeError, KeyError):
            return cls("", 0, "an unknown machine")

    def told(self, beat: int = 0) -> bytes:
        """The lease; ``beat`` makes every renewal another object, with another stamp."""
        return json.dumps({**vars(self), "beat": beat}).encode()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return bool(self.process) and self.host == socket.gethostname() and not lives(self.process)


@contextmanager
def leased(url: str) -> Iterator[None]:
    """Hold the lease of the run at ``url``; QuoinError where another process holds it.

    One whose holder has ended, or has not renewed it for long, is taken over, and standard error says so.
    """
    bucket, mine = Bucket(url), Holder.here()
    stamp = bucket.put_if(NAME, mine.told(), None) or _take_over(bucket, mine)
    ended = threading.Event()
    heart = threading.Thread(target=_renew, args=(url, mine, stamp, ended), name="lease", daemon=True)
    heart.start()
    away = False
    try:
        yield
    except BaseException as error:  # whatever ended the work, a SystemExit too, goes on from here
        away = is_away(error)  # the lease will end by itself
        raise
    finally:
        ended.set()
        if not away:
            heart.join()
            _give_up(bucket, mine)


def _take_over(bucket: Bucket, mine: Holder) -> str:
    found = bucket.look(NAME)
    if found is None:
        stamp = bucket.put_if(NAME, mine.told(), None)  # its holder has just ended
    else:
        theirs = Holder.read(found.data)
        silent_s = _age_seconds(bucket, found, mine)
        if not theirs.gone and silent_s < STALE_SECONDS:
            raise _refused(bucket.url, theirs)
        why = "has ended" if theirs.gone else f"has not been heard of for {silent_s:.0f} s"
        stamp = bucket.put_if(NAME, mine.told(), found.stamp)
        if stamp is not None:
            print(f"{theirs}, which worked on {bucket.url}, {why}: going on in its place", file=sys.stderr)
    if stamp is None:
        raise _refused(bucket.url, Holder.read(bucket.read(NAME) or b""))
    return stamp


def _age_seconds(bucket: Bucket, found: Stored, mine: Holder) -> float:
    """How long ago an object was put, by the storage's clock."""
    probe = f"logs/now-{mine.id}"
    bucket.put(probe, b"")
    now = bucket.facts(probe)
    bucket.remove(probe)
    there: datetime = found.modified
    return (now[1] - there).total_seconds() if now is not None else 0.0


def _refused(url: str, holder: Holder) -> QuoinError:
    do = f"wait for it, or stop it; if it is gone, try again in {STALE_SECONDS / 60:.0f} minutes"
    return QuoinError(f"Another quoin works on this run ({holder})", where=url, do=do)


def _renew(url: str, mine: Holder, stamp: str, ended: threading.Event) -> None:
    """Put the lease again and again; whoever finds it another's stops, as the next commit will.

    It may be ours although a put was refused: the answer to an earlier one was lost.
    """
    bucket, held, beat = Bucket(url), stamp, 0
    while not ended.wait(RENEW_SECONDS):
        beat += 1
        try:
            renewed = bucket.put_if(NAME, mine.told(beat), held)
            if renewed is None and (found := bucket.look(NAME)) and Holder.read(found.data).id == mine.id:
                renewed = found.stamp
        except QuoinError:  # the work itself meets the silent storage, and says so
            continue
        if renewed is None:
            return
        held = renewed


def _give_up(bucket: Bucket, mine: Holder) -> None:
    try:
        found = bucket.read(NAME)
        if found is not None and Holder.read(found).id == mine.id:
            bucket.remove(NAME)
    except QuoinError:  # it ends by itself
        pass
