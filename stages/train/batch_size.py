"""When memory does not suffice: a step that takes on half as much."""

from __future__ import annotations

from typing import NamedTuple

import torch

WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


class StepSize(NamedTuple):
    """What one step takes on: rays, points of each kind (known, free, uniform), and rays with a patch."""

    rays: int
    points: int
    patches: int


SMALLEST = StepSize(64, 16, 16)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, of a GPU or of the machine.

    CUDA has a type for it; the CPU's allocator, cuBLAS and some CUDA calls raise a RuntimeError, told by its words.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def halved(size: StepSize) -> StepSize | None:
    """Half of everything, at least SMALLEST; None where that is no less."""
    half = StepSize(*(max(n // 2, min(n, least)) for n, least in zip(size, SMALLEST, strict=True)))
    return half if half.rays < size.rays else None


def smaller(size: StepSize, times: int) -> StepSize:
    """``size`` halved so many times, as far as that goes."""
    for _ in range(times):
        size = halved(size) or size
    return size
