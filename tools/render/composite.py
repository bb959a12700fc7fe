"""Front-to-back compositing of what several blocks rendered."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


def composite(
    ray: Int[Array, "m"], begin_m: Float[Array, "m"], values: Float[Array, "m v"], opacity: Float[Array, "m"], n: int
) -> tuple[Float[Array, "n v"], Float[Array, "n"]]:
    """Values and opacity of rays 0..n-1 from segments in any order: Σₖ vₖ Πⱼ<ₖ (1 − oⱼ), 1 − Πₖ (1 − oₖ).

    Segment k belongs to ray ``ray[k]`` and lies behind the segments of that ray that begin before it; its ``values``
    are already weighted by the opacity within the segment (Porter & Duff 1984, over).
    """
    order = np.lexsort((begin_m, ray))
    ray, values, opacity = ray[order], values[order], opacity[order]
    starts = np.flatnonzero(np.diff(ray, prepend=-1))
    rank = np.arange(len(ray)) - np.repeat(starts, np.diff(starts, append=len(ray)))
    out, transmittance = np.zeros((n, values.shape[1]), np.float32), np.ones(n, np.float32)
    for depth in range(int(rank.max(initial=-1)) + 1):
        is_rank = rank == depth
        rays = ray[is_rank]
        out[rays] += transmittance[rays, None] * values[is_rank]
        transmittance[rays] *= 1.0 - opacity[is_rank]
    return out, 1.0 - transmittance
