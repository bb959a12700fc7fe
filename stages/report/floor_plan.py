"""Drawing of a floor plan: walls with their lengths, furniture, areas of the rooms."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from quoin.pipeline.core.formatting import format_quantity
from quoin.stages.report import maps
from quoin.stages.report.data_urls import png_uri
from quoin.stages.report.room_measures import FloorPlan, WallSegment
from quoin.stages.report.svg import svg_tag

Array = np.ndarray
FURNITURE_GRAY = 150


def draw_floor_plan(plan: FloorPlan, unit: str) -> Markup:
    """The plan as SVG, its sides along the walls; ``unit`` is "m" or "units"."""
    ends = np.array([wall.ends_world for wall in plan.walls]).reshape(-1, 2)
    corners = np.column_stack([ends, np.zeros(len(ends))])
    window = maps.fit_window(plan.axes[0], plan.axes[1], plan.furniture_world, np.zeros((0, 3)), corners, aspect=4 / 3)
    gray = np.full((len(plan.furniture_world), 3), FURNITURE_GRAY, np.uint8)
    picture = png_uri(maps.rasterize_points(window, plan.furniture_world, gray))
    rooms = []
    for room in plan.facts.rooms:
        sides = [format_quantity("m", side, unit) for side in (room.length_m, room.width_m)]
        caption = [format_quantity("m2", room.area_m2, unit), " × ".join(sides)]
        rooms.append(maps.text_label(window, np.array([*room.center_world, 0.0]), caption))
    layers = [*(_wall(window, wall, unit) for wall in plan.walls), *rooms, maps.scale_bar(window, unit)]
    return maps.map_svg(window, picture, layers, "Floor plan")


def _wall(window: maps.MapWindow, wall: WallSegment, unit: str) -> Markup:
    (x1, y1), (x2, y2) = window.pixels(np.column_stack([wall.ends_world, np.zeros(2)])).tolist()
    caption = f"{format_quantity('m', wall.facts.length_m, unit)} long, {wall.facts.tilt_deg:.1f}° from vertical"
    return svg_tag("line", svg_tag("title", caption), x1=x1, y1=y1, x2=x2, y2=y2, class_="wall")
