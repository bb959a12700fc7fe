"""Size of a training step, halved when memory is out."""

from __future__ import annotations

from typing import NamedTuple

import torch

OUT_OF_MEMORY_PHRASES = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


class BatchSize(NamedTuple):
    """Rays, points of each kind (surface, free, uniform) and rays with a patch of one step."""

    rays: int
    points: int
    patches: int


MIN_BATCH_SIZE = BatchSize(64, 16, 16)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error means that a GPU or the machine is out of memory.

    CUDA has a type for it; the CPU's allocator, cuBLAS and some CUDA calls raise a RuntimeError, known by its text.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OUT_OF_MEMORY_PHRASES)


def halve_batch_size(size: BatchSize) -> BatchSize | None:
    """Half of all numbers, at least MIN_BATCH_SIZE; None where that is not less."""
    half = BatchSize(*(max(n // 2, min(n, minimum)) for n, minimum in zip(size, MIN_BATCH_SIZE, strict=True)))
    return half if half.rays < size.rays else None


def reduce_batch_size(size: BatchSize, times: int) -> BatchSize:
    """``size`` halved ``times`` times, as far as possible."""
    for _ in range(times):
        size = halve_batch_size(size) or size
    return size
