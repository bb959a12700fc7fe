"""Layers of several blocks put together, front to back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


def composite(
    ray: Int[Array, "m"], begin_m: Float[Array, "m"], values: Float[Array, "m v"], opacity: Float[Array, "m"], n: int
) -> tuple[Float[Array, "n v"], Float[Array, "n"]]:
    """Values [n, v] and opacity [n] of rays 0..n-1, of parts given in any order: Σₖ vₖ Πⱼ<ₖ (1 − oⱼ), 1 − Πₖ (1 − oₖ).

    Part k belongs to ray ``ray[k]``, lies behind those of the ray that begin before it, and its ``values`` are already
    weighted by what shows of them within the part (Porter & Duff 1984, over).
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
