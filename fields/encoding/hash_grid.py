"""Trainable grids of features: multi-resolution hash grids (Müller et al. 2022, instant-ngp sec. 3), and dense ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.encoding.encoding import Encoding, EncodingConfig, PullBack
from quoin.fields.encoding.trilinear import CORNERS, Interpolation

PRIMES = (1, -1640531535, 805459861)  # instant-ngp's primes, the second as a wrapping int32
HAS_TRITON = importlib.util.find_spec("triton") is not None


class HashEncodingConfig(EncodingConfig):
    """Multi-resolution hash grid (instant-ngp), coarse to fine (Neuralangelo)."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {
        "coarsest": "base_resolution",
        "finest": "max_resolution",
        "start_levels": "initial_levels",
    }
    is_grid: ClassVar[bool] = True
    kind: Literal["hash"] = "hash"
    levels: int = Field(10, ge=1, le=16)
    """Levels of the grid."""
    base_resolution: int = Field(16, ge=2)
    """Cells along the block at the coarsest level."""
    max_resolution: int = Field(512, ge=2)
    """And at the finest."""
    log2_table: int = Field(18, ge=10, le=24)
    """Log2 of entries per level."""
    features: int = Field(2, ge=1, le=8)
    """Features of a grid point."""
    initial_levels: int = Field(4, ge=1)
    """Active from the start."""
    coarse_to_fine: float = Field(0.35, gt=0, le=1)
    """Share of the steps until all levels are active."""

    def build(self) -> HashGrid:
        return HashGrid(self.levels, self.base_resolution, self.max_resolution, self.log2_table, self.features)

    def active_levels(self, progress: float) -> float:
        first = min(self.initial_levels, self.levels)
        return first + (self.levels - first) * min(1.0, progress / self.coarse_to_fine)

    @property
    def schedule_share(self) -> float:
        return self.coarse_to_fine


def uses_triton(device: str, dtype: torch.dtype = torch.float32) -> bool:
    """True if Triton kernels read the grids on this kind of device; PyTorch gives the same numbers elsewhere."""
    return HAS_TRITON and device == "cuda" and dtype == torch.float32


def level_resolutions(n_levels: int, base_resolution: int, max_resolution: int) -> list[int]:
    """Cells along an axis of each level, a geometric series between the resolutions (instant-ngp eq. 2–3)."""
    if n_levels == 1:
        return [base_resolution]
    growth = (max_resolution / base_resolution) ** (1.0 / (n_levels - 1))
    return [round(base_resolution * growth**level) for level in range(n_levels)]


class HashGrid(Encoding):
    """Features of points in [-1, 1]³: ``n_levels * n_features`` numbers each."""

    resolutions: Tensor
    dense: Tensor
    level_weight: Tensor

    def __init__(
        self, n_levels: int, base_resolution: int, max_resolution: int, log2_table: int, n_features: int = 2
    ) -> None:
        super().__init__()
        resolutions = torch.tensor(level_resolutions(n_levels, base_resolution, max_resolution), dtype=torch.int32)
        self.n_levels, self.n_features, self.table_size = n_levels, n_features, 1 << log2_table
        self.register_buffer("resolutions", resolutions, persistent=False)
        self.register_buffer("dense", (resolutions.long() + 1) ** 3 <= self.table_size, persistent=False)
        self.register_buffer("level_weight", torch.ones(n_levels))
        self.table = nn.Parameter(torch.empty(n_levels * self.table_size, n_features).uniform_(-1e-4, 1e-4))
        self.width = n_levels * n_features

    def set_progress(self, active_levels: float) -> None:
        """Weigh the levels (Neuralangelo sec. 3.2): 1 below ``active_levels``, its fraction for the next, else 0."""
        level = torch.arange(self.n_levels, device=self.level_weight.device)
        self.level_weight.copy_((active_levels - level).clamp(0.0, 1.0))

    def cell(self) -> Float[Tensor, ""]:
        """Side of a cell of the finest active level, in the unit of the points."""
        return 2.0 / torch.where(self.level_weight > 0, self.resolutions, 1).amax()

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        return _by_point(self._read(points, slopes=False)[0])

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]; reads the table once."""
        value, *slopes = self._read(points, slopes=True)

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            per_level = slope.view(len(slope), self.n_levels, self.n_features).transpose(0, 1)
            return torch.stack([(by_axis * per_level).sum(dim=(0, 2)) for by_axis in slopes], dim=1)

        return _by_point(value), pull_back

    def _read(self, points: Float[Tensor, "n 3"], *, slopes: bool) -> tuple[Float[Tensor, "levels n f"], ...]:
        """Features by level, and with ``slopes`` their derivatives by x, y and z."""
        if uses_triton(points.device.type, self.table.dtype):
            from quoin.fields.encoding.hash_grid_triton import interpolate_hash_grid

            return interpolate_hash_grid(self.table, points, self.resolutions, self.level_weight, slopes=slopes)
        resolutions, weight = self.resolutions[:, None], self.level_weight[:, None]
        scaled = (points.T[:, None].clamp(-1.0, 1.0) * 0.5 + 0.5) * resolutions
        cell = torch.minimum(scaled.floor(), (resolutions - 1).to(scaled.dtype))
        x, y, z = cell.to(torch.int32).unbind(0)
        index = torch.stack([self._index(x + i, y + j, z + k) for i, j, k in CORNERS])
        return Interpolation.apply(self.table, index, scaled - cell, weight, 0.5 * resolutions)

    def _index(self, x: Int[Tensor, "levels n"], y: Tensor, z: Tensor) -> Int[Tensor, "levels n"]:
        stride = (self.resolutions + 1)[:, None]
        hashed = ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) & (self.table_size - 1)
        offset = torch.arange(self.n_levels, device=x.device, dtype=torch.int32)[:, None] * self.table_size
        return torch.where(self.dense[:, None], (x * stride + y) * stride + z, hashed) + offset


def _by_point(features: Float[Tensor, "levels n f"]) -> Float[Tensor, "n width"]:
    return features.transpose(0, 1).flatten(1)


class GridEncodingConfig(EncodingConfig):
    """A dense trainable grid."""

    is_grid: ClassVar[bool] = True
    kind: Literal["grid"] = "grid"
    resolution: int = Field(128, ge=2, le=512)
    """Cells along the block."""
    features: int = Field(4, ge=1)
    """Features of a grid point."""

    def build(self) -> DenseGrid:
        return DenseGrid(self.resolution, self.features)


class DenseGrid(Encoding):
    """Trilinear features of points in [-1, 1]³: ``resolution`` cells along an axis, ``n_features`` at each corner."""

    def __init__(self, resolution: int, n_features: int) -> None:
        super().__init__()
        self.resolution, self.width = resolution, n_features
        self.table = nn.Parameter(torch.empty((resolution + 1) ** 3, n_features).uniform_(-1e-4, 1e-4))

    def cell(self) -> Float[Tensor, ""]:
        """Side of a cell, in the unit of the points."""
        return self.table.new_tensor(2.0 / self.resolution)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        return self.linearize(points)[0]

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]; reads the table once."""
        scaled = (points.T[:, None].clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolution
        cell = scaled.floor().clamp(max=self.resolution - 1)
        x, y, z = cell.to(torch.int32).unbind(0)
        stride = self.resolution + 1
        index = torch.stack([((x + i) * stride + y + j) * stride + z + k for i, j, k in CORNERS])
        one = points.new_ones(1, 1)
        value, *slopes = Interpolation.apply(self.table, index, scaled - cell, one, 0.5 * self.resolution * one)

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            return torch.stack([(by_axis[0] * slope).sum(dim=1) for by_axis in slopes], dim=1)

        return value[0], pull_back
