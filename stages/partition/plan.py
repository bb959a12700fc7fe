"""What a run will take: memory, disk and time from sizes alone, by models simple enough to check by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

GIB = 1 << 30

# Training one block, bytes.
PROCESS_BYTES = 1350 << 20  # interpreter, torch, compiled step and its activations, what stereo left
NETWORK_BYTES = 1300 << 20  # the seed while it is made; later hash tables with Adam's moments, cached volume, evidence
PIXEL_BYTES = 11  # colours, gray pyramid and mask of a photo, and the copy made while they are put together
BRICK_COPIES = 2  # SDF bricks in a list, then in one array

# Times on two CPU cores of 2020s server class.
PRIORS_SECONDS_PER_PHOTO = 4.0  # dense stereo
TRAIN_SECONDS = 220.0  # of training one block at the default preset: 2 million rays
BRICKS_PER_S = 150.0  # of fusing: read, blend, extract
LOOK_SECONDS = 0.06  # of one photo looking at a million faces
CLEAN_SECONDS = 3.0  # of cleaning and writing a million faces
REPORT_SECONDS = 20.0

# Surface bricks hold about so many faces for each voxel of a brick's face.
FACES_PER_BRICK = 3.0
MESH_BYTES_PER_FACE = 27  # in mesh.ply: half a vertex and a face
CAST_BYTES_PER_FACE = 420  # working arrays and ray-casting scene while fusing
STEREO_BYTES_PER_PHOTO = 10 << 20  # on disk


def machine_memory_bytes() -> int:
    """Memory of this machine, or of the container it is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def brick_bytes(brick_size: int) -> int:
    """Bytes of one SDF brick in memory (float16)."""
    return 2 * (brick_size + 1) ** 3


def block_memory_bytes(pixels: int, n_bricks: int, brick_size: int) -> int:
    """Memory of training a block: ``pixels`` of all its photos at level 0, ``n_bricks`` of surface in its outer box."""
    bricks = n_bricks * brick_bytes(brick_size) * BRICK_COPIES
    return PROCESS_BYTES + NETWORK_BYTES + PIXEL_BYTES * pixels + bricks


def surface_bricks(n_point_bricks: int) -> int:
    """Bricks a surface will pass through, from those that hold SfM points: textureless parts carry none."""
    return 2 * n_point_bricks + 8


def surface_faces(n_bricks: int, brick_size: int) -> int:
    """Faces of the surface in so many bricks."""
    return int(FACES_PER_BRICK * n_bricks * brick_size**2)


def plan_rows(
    *,
    n_photos: int,
    pixels: int,
    n_bricks: int,
    brick_size: int,
    block_memory: list[int],
    block_pixels: list[int],
    train_seconds: float = TRAIN_SECONDS,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """One row a stage still to come: stage, memory_bytes, disk_bytes, seconds, note.

    ``pixels`` are those of all undistorted photos at level 0, ``block_pixels`` those each block loads;
    ``train_seconds`` is what one block takes, ``workers`` how many blocks are trained at once.
    """
    faces = surface_faces(n_bricks, brick_size)
    n_blocks = len(block_memory)
    rounds = -(-n_blocks // max(workers, 1))
    sdf = n_bricks * brick_bytes(brick_size) * (1 if n_blocks == 1 else 1.4)
    looking = LOOK_SECONDS * n_photos * faces / 1e6
    return [
        {
            "stage": "priors",
            "memory_bytes": PROCESS_BYTES,
            "disk_bytes": n_photos * STEREO_BYTES_PER_PHOTO,
            "seconds": PRIORS_SECONDS_PER_PHOTO * n_photos,
            "note": f"dense stereo of {n_photos} photos",
        },
        {
            "stage": "train",
            "memory_bytes": sum(sorted(block_memory)[-workers:]),
            "disk_bytes": int(sdf) + n_blocks * (120 << 20),
            "seconds": rounds * train_seconds,
            "note": f"{n_blocks} block{'s' if n_blocks != 1 else ''}, {workers} at a time, "
            f"{max(block_pixels, default=0) / 1e6:,.0f} Mpx in the largest",
        },
        {
            "stage": "fuse",
            "memory_bytes": PROCESS_BYTES // 2 + faces * CAST_BYTES_PER_FACE,
            "disk_bytes": faces * (MESH_BYTES_PER_FACE + 18) + (12 << 20),
            "seconds": n_bricks / BRICKS_PER_S + looking + CLEAN_SECONDS * faces / 1e6,
            "note": f"about {n_bricks:,} bricks, {faces / 1e6:,.1f} M faces",
        },
        {
            "stage": "report",
            "memory_bytes": PROCESS_BYTES // 2 + faces * 150,
            "disk_bytes": 20 << 20,
            "seconds": REPORT_SECONDS,
            "note": f"{n_photos} photos, {pixels / 1e6:,.0f} Mpx",
        },
    ]
