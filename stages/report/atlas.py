"""The three maps of the page: cameras and points from above and from the side, blocks from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.blocks import Partition
from quoin.pipeline.scene.posed_images import Posed
from quoin.stages.report import maps
from quoin.stages.report.data_urls import png_uri
from quoin.stages.report.facts import BlockFacts
from quoin.stages.report.quantities import duration, size

Array = np.ndarray
X_AXIS, Y_AXIS, Z_AXIS = np.eye(3)
LABELLED_BLOCKS = 12  # with more, a block's label is its name only


@dataclass(frozen=True)
class Atlas:
    """Maps as SVG, and how many cameras lie outside the first two."""

    above: Markup
    side: Markup
    blocks: Markup
    off_above: int
    off_side: int


def draw(
    posed: Posed, partition: Partition | None, blocks: Sequence[BlockFacts], numbered: dict[int, int], unit: str
) -> Atlas:
    """All maps; ``numbered``: cameras to mark, index into ``posed`` → number."""
    region = [partition.region_low_world, partition.region_high_world] if partition else []
    around = np.array(region, float).reshape(-1, 3)
    side = maps.side_axis(posed.points_world) if len(posed.points_world) else X_AXIS
    above, off_above = _cameras(posed, X_AXIS, Y_AXIS, around, numbered, unit, "Cameras and points from above")
    aside, off_side = _cameras(posed, side, Z_AXIS, around, numbered, unit, "Cameras and points from the side")
    return Atlas(above, aside, _blocks(posed, blocks, unit), off_above, off_side)


def _cameras(
    posed: Posed,
    right_world: Float[Array, "3"],
    up_world: Float[Array, "3"],
    around_world: Float[Array, "c 3"],
    numbered: dict[int, int],
    unit: str,
    title: str,
) -> tuple[Markup, int]:
    centers = centers_world(posed.cam_from_world)
    window = maps.frame(right_world, up_world, posed.points_world, centers, around_world, aspect=4 / 3)
    rotations_world_from_cam = posed.cam_from_world[:, :, :3].transpose(0, 2, 1)
    half_fov_tan = 0.5 * posed.sizes[:, 0] / posed.intrinsics[:, 0]
    wedges, off = maps.cameras(window, centers, rotations_world_from_cam, half_fov_tan, posed.names, numbered)
    return _sheet(posed, window, [wedges], unit, title), off


def _sheet(posed: Posed, window: maps.Window, layers: Sequence[Markup], unit: str, title: str) -> Markup:
    points = png_uri(maps.paint(window, posed.points_world, posed.point_colors))
    return maps.sheet(window, points, [*layers, maps.scale_bar(window, unit)], title)


def _blocks(posed: Posed, blocks: Sequence[BlockFacts], unit: str) -> Markup:
    corners = [c for b in blocks for c in (np.array(b.low_world) - b.halo_m, np.array(b.high_world) + b.halo_m)]
    around = np.array(corners, float).reshape(-1, 3)
    window = maps.frame(X_AXIS, Y_AXIS, posed.points_world, np.zeros((0, 3)), around, aspect=16 / 9)
    halos, cores, labels = [], [], []
    places: dict[tuple[float, float], list[BlockFacts]] = {}
    for b in blocks:
        low, high = np.array(b.low_world), np.array(b.high_world)
        told = f"{b.id}: {b.n_photos} photos, {duration(b.seconds)}, {size(b.peak_memory_bytes)}"
        told = f"{b.id}: missing, {b.failed}" if b.failed else told
        halos.append(maps.rectangle(window, low - b.halo_m, high + b.halo_m, "halo", told))
        cores.append(maps.rectangle(window, low, high, "core missing" if b.failed else "core", told))
        x, y = ((low + high) / 2)[:2].round(6).tolist()
        places.setdefault((x, y), []).append(b)
    for (x, y), here in places.items():  # blocks above one another share one label
        rows = [", ".join(b.id for b in here)]
        if len(here) == 1 and len(blocks) <= LABELLED_BLOCKS:
            rows += ["missing"] if here[0].failed else [f"{here[0].n_photos} photos"]
            rows += [duration(here[0].seconds)] if here[0].seconds is not None else []
            rows += [size(here[0].peak_memory_bytes)] if here[0].peak_memory_bytes else []
        labels.append(maps.label(window, np.array([x, y, 0.0]), rows))
    return _sheet(posed, window, [*halos, *cores, *labels], unit, "Blocks from above")
