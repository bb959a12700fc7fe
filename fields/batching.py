"""A function of many points, asked for a fixed number at a time: what is compiled has one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def map_chunks(function: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], size: int) -> Tensor:
    """``function`` of all points [n, ...], ``size`` at once; the last are filled up with zeros and cut off again."""
    parts = torch.nn.functional.pad(points, (0, 0, 0, -len(points) % size)).split(size)
    return torch.cat([function(part) for part in parts])[: len(points)]
