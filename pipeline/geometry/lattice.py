"""The global voxel lattice: every block samples its SDF on the same points, which is what makes fusion exact.

A *sample* index (i, j, k) lies at ``origin_world + voxel_size_m * (i, j, k)``. Brick (a, b, c) of size B owns the cells
between samples ``a*B .. a*B + B`` on each axis: B + 1 samples per axis, the last shared with its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


@dataclass(frozen=True)
class BrickBox:
    """A box of whole bricks: ``low`` inclusive, ``high`` exclusive, in brick coordinates."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(max(0, h - w) for w, h in zip(self.low, self.high, strict=True))  # type: ignore[return-value]

    @property
    def count(self) -> int:
        return int(np.prod(self.shape))

    def grow(self, bricks: int) -> BrickBox:
        """The box with a margin of ``bricks`` on every side."""
        return BrickBox(
            tuple(v - bricks for v in self.low),  # type: ignore[arg-type]
            tuple(v + bricks for v in self.high),  # type: ignore[arg-type]
        )

    def intersect(self, other: BrickBox) -> BrickBox:
        return BrickBox(
            tuple(max(a, b) for a, b in zip(self.low, other.low, strict=True)),  # type: ignore[arg-type]
            tuple(min(a, b) for a, b in zip(self.high, other.high, strict=True)),  # type: ignore[arg-type]
        )

    def bricks(self) -> Int[Array, "m 3"]:
        """All brick coordinates in the box, in C order."""
        axes = [np.arange(low, high) for low, high in zip(self.low, self.high, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)

    def contains(self, bricks: Int[Array, "m 3"]) -> Array:
        """Bool [m]: which bricks lie in the box."""
        return np.all((bricks >= np.array(self.low)) & (bricks < np.array(self.high)), axis=1)


@dataclass(frozen=True)
class Lattice:
    """Where samples and bricks lie in the world."""

    origin_world: tuple[float, float, float]
    voxel_size_m: float
    brick_size: int = 32

    @property
    def brick_size_m(self) -> float:
        return self.voxel_size_m * self.brick_size

    def sample_world(self, index: Int[Array, "*n 3"]) -> Float[Array, "*n 3"]:
        """World position of sample indices."""
        return np.array(self.origin_world) + self.voxel_size_m * np.asarray(index, np.float64)

    def index_of(self, points_world: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
        """Continuous sample index of world points (inverse of ``sample_world``)."""
        return (np.asarray(points_world, np.float64) - np.array(self.origin_world)) / self.voxel_size_m

    def brick_of(self, points_world: Float[Array, "*n 3"]) -> Int[Array, "*n 3"]:
        """Brick coordinates that hold world points."""
        return np.floor(self.index_of(points_world) / self.brick_size).astype(np.int64)

    def box_world(self, box: BrickBox) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
        """World corners (low, high) of a box of bricks."""
        size = self.brick_size
        return self.sample_world(np.array(box.low) * size), self.sample_world(np.array(box.high) * size)

    def to_json(self) -> dict[str, Any]:
        return {
            "origin_world": list(self.origin_world),
            "voxel_size_m": self.voxel_size_m,
            "brick_size": self.brick_size,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lattice:
        return cls(tuple(data["origin_world"]), data["voxel_size_m"], data["brick_size"])
