"""Maps of a photo at another level of its pyramid: level k is 2^k times smaller."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

Array = np.ndarray


def at_level(values: Shaped[Array, "h w"], level: int, to: int, shape: tuple[int, ...]) -> Shaped[Array, "r c"]:
    """``values`` of ``level`` at level ``to``, of ``shape``: each pixel there has that of its first corner."""
    sizes = zip(shape, values.shape, strict=True)
    row, column = (np.minimum((np.arange(n) << to) >> level, m - 1) for n, m in sizes)
    return values[row[:, None], column]
