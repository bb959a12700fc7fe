"""State of all blocks during training as one table, one map and one page of previews, however many blocks there are.

A sink before ``ArtifactSink``: it keeps the events of single blocks and passes all others on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from quoin.flows.prefect.artifacts import image_markdown
from quoin.pipeline.core.events import Event, Reporter, Sink
from quoin.pipeline.core.formatting import format_duration
from quoin.pipeline.geometry.lattice import BrickBox
from quoin.pipeline.scene.blocks import Partition

REFRESH_SECONDS = 10.0
MAX_PREVIEWS = 6  # of the blocks with the latest events
MAX_ROWS = 200
STATE_ORDER = ("training", "extracting", "failed", "stopped", "to do", "done")  # in the table
BLOCK_PREFIX = "train/"

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


@dataclass
class BlockProgress:
    """State of one block, from its events."""

    state: str = "to do"
    progress: float = 0.0
    step: int | None = None
    loss: float | None = None
    psnr_db: float | None = None
    seconds_left: float | None = None
    node: str = ""
    device: str = ""

    def update(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self.state, self.progress, self.seconds_left = "training", 0.0, None
            case "advance":
                self.progress = event["done"] / max(event["total"], 1e-9)
            case "metrics":
                self.step, values = event["step"], event["values"]
                self.loss = values.get("loss", self.loss)
                self.psnr_db = values.get("heldout_psnr_db", self.psnr_db)
                self.seconds_left = values.get("seconds_left", self.seconds_left)
            case "place":
                self.node, self.device = event["node"], event["device"]
            case "end":
                self.state, self.seconds_left = "stopped" if event["failed"] else "extracting", None

    def row(self, name: str, photos: int) -> dict[str, str]:
        """The block as a row of the table."""
        left = "" if self.seconds_left is None else format_duration(self.seconds_left)
        return {
            "block": name,
            "state": self.state,
            "done": f"{100 * self.progress:.0f} %",
            "step": "" if self.step is None else str(self.step),
            "loss": "" if self.loss is None else f"{self.loss:.4f}",
            "held-out PSNR": "" if self.psnr_db is None else f"{self.psnr_db:.1f} dB",
            "time left": left,
            "node": self.node,
            "device": self.device,
            "photos": str(photos),
        }


class BlockDashboard:
    """Sink that passes events on to ``sink``, those of blocks as a table, a map and previews every REFRESH_SECONDS.

    ``partition()`` is called when training begins.
    """

    def __init__(self, sink: Sink, partition: Callable[[], Partition]) -> None:
        self._sink, self._partition = sink, partition
        self._blocks: dict[str, BlockProgress] = {}
        self._photos: dict[str, int] = {}
        self._previews: dict[str, Event] = {}  # the last of MAX_PREVIEWS blocks, the newest at the end
        self._layout: Partition | None = None
        self._published_at = float("-inf")

    def __call__(self, event: Event) -> None:
        kind, name = event["kind"], event["name"]
        if kind == "table" and name == "blocks":
            self._update_table(event["rows"])
        elif name.startswith(BLOCK_PREFIX) and kind not in ("log", "table"):
            self._update_block(name.removeprefix(BLOCK_PREFIX), event)
        else:
            self._sink(event)
        ended = kind == "end" and name == "train"
        if self._blocks and (ended or event["time"] - self._published_at >= REFRESH_SECONDS):
            self._published_at = event["time"]
            self._publish()

    def _update_table(self, rows: list[Mapping[str, Any]]) -> None:
        """Take in the driver's table: all blocks, and results of those that have ended."""
        self._layout = self._layout or self._partition()
        for row in rows:
            block = self._blocks.setdefault(row["block"], BlockProgress())
            self._photos[row["block"]] = row["photos"]
            if row["state"] != "to do":
                block.state = row["state"]
            if row["state"] == "done":
                block.progress, block.seconds_left = 1.0, None
                block.step, block.device = row.get("steps"), block.device or row.get("device", "")
                block.psnr_db = row.get("heldout_psnr_db")

    def _update_block(self, name: str, event: Event) -> None:
        if event["kind"] == "picture":
            self._previews.pop(name, None)
            self._previews[name] = event
            for old in list(self._previews)[:-MAX_PREVIEWS]:
                del self._previews[old]
        elif name in self._blocks:  # not of steps within a block, such as extraction
            self._blocks[name].update(event)

    def _publish(self) -> None:
        report = Reporter(self._sink)
        rows = sorted(self._blocks.items(), key=lambda named: _rank(named[1].state))[:MAX_ROWS]
        report.table("blocks", [block.row(name, self._photos[name]) for name, block in rows])
        if self._layout is not None:
            states = {name: (block.state, block.progress) for name, block in self._blocks.items()}
            report.picture(
                "block map", np.asarray(draw_block_map(self._layout, states)), caption="Blocks from above, y up."
            )
        if self._previews:
            page = "\n\n".join(image_markdown(event) for event in reversed(self._previews.values()))
            self._sink({"kind": "page", "name": "previews", "time": self._published_at, "markdown": page})


def _rank(state: str) -> int:
    return STATE_ORDER.index(state) if state in STATE_ORDER else len(STATE_ORDER)


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
