"""The three maps of the page: cameras and points from above and from the side, blocks from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from quoin.pipeline.core.formatting import format_bytes, format_duration
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.blocks import Partition
from quoin.pipeline.scene.posed_images import Posed
from quoin.stages.report import maps
from quoin.stages.report.data_urls import png_uri
from quoin.stages.report.facts import BlockFacts

Array = np.ndarray
X_AXIS, Y_AXIS, Z_AXIS = np.eye(3)
MAX_LABELED_BLOCKS = 12  # with more, a block's label is its name only


@dataclass(frozen=True)
class SceneMaps:
    """Maps as SVG, and how many cameras lie outside the first two."""

    above: Markup
    side: Markup
    blocks: Markup
    off_above: int
    off_side: int


def draw_maps(
    posed: Posed, partition: Partition | None, blocks: Sequence[BlockFacts], number_by_photo: dict[int, int], unit: str
) -> SceneMaps:
    """All maps; ``number_by_photo``: cameras to mark, index into ``posed`` → number."""
    region = [partition.region_low_world, partition.region_high_world] if partition else []
    region_corners = np.array(region, float).reshape(-1, 3)
    side = maps.side_axis(posed.points_world) if len(posed.points_world) else X_AXIS
    above, off_above = _camera_map(
        posed, X_AXIS, Y_AXIS, region_corners, number_by_photo, unit, "Cameras and points from above"
    )
    side_map, off_side = _camera_map(
        posed, side, Z_AXIS, region_corners, number_by_photo, unit, "Cameras and points from the side"
    )
    return SceneMaps(above, side_map, _block_map(posed, blocks, unit), off_above, off_side)


def _camera_map(
    posed: Posed,
    right_world: Float[Array, "3"],
    up_world: Float[Array, "3"],
    around_world: Float[Array, "c 3"],
    number_by_photo: dict[int, int],
    unit: str,
    title: str,
) -> tuple[Markup, int]:
    centers = centers_world(posed.cam_from_world)
    window = maps.fit_window(right_world, up_world, posed.points_world, centers, around_world, aspect=4 / 3)
    rotations_world_from_cam = posed.cam_from_world[:, :, :3].transpose(0, 2, 1)
    half_fov_tan = 0.5 * posed.sizes[:, 0] / posed.intrinsics[:, 0]
    wedges, off = maps.camera_markers(
        window, centers, rotations_world_from_cam, half_fov_tan, posed.names, number_by_photo
    )
    return _map_svg(posed, window, [wedges], unit, title), off


def _map_svg(posed: Posed, window: maps.MapWindow, layers: Sequence[Markup], unit: str, title: str) -> Markup:
    points = png_uri(maps.rasterize_points(window, posed.points_world, posed.point_colors))
    return maps.map_svg(window, points, [*layers, maps.scale_bar(window, unit)], title)


def _block_map(posed: Posed, blocks: Sequence[BlockFacts], unit: str) -> Markup:
    corners = [c for b in blocks for c in (np.array(b.low_world) - b.halo_m, np.array(b.high_world) + b.halo_m)]
    region_corners = np.array(corners, float).reshape(-1, 3)
    window = maps.fit_window(X_AXIS, Y_AXIS, posed.points_world, np.zeros((0, 3)), region_corners, aspect=16 / 9)
    halos, cores, labels = [], [], []
    places: dict[tuple[float, float], list[BlockFacts]] = {}
    for b in blocks:
        low, high = np.array(b.low_world), np.array(b.high_world)
        tooltip = f"{b.id}: {b.n_photos} photos, {format_duration(b.seconds)}, {format_bytes(b.peak_memory_bytes)}"
        tooltip = f"{b.id}: missing, {b.failed}" if b.failed else tooltip
        halos.append(maps.box_rectangle(window, low - b.halo_m, high + b.halo_m, "halo", tooltip))
        cores.append(maps.box_rectangle(window, low, high, "core missing" if b.failed else "core", tooltip))
        x, y = ((low + high) / 2)[:2].round(6).tolist()
        places.setdefault((x, y), []).append(b)
    for (x, y), stacked in places.items():  # blocks above one another share one label
        rows = [", ".join(b.id for b in stacked)]
        if len(stacked) == 1 and len(blocks) <= MAX_LABELED_BLOCKS:
            rows += ["missing"] if stacked[0].failed else [f"{stacked[0].n_photos} photos"]
            rows += [format_duration(stacked[0].seconds)] if stacked[0].seconds is not None else []
            rows += [format_bytes(stacked[0].peak_memory_bytes)] if stacked[0].peak_memory_bytes else []
        labels.append(maps.text_label(window, np.array([x, y, 0.0]), rows))
    return _map_svg(posed, window, [*halos, *cores, *labels], unit, "Blocks from above")
