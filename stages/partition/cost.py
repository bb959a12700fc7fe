"""Estimates of memory, disk space and time of a run from sizes alone, by models simple enough to check by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES
from quoin.stages.partition.config import BlockPlan

GIB = 1 << 30

# Training one block, bytes.
PROCESS_BYTES = 1350 << 20  # interpreter, torch, compiled step and its activations, what stereo left
NETWORK_BYTES = 1300 << 20  # the seed while it is made; later hash tables with Adam's moments, cached volume, evidence
PIXEL_BYTES = 11  # colours, gray pyramid and mask of a photo, and the copy made while they are put together
BRICK_COPIES = 2  # SDF bricks in a list, then in one array

# Seconds on two CPU cores of 2020s server class, from a finished demo (40 photos of 0.48 megapixels, 2 blocks).
STEREO_SECONDS_PER_MPX = 8.8  # dense stereo, with 8 photos beside each
SKY_SECONDS_PER_MPX = 0.6
COMPILE_SECONDS = 10.0  # once a process
SECONDS_PER_BLOCK = 24.0  # of a block beside its steps: reading, the seed, the bricks
RAYS_PER_S = 9500.0  # of the default method
BRICKS_PER_S = 140.0  # of fusing: read, blend, extract
OBSERVE_SECONDS_PER_PHOTO_MFACE = 0.075  # of one photo looking at a million faces
CLEAN_SECONDS_PER_MFACE = 2.2  # of cleaning and writing a million faces
SERIAL_SHARE = 0.1  # of fusing, that the driver does whatever the workers: joining and writing
REPORT_SECONDS, REPORT_SECONDS_PER_PHOTO = 5.0, 0.05

# Surface bricks hold about so many faces for each voxel of a brick's face, those of halos not counted twice.
FACES_PER_BRICK = 3.4
MESH_BYTES_PER_FACE = 27  # in mesh.ply: half a vertex and a face
CAST_BYTES_PER_FACE = 420  # working arrays and ray-casting scene while fusing
CHUNK_BYTES_PER_FACE = 110  # on disk while it is fused in parts
STEREO_BYTES_PER_MPX = 22 << 20  # on disk
CHECKPOINT_BYTES = 120 << 20  # and model, of a block


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


def block_vram_bytes(pixels: int) -> int:
    """Memory on a GPU of training a block: what is on the device of the above, the photos and the network."""
    return NETWORK_BYTES + PIXEL_BYTES * pixels


def min_memory_bytes(photo_pixels: float, brick_size: int) -> int:
    """Memory without which no block can be trained: that of a surface of one brick, seen by two photos of half size."""
    return block_memory_bytes(int(2 * photo_pixels / 4), surface_bricks(1), brick_size)


def surface_bricks(n_point_bricks: int) -> int:
    """Bricks a surface will pass through, from those that hold SfM points: textureless parts carry none."""
    return 2 * n_point_bricks + 8


def surface_faces(n_bricks: int, brick_size: int) -> int:
    """Faces of the surface in so many bricks."""
    return int(FACES_PER_BRICK * n_bricks * brick_size**2)


def estimate_stage_costs(
    *,
    n_photos: int,
    stereo_mpx: float,
    brick_size: int,
    blocks: Sequence[BlockPlan],
    rays: int,
    part_faces: int,
    sky: bool = True,
    factors: Mapping[str, float] | None = None,
    workers: int = 1,
    budget_s: float = math.inf,
) -> list[dict[str, Any]]:
    """One row a stage still to come: stage, memory_bytes, disk_bytes, seconds, note.

    ``stereo_mpx``: megapixels of all photos as stereo compares them, weighted by its photos beside each over 8;
    ``rays``: of a block's training; ``part_faces``: that fusion works on at a time; ``factors``: what a stage takes on
    this device, relative to the seconds above; ``workers``: how many, each like this device, share stereo, blocks and
    the parts of fusion; ``budget_s``: that the steps of all blocks together may take.
    """
    n_blocks, n_bricks = len(blocks), sum(block.n_bricks for block in blocks)
    faces = surface_faces(n_bricks, brick_size)
    rounds = -(-n_blocks // workers)
    steps_s = min(rays / RAYS_PER_S, budget_s / max(n_blocks, 1))  # of a block
    # a photo looks at the faces of the blocks that it shows, not at all there are
    observations = min(
        sum(surface_faces(block.n_bricks, brick_size) * block.n_photos for block in blocks), faces * n_photos
    )
    largest = max((block.pixels for block in blocks), default=0)
    fuse = (
        n_bricks / BRICKS_PER_S
        + OBSERVE_SECONDS_PER_PHOTO_MFACE * observations / 1e6
        + CLEAN_SECONDS_PER_MFACE * faces / 1e6
    )
    seconds = {
        "priors": stereo_mpx * (STEREO_SECONDS_PER_MPX / workers + (SKY_SECONDS_PER_MPX if sky else 0.0)),
        "train": COMPILE_SECONDS + rounds * (SECONDS_PER_BLOCK + steps_s),
        "fuse": fuse * (SERIAL_SHARE + (1 - SERIAL_SHARE) / workers),
        "report": REPORT_SECONDS + REPORT_SECONDS_PER_PHOTO * n_photos,
    }
    memory = {
        "priors": PROCESS_BYTES,
        "train": sum(sorted(block.memory_bytes for block in blocks)[-workers:]),
        "fuse": PROCESS_BYTES // 2 + min(faces, part_faces) * CAST_BYTES_PER_FACE,
        "report": PROCESS_BYTES // 2 + min(faces, MAX_RAYCAST_FACES) * 150,
    }
    disk = {
        "priors": int(stereo_mpx * STEREO_BYTES_PER_MPX),
        "train": n_bricks * brick_bytes(brick_size) + n_blocks * CHECKPOINT_BYTES,
        "fuse": faces * (MESH_BYTES_PER_FACE + 18 + (CHUNK_BYTES_PER_FACE if faces > part_faces else 0)) + (12 << 20),
        "report": 20 << 20,
    }
    note = {
        "priors": f"dense stereo of {n_photos:,} photos",
        "train": f"{n_blocks:,} block{'s' if n_blocks != 1 else ''}, {workers} at a time, "
        f"{largest / 1e6:,.0f} Mpx in the largest",
        "fuse": f"about {n_bricks:,} bricks, {faces / 1e6:,.1f} M faces",
        "report": f"{n_photos:,} photos",
    }
    return [
        {
            "stage": stage,
            "memory_bytes": memory[stage],
            "disk_bytes": disk[stage],
            "seconds": seconds[stage] * (factors or {}).get(stage, 1.0),
            "note": note[stage],
        }
        for stage in seconds
    ]
