"""A map of the blocks from above, colored by state and progress."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from quoin.pipeline.geometry.lattice import BrickBox
from quoin.pipeline.scene.blocks import Partition

MAP_EDGE_PX, MARGIN_PX, LEGEND_PX, INSET_PX, TEXT_PX = 600, 24, 28, 5, 15
PENDING_COLOR = "#d4d6da"
STATE_COLORS = {
    "to do": PENDING_COLOR,
    "training": "#f2a541",
    "extracting": "#e9c46a",
    "done": "#4c9f70",
    "failed": "#c8452f",
}
STATE_COLORS["stopped"] = STATE_COLORS["failed"]
TEXT_COLOR, BACKGROUND_COLOR, OUTLINE_COLOR = "#22252a", "#ffffff", "#8a8f98"


def draw_block_map(partition: Partition, states: Mapping[str, tuple[str, float]]) -> Image.Image:
    """Map of the cores of all blocks, x to the right and y up; ``states``: state and progress (0 to 1) of each block.

    A block is filled from below by its progress. Of blocks above one another the higher are drawn smaller.
    """
    boxes = {block.id: partition.lattice.box_world(block.core) for block in partition.blocks}
    low = np.min([box[0][:2] for box in boxes.values()], axis=0)
    high = np.max([box[1][:2] for box in boxes.values()], axis=0)
    pixels_per_unit = (MAP_EDGE_PX - 2 * MARGIN_PX) / float(np.max(high - low))
    width, height = (int(np.ceil(n)) + 2 * MARGIN_PX for n in (high - low) * pixels_per_unit)
    picture = Image.new("RGB", (max(width, MAP_EDGE_PX), height + LEGEND_PX), BACKGROUND_COLOR)
    canvas = ImageDraw.Draw(picture)
    canvas.font = ImageFont.load_default(TEXT_PX)
    below = _count_below([block.core for block in partition.blocks])
    for block, n_below in sorted(zip(partition.blocks, below, strict=True), key=lambda pair: pair[1]):
        state, progress = states.get(block.id, ("to do", 0.0))
        left, bottom = MARGIN_PX + (boxes[block.id][0][:2] - low) * pixels_per_unit + INSET_PX * n_below
        right, top = MARGIN_PX + (boxes[block.id][1][:2] - low) * pixels_per_unit - INSET_PX * n_below
        right, top = max(right, left + 2), max(top, bottom + 2)
        canvas.rectangle((left, height - top, right, height - bottom), fill=PENDING_COLOR)
        filled = bottom + (top - bottom) * (progress if state == "training" else state != "to do")
        if filled > bottom:
            canvas.rectangle(
                (left, height - filled, right, height - bottom), fill=STATE_COLORS.get(state, PENDING_COLOR)
            )
        canvas.rectangle((left, height - top, right, height - bottom), outline=OUTLINE_COLOR)
        if canvas.textlength(block.id) < right - left - 6:
            canvas.text(((left + right) / 2, height - (bottom + top) / 2), block.id, fill=TEXT_COLOR, anchor="mm")
    _legend(canvas, height + 8, [state for state, _ in states.values()])
    return picture


def _count_below(cores: list[BrickBox]) -> np.ndarray:
    """Number of other blocks below each block, overlapping it in the map: int [n]."""
    low, high = np.array([core.low for core in cores]), np.array([core.high for core in cores])
    overlaps_xy = np.all((low[:, None, :2] < high[None, :, :2]) & (low[None, :, :2] < high[:, None, :2]), axis=2)
    return (overlaps_xy & (high[None, :, 2] <= low[:, None, 2])).sum(axis=1)


def _legend(canvas: ImageDraw.ImageDraw, y: int, states: list[str]) -> None:
    x = MARGIN_PX
    for state, color in STATE_COLORS.items():
        count = states.count(state)
        if count:
            canvas.rectangle((x, y, x + TEXT_PX, y + TEXT_PX), fill=color, outline=OUTLINE_COLOR)
            text = f"{count} {state}"
            canvas.text((x + 22, y + TEXT_PX / 2), text, fill=TEXT_COLOR, anchor="lm")
            x += 22 + int(canvas.textlength(text)) + 18
