"""A loop over threads that reports progress. Threads, not processes: the store runs some and must not be forked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def each(work: Callable[[int], Made], count: int, threads: int, advance: Callable[[float], None]) -> list[Made]:
    """``[work(0), ..., work(count - 1)]``; the first exception ends it."""
    made: list[Made] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for result in pool.map(work, range(count)):
                made.append(result)
                advance(len(made))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made
