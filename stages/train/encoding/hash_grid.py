"""Multi-resolution hash grid (Müller et al. 2022, instant-ngp, sec. 3) with features and their spatial tangents.

Trilinear interpolation inside a cell is a tree of lerps over its eight corners; carrying differences beside the lerps
gives ∂feature/∂x in the same pass, so that a training step needs first-order backward only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PRIMES = (1, -1640531535, 805459861)  # instant-ngp's primes, the second as a wrapping int32


def level_resolutions(n_levels: int, coarsest: int, finest: int) -> list[int]:
    """Cells along an axis per level, a geometric row from ``coarsest`` to ``finest`` (instant-ngp eq. 2–3)."""
    if n_levels == 1:
        return [coarsest]
    growth = (finest / coarsest) ** (1.0 / (n_levels - 1))
    return [round(coarsest * growth**level) for level in range(n_levels)]


class HashGrid(nn.Module):
    """Features of points in [-1, 1]³: ``n_levels * n_features`` numbers each, with or without their tangents."""

    resolutions: Tensor
    dense: Tensor
    level_weight: Tensor

    def __init__(self, n_levels: int, coarsest: int, finest: int, log2_table: int, n_features: int = 2) -> None:
        super().__init__()
        resolutions = torch.tensor(level_resolutions(n_levels, coarsest, finest), dtype=torch.int32)
        self.n_levels, self.n_features, self.table_size = n_levels, n_features, 1 << log2_table
        self.register_buffer("resolutions", resolutions, persistent=False)
        self.register_buffer("dense", (resolutions.long() + 1) ** 3 <= self.table_size, persistent=False)
        self.register_buffer("level_weight", torch.ones(n_levels))
        self.table = nn.Parameter(torch.empty(n_levels * self.table_size, n_features).uniform_(-1e-4, 1e-4))

    @property
    def width(self) -> int:
        return self.n_levels * self.n_features

    def set_progress(self, active_levels: float) -> None:
        """Coarse to fine (Neuralangelo sec. 3.2): levels below ``active_levels`` count, the next by its fraction."""
        level = torch.arange(self.n_levels, device=self.level_weight.device)
        self.level_weight.copy_((active_levels - level).clamp(0.0, 1.0))

    def _corners(self, points: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
        """Corner features [n, levels, 2, 2, 2, features] and the fraction inside the cell [n, levels, 3]."""
        scaled = (points[:, None, :].clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolutions[:, None]
        cell = torch.minimum(scaled.floor(), (self.resolutions - 1)[:, None].to(scaled.dtype))
        fraction = scaled - cell
        base = cell.to(torch.int32)
        side = torch.arange(2, device=points.device, dtype=torch.int32)
        x = base[:, :, 0, None, None, None] + side[:, None, None]
        y = base[:, :, 1, None, None, None] + side[None, :, None]
        z = base[:, :, 2, None, None, None] + side[None, None, :]
        index = self._index(x, y, z)
        return self.table[index], fraction

    def _index(self, x: Tensor, y: Tensor, z: Tensor) -> Int[Tensor, "n levels 2 2 2"]:
        stride = (self.resolutions + 1)[:, None, None, None]
        hashed = (x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])
        flat = (x * stride + y) * stride + z
        inside = torch.where(self.dense[:, None, None, None], flat, hashed & (self.table_size - 1))
        offset = torch.arange(self.n_levels, device=x.device, dtype=torch.int32) * self.table_size
        return inside + offset[:, None, None, None]

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        corner, t = self._corners(points)
        t = t[..., None]
        a = torch.lerp(corner[:, :, :, :, 0], corner[:, :, :, :, 1], t[:, :, 2, None, None])
        b = torch.lerp(a[:, :, :, 0], a[:, :, :, 1], t[:, :, 1, None])
        c = torch.lerp(b[:, :, 0], b[:, :, 1], t[:, :, 0])
        return (c * self.level_weight[:, None]).flatten(1)

    def with_tangents(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "4 n width"]:
        """Row 0: features; rows 1..3: their derivatives by x, y, z (per unit of ``points``)."""
        corner, fraction = self._corners(points)
        tx, ty, tz = (fraction[:, :, axis, None] for axis in range(3))
        near, far = corner[:, :, :, :, 0], corner[:, :, :, :, 1]
        value, dz = torch.lerp(near, far, tz[:, :, None, None]), far - near
        value_0, value_1 = value[:, :, :, 0], value[:, :, :, 1]
        dy = value_1 - value_0
        value = torch.lerp(value_0, value_1, ty[:, :, None])
        dz = torch.lerp(dz[:, :, :, 0], dz[:, :, :, 1], ty[:, :, None])
        dx = value[:, :, 1] - value[:, :, 0]
        value = torch.lerp(value[:, :, 0], value[:, :, 1], tx)
        dy = torch.lerp(dy[:, :, 0], dy[:, :, 1], tx)
        dz = torch.lerp(dz[:, :, 0], dz[:, :, 1], tx)
        slope = self.level_weight[:, None] * (0.5 * self.resolutions[:, None])
        rows = torch.stack([value * self.level_weight[:, None], dx * slope, dy * slope, dz * slope])
        return rows.flatten(2)
