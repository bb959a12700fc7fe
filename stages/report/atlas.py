"""The maps of the page: cameras and points from above and from the side, blocks from above."""

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
    n_outside_above: int
    n_outside_side: int


def draw_maps(
    posed: Posed, partition: Partition | None, blocks: Sequence[BlockFacts], number_by_photo: dict[int, int], unit: str
) -> SceneMaps:
    """All maps; ``number_by_photo``: numbers of the cameras to mark, by their index in ``posed``."""
    region = [partition.region_low_world, partition.region_high_world] if partition else []
    corners_world = np.array(region, float).reshape(-1, 3)
    along = maps.side_axis(posed.points_world) if len(posed.points_world) else X_AXIS
    above, n_above = _camera_map(posed, np.stack([X_AXIS, Y_AXIS]), corners_world, number_by_photo)
    side, n_side = _camera_map(posed, np.stack([along, Z_AXIS]), corners_world, number_by_photo)
    return SceneMaps(
        above=_map_svg(posed, *above, unit, "Cameras and points from above"),
        side=_map_svg(posed, *side, unit, "Cameras and points from the side"),
        blocks=_block_map(posed, blocks, unit),
        n_outside_above=n_above,
        n_outside_side=n_side,
    )


def _camera_map(
    posed: Posed, axes_world: Float[Array, "2 3"], corners_world: Float[Array, "c 3"], number_by_photo: dict[int, int]
) -> tuple[tuple[maps.MapWindow, list[Markup]], int]:
    """The window and the camera markers of a map with ``axes_world`` to the right and up; and how many are outside."""
    centers = centers_world(posed.cam_from_world)
    right, up = axes_world
    window = maps.fit_window(right, up, posed.points_world, centers, corners_world, aspect=4 / 3)
    rotations_world_from_cam = posed.cam_from_world[:, :, :3].transpose(0, 2, 1)
    half_fov_tan = 0.5 * posed.sizes[:, 0] / posed.intrinsics[:, 0]
    markers, n_outside = maps.camera_markers(
        window, centers, rotations_world_from_cam, half_fov_tan, posed.names, number_by_photo
    )
    return (window, [markers]), n_outside


def _map_svg(posed: Posed, window: maps.MapWindow, layers: Sequence[Markup], unit: str, title: str) -> Markup:
    points = png_uri(maps.rasterize_points(window, posed.points_world, posed.point_colors))
    return maps.map_svg(window, points, [*layers, maps.scale_bar(window, unit)], title)


def _block_map(posed: Posed, blocks: Sequence[BlockFacts], unit: str) -> Markup:
    boxes = [(np.array(b.low_world), np.array(b.high_world)) for b in blocks]
    outer_boxes = [(low - b.halo_m, high + b.halo_m) for b, (low, high) in zip(blocks, boxes, strict=True)]
    corners_world = np.array(outer_boxes, float).reshape(-1, 3)
    window = maps.fit_window(X_AXIS, Y_AXIS, posed.points_world, np.zeros((0, 3)), corners_world, aspect=16 / 9)
    halos, cores = [], []
    blocks_by_place: dict[tuple[float, float], list[BlockFacts]] = {}
    for block, box, outer_box in zip(blocks, boxes, outer_boxes, strict=True):
        halos.append(maps.box_rectangle(window, *outer_box, "halo", _block_tooltip(block)))
        kind = "core missing" if block.failed else "core"
        cores.append(maps.box_rectangle(window, *box, kind, _block_tooltip(block)))
        x, y = ((box[0] + box[1]) / 2)[:2].round(6).tolist()
        blocks_by_place.setdefault((x, y), []).append(block)
    is_detailed = len(blocks) <= MAX_LABELED_BLOCKS
    labels = [
        maps.text_label(window, np.array([x, y, 0.0]), _label_rows(stacked, is_detailed))
        for (x, y), stacked in blocks_by_place.items()
    ]
    return _map_svg(posed, window, [*halos, *cores, *labels], unit, "Blocks from above")


def _block_tooltip(block: BlockFacts) -> str:
    if block.failed:
        return f"{block.id}: missing, {block.failed}"
    seconds, memory = format_duration(block.seconds), format_bytes(block.peak_memory_bytes)
    return f"{block.id}: {block.n_photos} photos, {seconds}, {memory}"


def _label_rows(stacked: Sequence[BlockFacts], is_detailed: bool) -> list[str]:
    """Rows of a label; blocks above one another share one, with their names only."""
    rows = [", ".join(block.id for block in stacked)]
    if len(stacked) > 1 or not is_detailed:
        return rows
    (block,) = stacked
    rows.append("missing" if block.failed else f"{block.n_photos} photos")
    if block.seconds is not None:
        rows.append(format_duration(block.seconds))
    if block.peak_memory_bytes:
        rows.append(format_bytes(block.peak_memory_bytes))
    return rows
