"""The storey from above: walls as lines with their lengths, what stands in the rooms, areas."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from quoin.stages.report import maps
from quoin.stages.report.data_urls import png_uri
from quoin.stages.report.quantities import quantity
from quoin.stages.report.room_measures import Plan, Wall
from quoin.stages.report.svg import tag

Array = np.ndarray
GREY = 150


def draw(plan: Plan, unit: str) -> Markup:
    """The plan as SVG, its sides along the walls; ``unit`` is "m" or "units"."""
    ends = np.array([wall.ends_world for wall in plan.walls]).reshape(-1, 2)
    around = np.column_stack([ends, np.zeros(len(ends))])
    window = maps.frame(plan.axes[0], plan.axes[1], plan.furniture_world, np.zeros((0, 3)), around, aspect=4 / 3)
    grey = np.full((len(plan.furniture_world), 3), GREY, np.uint8)
    picture = png_uri(maps.paint(window, plan.furniture_world, grey))
    rooms = []
    for room in plan.facts.rooms:
        sides = [quantity("m", side, unit) for side in (room.length_m, room.width_m)]
        told = [quantity("m2", room.area_m2, unit), " × ".join(sides)]
        rooms.append(maps.label(window, np.array([*room.middle_world, 0.0]), told))
    layers = [*(_wall(window, wall, unit) for wall in plan.walls), *rooms, maps.scale_bar(window, unit)]
    return maps.sheet(window, picture, layers, "Floor plan")


def _wall(window: maps.Window, wall: Wall, unit: str) -> Markup:
    (x1, y1), (x2, y2) = window.pixels(np.column_stack([wall.ends_world, np.zeros(2)])).tolist()
    told = f"{quantity('m', wall.facts.length_m, unit)} long, {wall.facts.tilt_deg:.1f}° from upright"
    return tag("line", tag("title", told), x1=x1, y1=y1, x2=x2, y2=y2, class_="wall")
