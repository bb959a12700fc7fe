"""Memory that training a block takes, by sizes alone: blocks are split until it fits."""

from __future__ import annotations

import os
from pathlib import Path

from quoin.pipeline.core.workload import PROCESS_BYTES, brick_bytes

NETWORK_BYTES = 1300 << 20  # initial SDF; later hash tables with Adam's moments, cached volume, SfM supervision
PIXEL_BYTES = 11  # colors, gray pyramid and mask of a photo, and the copy made while they are put together
BRICK_COPIES = 2  # SDF bricks in a list, then in one array


def machine_memory_bytes() -> int:
    """Memory of this machine, or of the container that this process runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def block_memory_bytes(pixels: int, n_bricks: int, brick_size: int) -> int:
    """Memory of training a block: ``pixels`` of all its photos at level 0, ``n_bricks`` of surface in its outer box."""
    bricks = n_bricks * brick_bytes(brick_size) * BRICK_COPIES
    return PROCESS_BYTES + NETWORK_BYTES + PIXEL_BYTES * pixels + bricks


def block_vram_bytes(pixels: int) -> int:
    """GPU memory of training a block: photos and network are on the device."""
    return NETWORK_BYTES + PIXEL_BYTES * pixels


def min_memory_bytes(photo_pixels: float, brick_size: int) -> int:
    """Least memory that any block takes: a surface of one brick, seen by two photos of half size."""
    return block_memory_bytes(int(2 * photo_pixels / 4), surface_bricks(1), brick_size)


def surface_bricks(n_point_bricks: int) -> int:
    """Bricks that the surface will pass through, from those with SfM points, which textureless surfaces lack."""
    return 2 * n_point_bricks + 8
