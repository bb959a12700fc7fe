"""Maps of the scene: cameras, points and blocks from above and from the side, and the floor plan.

Points are a picture; cameras, boxes, walls and labels are SVG over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup

from quoin.pipeline.core.formatting import (
    escape_invisible,
    format_bytes,
    format_duration,
    format_number,
    format_quantity,
)
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.blocks import Partition
from quoin.pipeline.scene.posed_images import Posed
from quoin.stages.report.facts import BlockFacts
from quoin.stages.report.pictures import format_points, png_uri, svg_tag
from quoin.stages.report.room_measures import FloorPlan, WallSegment

Array = np.ndarray

MAP_WIDTH_PX = 1000  # width of a map
X_AXIS, Y_AXIS, Z_AXIS = np.eye(3)
MAX_LABELED_BLOCKS = 12  # with more, a block's label is its name only
FURNITURE_GRAY = 150


# -- cameras, points and blocks ----------------------------------------------------------------------------------------


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
    along = side_axis(posed.points_world) if len(posed.points_world) else X_AXIS
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
) -> tuple[tuple[MapWindow, list[Markup]], int]:
    """The window and the camera markers of a map with ``axes_world`` to the right and up; and how many are outside."""
    centers = centers_world(posed.cam_from_world)
    right, up = axes_world
    window = fit_window(right, up, posed.points_world, centers, corners_world, aspect=4 / 3)
    rotations_world_from_cam = posed.cam_from_world[:, :, :3].transpose(0, 2, 1)
    half_fov_tan = 0.5 * posed.sizes[:, 0] / posed.intrinsics[:, 0]
    markers, n_outside = camera_markers(
        window, centers, rotations_world_from_cam, half_fov_tan, posed.names, number_by_photo
    )
    return (window, [markers]), n_outside


def _map_svg(posed: Posed, window: MapWindow, layers: Sequence[Markup], unit: str, title: str) -> Markup:
    points = png_uri(rasterize_points(window, posed.points_world, posed.point_colors))
    return map_svg(window, points, [*layers, scale_bar(window, unit)], title)


def _block_map(posed: Posed, blocks: Sequence[BlockFacts], unit: str) -> Markup:
    boxes = [(np.array(b.low_world), np.array(b.high_world)) for b in blocks]
    outer_boxes = [(low - b.halo_m, high + b.halo_m) for b, (low, high) in zip(blocks, boxes, strict=True)]
    corners_world = np.array(outer_boxes, float).reshape(-1, 3)
    window = fit_window(X_AXIS, Y_AXIS, posed.points_world, np.zeros((0, 3)), corners_world, aspect=16 / 9)
    halos, cores = [], []
    blocks_by_place: dict[tuple[float, float], list[BlockFacts]] = {}
    for block, box, outer_box in zip(blocks, boxes, outer_boxes, strict=True):
        halos.append(box_rectangle(window, *outer_box, "halo", _block_tooltip(block)))
        kind = "core missing" if block.failed else "core"
        cores.append(box_rectangle(window, *box, kind, _block_tooltip(block)))
        x, y = ((box[0] + box[1]) / 2)[:2].round(6).tolist()
        blocks_by_place.setdefault((x, y), []).append(block)
    is_detailed = len(blocks) <= MAX_LABELED_BLOCKS
    labels = [
        text_label(window, np.array([x, y, 0.0]), _label_rows(stacked, is_detailed))
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


# -- floor plan --------------------------------------------------------------------------------------------------------


def draw_floor_plan(plan: FloorPlan, unit: str) -> Markup:
    """The plan as SVG, its sides along the walls; ``unit`` is "m" or "units"."""
    ends = np.array([wall.ends_world for wall in plan.walls]).reshape(-1, 2)
    corners = np.column_stack([ends, np.zeros(len(ends))])
    window = fit_window(plan.axes[0], plan.axes[1], plan.furniture_world, np.zeros((0, 3)), corners, aspect=4 / 3)
    gray = np.full((len(plan.furniture_world), 3), FURNITURE_GRAY, np.uint8)
    picture = png_uri(rasterize_points(window, plan.furniture_world, gray))
    rooms = []
    for room in plan.facts.rooms:
        sides = [format_quantity("m", side, unit) for side in (room.length_m, room.width_m)]
        caption = [format_quantity("m2", room.area_m2, unit), " × ".join(sides)]
        rooms.append(text_label(window, np.array([*room.center_world, 0.0]), caption))
    layers = [*(_wall(window, wall, unit) for wall in plan.walls), *rooms, scale_bar(window, unit)]
    return map_svg(window, picture, layers, "Floor plan")


def _wall(window: MapWindow, wall: WallSegment, unit: str) -> Markup:
    (x1, y1), (x2, y2) = window.pixels(np.column_stack([wall.ends_world, np.zeros(2)])).tolist()
    caption = f"{format_quantity('m', wall.facts.length_m, unit)} long, {wall.facts.tilt_deg:.1f}° from vertical"
    return svg_tag("line", svg_tag("title", caption), x1=x1, y1=y1, x2=x2, y2=y2, class_="wall")


# -- parts of a map ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapWindow:
    """The part of a plane that a map shows: two world axes and the bounds along them; y points up on the page."""

    right_world: Float[Array, "3"]
    up_world: Float[Array, "3"]
    low: Float[Array, "2"]
    high: Float[Array, "2"]

    @property
    def px_per_m(self) -> float:
        return MAP_WIDTH_PX / float(self.high[0] - self.low[0])

    @property
    def size_px(self) -> tuple[int, int]:
        width, height = np.round((self.high - self.low) * self.px_per_m).astype(int)
        return int(width), int(height)

    def pixels(self, points_world: Float[Array, "n 3"]) -> Float[Array, "n 2"]:
        """Where world points fall on the map, in pixels from its top left corner."""
        plane = points_world @ np.stack([self.right_world, self.up_world], axis=1)
        return np.stack([plane[:, 0] - self.low[0], self.high[1] - plane[:, 1]], axis=1) * self.px_per_m


def side_axis(points_world: Float[Array, "n 3"]) -> Float[Array, "3"]:
    """The horizontal unit direction along which the points spread most: seen across it, a side view is widest."""
    flat = points_world[:, :2] - np.median(points_world[:, :2], axis=0)
    reach = np.linalg.norm(flat, axis=1)
    flat = flat[reach <= np.percentile(reach, 95)]
    values, vectors = np.linalg.eigh(flat.T @ flat)
    axis = np.array([*vectors[:, int(np.argmax(values))], 0.0])
    return axis if axis[np.argmax(np.abs(axis))] > 0 else -axis


def fit_window(
    right_world: Float[Array, "3"],
    up_world: Float[Array, "3"],
    points_world: Float[Array, "n 3"],
    centers_world: Float[Array, "k 3"],
    corners_world: Float[Array, "c 3"],
    aspect: float,
) -> MapWindow:
    """The window, ``aspect`` times as wide as high, that shows the bulk of the points, the cameras, and all corners.

    Outliers do not enlarge it: points count from the 1st to the 99th percentile, cameras within
    five times the median distance of cameras from their median.
    """
    axes = np.stack([right_world, up_world], axis=1)
    content = [corners_world @ axes]
    if len(points_world):
        content.append(np.percentile(points_world @ axes, [1, 99], axis=0))
    if len(centers_world):
        away = np.linalg.norm(centers_world - np.median(centers_world, axis=0), axis=1)
        content.append(centers_world[away <= 5 * np.median(away) + 1e-9] @ axes)
    all_points = np.concatenate(content)
    low, high = all_points.min(0), all_points.max(0)
    margin = 0.06 * float(max(high - low)) or 1.0
    low, high = low - margin, high + margin
    width, height = high - low
    padding = np.array([max(aspect * height - width, 0), max(width / aspect - height, 0)]) / 2
    return MapWindow(right_world, up_world, low - padding, high + padding)


def rasterize_points(
    window: MapWindow, points_world: Float[Array, "n 3"], colors: UInt8[Array, "n 3"]
) -> UInt8[Array, "h w 4"]:
    """The points as an RGBA picture: mean colour per pixel, more opaque where more points fall."""
    width, height = window.size_px
    weight, total = np.zeros(height * width), np.zeros((height * width, 3))
    reach = 1 if len(points_world) < 100_000 else 0  # few points are drawn larger
    xy = np.floor(window.pixels(points_world)).astype(int)
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            x, y = xy[:, 0] + dx, xy[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            cell = y[inside] * width + x[inside]
            share = 1.0 if dx == dy == 0 else 0.45 if 0 in (dx, dy) else 0.2
            weight += np.bincount(cell, minlength=height * width) * share
            for channel in range(3):
                total[:, channel] += np.bincount(cell, colors[inside, channel] * share, minlength=height * width)
    rgba = np.zeros((height * width, 4), np.uint8)
    seen = weight > 0
    rgba[seen, :3] = (total[seen] / weight[seen, None]).round()
    rgba[seen, 3] = (255 * (1 - 0.35 ** weight[seen])).round()
    return rgba.reshape(height, width, 4)


def camera_markers(
    window: MapWindow,
    centers_world: Float[Array, "n 3"],
    rotations_world_from_cam: Float[Array, "n 3 3"],
    half_fov_tan: Float[Array, "n"],
    names: Sequence[str],
    number_by_photo: dict[int, int],
) -> tuple[Markup, int]:
    """Every camera as a wedge that opens along its gaze, with its name as tooltip; and how many lie outside the map.

    ``number_by_photo``: numbers of the cameras to mark, by index.
    """
    centers = window.pixels(centers_world)
    width, height = window.size_px
    reach = float(np.clip(0.35 * MAP_WIDTH_PX / math.sqrt(max(len(names), 1)), 9, 30))
    gaze = rotations_world_from_cam[:, :, 2] @ np.stack([window.right_world, -window.up_world], axis=1)
    length = np.linalg.norm(gaze, axis=1)
    out, marks, off = [], [], 0
    for i, name in enumerate(names):
        x, y = (float(v) for v in centers[i])
        if not (0 <= x <= width and 0 <= y <= height):
            off += 1
            continue
        if length[i] > 0.2:
            along = gaze[i] * reach
            across = np.array([-gaze[i, 1], gaze[i, 0]]) / length[i] * reach * float(np.clip(half_fov_tan[i], 0.2, 1.2))
            corners = np.stack([centers[i], centers[i] + along + across, centers[i] + along - across])
            shape = svg_tag("polygon", points=format_points(*corners.tolist()))
        else:  # looks straight along the map's depth
            shape = svg_tag("circle", cx=x, cy=y, r=reach / 2)
        kind = "camera chosen" if i in number_by_photo else "camera"
        out.append(svg_tag("g", svg_tag("title", escape_invisible(name)), shape, class_=kind, data_photo=name))
        if i in number_by_photo:
            disc, text = svg_tag("circle", cx=x, cy=y, r=14), svg_tag("text", str(number_by_photo[i]), x=x, y=y + 6)
            marks.append(svg_tag("g", disc, text, class_="mark"))
    return Markup("").join(out + marks), off


def box_rectangle(
    window: MapWindow, low_world: Float[Array, "3"], high_world: Float[Array, "3"], kind: str, title: str
) -> Markup:
    """A world box as a rectangle on a map from above."""
    (x0, y1), (x1, y0) = window.pixels(np.stack([low_world, high_world])).tolist()
    return svg_tag("rect", svg_tag("title", title), class_=kind, x=x0, y=y0, width=x1 - x0, height=y1 - y0)


def text_label(window: MapWindow, at_world: Float[Array, "3"], rows: Sequence[str]) -> Markup:
    """Lines of text around a world position, the first in bold."""
    x, y = window.pixels(at_world[None])[0].tolist()
    top = y - 12 * (len(rows) - 1) + 6
    return Markup("").join(
        svg_tag("text", row, class_="fact" if k else "name", x=x, y=top + 24 * k) for k, row in enumerate(rows)
    )


def scale_bar(window: MapWindow, unit: str) -> Markup:
    """A bar of a round length, bottom left; ``unit`` is a symbol or a plural."""
    max_length = 0.2 * MAP_WIDTH_PX / window.px_per_m
    power = 10.0 ** math.floor(math.log10(max_length))
    length = max(f * power for f in (1, 2, 5) if f * power <= max_length)
    end, y = 18 + length * window.px_per_m, window.size_px[1] - 18
    caption = f"{format_number(length)} {unit.removesuffix('s') if length == 1 else unit}"
    bar = svg_tag("polyline", points=format_points((18, y - 7), (18, y), (end, y), (end, y - 7)))
    return svg_tag("g", bar, svg_tag("text", caption, x=end + 8, y=y + 2), class_="scale")


def map_svg(window: MapWindow, points_href: str, layers: Sequence[Markup], title: str) -> Markup:
    """The whole map: the picture of the points below the ``layers``."""
    width, height = window.size_px
    kind = "map wide" if width > 1.5 * height else "map"
    points = svg_tag("image", href=points_href, width=width, height=height)
    return svg_tag("svg", points, *layers, class_=kind, viewBox=f"0 0 {width} {height}", role="img", aria_label=title)
