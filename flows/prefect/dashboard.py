"""State of all blocks during training as one table, one map and one page of previews, however many blocks there are.

A sink before ``ArtifactSink``: it keeps the events of single blocks and passes all others on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quoin.flows.prefect.artifacts import image_markdown
from quoin.flows.prefect.block_map import draw_block_map
from quoin.pipeline.core.events import Event, Reporter, Sink
from quoin.pipeline.core.formatting import format_duration
from quoin.pipeline.scene.blocks import Partition

REFRESH_SECONDS = 10.0
MAX_PREVIEWS = 6  # of the blocks with the latest events
MAX_ROWS = 200
STATE_ORDER = ("training", "extracting", "failed", "stopped", "to do", "done")  # in the table
BLOCK_PREFIX = "train/"


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
