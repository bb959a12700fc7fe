"""What a partitioned scene asks of the stages after it, in sizes; and what a stage says it takes for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

GIB = 1 << 30
PROCESS_BYTES = 1350 << 20  # interpreter, torch, a compiled step and its activations, what stereo left
FACES_PER_BRICK = 3.4  # of the surface, for each voxel of a brick's face; those of halos not counted twice


@runtime_checkable
class BlockLoad(Protocol):
    """Sizes of one block."""

    @property
    def memory_bytes(self) -> int: ...  # of training it

    @property
    def n_photos(self) -> int: ...

    @property
    def n_bricks(self) -> int: ...  # of surface, halo included

    @property
    def pixels(self) -> int: ...  # of its photos, at the pyramid levels it trains with


@dataclass(frozen=True)
class Workload:
    """Sizes of a partitioned scene, and how many workers, each like this machine, share it."""

    n_photos: int
    megapixels: float  # of all posed photos
    long_edge_px: float  # of the median photo
    brick_size: int  # voxels along a brick's side
    blocks: Sequence[BlockLoad]
    n_workers: int = 1

    @property
    def n_bricks(self) -> int:
        return sum(block.n_bricks for block in self.blocks)

    @property
    def n_faces(self) -> int:
        """Faces of the whole surface."""
        return surface_faces(self.n_bricks, self.brick_size)


@dataclass(frozen=True)
class Cost:
    """What a stage takes: seconds on two CPU cores of 2020s server class, memory at most, disk, and a note."""

    seconds: float
    memory_bytes: int
    disk_bytes: int
    note: str = ""


def brick_bytes(brick_size: int) -> int:
    """Bytes of one SDF brick in memory (float16)."""
    return 2 * (brick_size + 1) ** 3


def surface_faces(n_bricks: int, brick_size: int) -> int:
    """Faces of the surface in so many bricks."""
    return int(FACES_PER_BRICK * n_bricks * brick_size**2)
