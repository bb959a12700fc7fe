"""Evaluation of many points in chunks of one size, so that compiled functions have one shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def map_chunks(function: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], size: int) -> Tensor:
    """``function`` of all points [n, ...], evaluated ``size`` at a time; the last chunk is padded with zeros."""
    parts = torch.nn.functional.pad(points, (0, 0, 0, -len(points) % size)).split(size)
    return torch.cat([function(part) for part in parts])[: len(points)]
