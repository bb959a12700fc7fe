"""A loop over threads that reports progress. Threads, not processes: Zarr runs threads, and must not be forked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def thread_map(function: Callable[[int], _T], count: int, threads: int, advance: Callable[[float], None]) -> list[_T]:
    """``[function(0), ..., function(count - 1)]``; the first exception ends it."""
    results: list[_T] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for result in pool.map(function, range(count)):
                results.append(result)
                advance(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
