"""Multi-resolution hash grid (Müller et al. 2022, instant-ngp, sec. 3) with features and their spatial tangents.

Trilinear interpolation inside a cell is a tree of lerps over its eight corners, and so is its derivative. Both from one
reading of the table: a training step that needs the gradient of a field is then first-order backward only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.train.encoding.trilinear import CORNERS, Pair, PullBack, corner_weights

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

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        corner, fraction = self._corners(points)
        return self._sum(corner, corner_weights(*_two_weights(fraction)))

    def linearised(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and what turns ∂f/∂features [n, width] into ∂f/∂points [n, 3]; the table is read once."""
        corner, fraction = self._corners(points)
        x, y, z = _two_weights(fraction)
        slope_of_far = (self.level_weight * (0.5 * self.resolutions)).expand_as(x[0])  # one cell, in units of points
        step = (-slope_of_far, slope_of_far)

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            adds = (corner * slope.view(len(slope), self.n_levels, self.n_features)).sum(dim=3)  # to f, by each corner
            by_axis = (corner_weights(step, y, z), corner_weights(x, step, z), corner_weights(x, y, step))
            return torch.stack([(adds * weight).sum(dim=(0, 2)) for weight in by_axis], dim=1)

        return self._sum(corner, corner_weights(x, y, z)), pull_back

    def _sum(self, corner: Tensor, weight: Tensor) -> Float[Tensor, "n width"]:
        return (corner * (weight * self.level_weight)[..., None]).sum(dim=0).flatten(1)

    def _corners(self, points: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
        """Features of the corners [8, n, levels, features], z fastest, and the place inside the cell [n, levels, 3].

        Corners come first: that is what makes both the reading and its backward pass vector code.
        """
        scaled = (points[:, None, :].clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolutions[:, None]
        cell = torch.minimum(scaled.floor(), (self.resolutions - 1)[:, None].to(scaled.dtype))
        x, y, z = cell.to(torch.int32).unbind(2)
        index = torch.stack([self._index(x + i, y + j, z + k) for i, j, k in CORNERS])
        return self.table[index], scaled - cell

    def _index(self, x: Int[Tensor, "n levels"], y: Tensor, z: Tensor) -> Int[Tensor, "n levels"]:
        stride = self.resolutions + 1
        hashed = ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) & (self.table_size - 1)
        offset = torch.arange(self.n_levels, device=x.device, dtype=torch.int32) * self.table_size
        return torch.where(self.dense, (x * stride + y) * stride + z, hashed) + offset


def _two_weights(fraction: Float[Tensor, "n levels 3"]) -> tuple[Pair, Pair, Pair]:
    """Linear weights [n, levels] of the near and the far corner along x, y and z."""
    x, y, z = ((1.0 - t, t) for t in fraction.unbind(2))
    return x, y, z
