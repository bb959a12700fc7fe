"""What is shown of blocks while they train, from the events they send."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from quoin.flows.prefect.dashboard import (
    MAP_EDGE_PX,
    MAX_PREVIEWS,
    MAX_ROWS,
    REFRESH_SECONDS,
    STATE_COLORS,
    BlockDashboard,
    draw_block_map,
)
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import Block, Partition


def partition(*cores):
    """Blocks b0, b1 … with these cores (low, high in bricks)."""
    blocks = [Block(f"b{i}", BrickBox(*core), 1, np.arange(3), np.ones(3)) for i, core in enumerate(cores)]
    return Partition(Lattice((0.0, 0.0, 0.0), 0.1), blocks, np.zeros(3), np.ones(3))


class Shown:
    """A board over ``n`` blocks, and what it has sent on."""

    def __init__(self, n=2):
        cores = [((i, 0, 0), (i + 1, 1, 1)) for i in range(n)]
        self.events = []
        self.board = BlockDashboard(self.events.append, lambda: partition(*cores))
        self.n, self.time = n, 0.0
        self.tell("table", "blocks", rows=[self.row(i, "to do") for i in range(n)])

    def row(self, i, state, **more):
        return {"block": f"b{i}", "state": state, "photos": 7 + i, **more}

    def tell(self, kind, name, **values):
        self.board({"kind": kind, "name": name, "time": self.time, **values})

    def last(self, kind, name):
        return [event for event in self.events if (event["kind"], event["name"]) == (kind, name)][-1]

    def rows(self):
        return {row["block"]: row for row in self.last("table", "blocks")["rows"]}


def train(shown, block, node="node7"):
    shown.tell("place", f"train/{block}", node=node, device="cuda")
    shown.tell("start", f"train/{block}", total=100.0, unit="steps")
    shown.tell("advance", f"train/{block}", done=40.0, total=100.0, unit="steps")
    shown.tell("metrics", f"train/{block}", step=41, values={"loss": 0.0312, "seconds_left": 90.0})
    shown.tell("metrics", f"train/{block}", step=42, values={"heldout_psnr_db": 23.45})


def test_the_table_says_where_each_block_is_and_how_it_does():
    shown = Shown()
    shown.time = REFRESH_SECONDS
    train(shown, "b0")
    shown.time *= 2
    shown.tell("advance", "train/b0", done=41.0, total=100.0, unit="steps")
    assert shown.rows()["b0"] == {
        "block": "b0",
        "state": "training",
        "done": "41 %",
        "step": "42",
        "loss": "0.0312",
        "held-out PSNR": "23.4 dB",
        "time left": "1 min 30 s",
        "node": "node7",
        "device": "cuda",
        "photos": "7",
    }
    assert shown.rows()["b1"]["state"] == "to do"


def test_blocks_that_ended_are_told_at_once_when_training_ends():
    shown = Shown(3)
    for block in ("b0", "b1", "b2"):
        train(shown, block)
    shown.tell("end", "train/b0", seconds=1.0, failed=False)
    shown.tell("end", "train/b1", seconds=1.0, failed=True)
    done = {"steps": 100, "heldout_psnr_db": 30.0, "device": "cuda"}
    shown.tell("table", "blocks", rows=[shown.row(0, "done", **done), shown.row(1, "failed"), shown.row(2, "to do")])
    shown.tell("end", "train", seconds=2.0, failed=True)
    rows = shown.rows()
    assert [rows[b]["state"] for b in ("b0", "b1", "b2")] == ["done", "failed", "training"]
    assert (rows["b0"]["done"], rows["b0"]["step"], rows["b0"]["time left"]) == ("100 %", "100", "")
    assert shown.events[-3]["kind"] == "end", "the stage's own events go on"


def test_a_block_that_starts_again_says_so():
    shown = Shown()
    train(shown, "b0", node="lost")
    shown.tell("place", "train/b0", node="node8", device="cuda")
    shown.tell("start", "train/b0", total=100.0, unit="steps")
    shown.time = REFRESH_SECONDS
    shown.tell("advance", "train/b0", done=10.0, total=100.0, unit="steps")
    assert (shown.rows()["b0"]["node"], shown.rows()["b0"]["done"]) == ("node8", "10 %")


def test_events_of_blocks_are_not_passed_on_but_their_lines_are():
    shown = Shown()
    shown.events.clear()
    train(shown, "b0")
    shown.tell("start", "train/b0/extract", total=1.0, unit="")
    shown.tell("log", "train/b0", message="hello", level="info")
    shown.tell("start", "fuse", total=1.0, unit="")
    assert [(event["kind"], event["name"]) for event in shown.events] == [("log", "train/b0"), ("start", "fuse")]


def test_a_thousand_blocks_give_no_more_artifacts_than_two():
    shown = Shown(1000)
    for i in range(1000):
        train(shown, f"b{i}")
        shown.tell("picture", f"train/b{i}", jpeg=b"\xff\xd8", caption=f"block {i}")
    shown.tell("picture", "train/b3", jpeg=b"\xff\xd8", caption="block 3, later")
    shown.time = REFRESH_SECONDS
    shown.tell("advance", "train/b0", done=50.0, total=100.0, unit="steps")
    assert {(e["kind"], e["name"]) for e in shown.events} == {
        ("table", "blocks"),
        ("picture", "block map"),
        ("page", "previews"),
    }
    assert len(shown.rows()) == MAX_ROWS
    page = shown.last("page", "previews")["markdown"]
    assert page.count("data:image/jpeg") == MAX_PREVIEWS
    assert page.index("block 3, later") < page.index("block 999") < page.index("block 998")


def test_the_map_shows_each_block_where_it_is_filled_by_how_far_it_is():
    where = partition(((0, 0, 0), (2, 2, 2)), ((2, 0, 0), (4, 2, 2)), ((0, 2, 0), (2, 4, 2)))
    states = {"b0": ("training", 0.5), "b1": ("done", 1.0), "b2": ("failed", 0.3)}
    picture = np.asarray(draw_block_map(where, states).convert("RGB")).astype(int)
    assert picture.shape[1] == MAP_EDGE_PX

    def colour(x, y):  # as shares of the mapped square, y up
        edge, margin = MAP_EDGE_PX - 48, 24
        return tuple(picture[round(margin + (1 - y) * edge), round(margin + x * edge)])

    def of(state):
        return tuple(int(STATE_COLORS[state][i : i + 2], 16) for i in (1, 3, 5))

    assert colour(0.1, 0.05) == of("training")
    assert colour(0.1, 0.45) == of("to do"), "the upper half of the first is still to do"
    assert colour(0.9, 0.1) == colour(0.9, 0.4) == of("done")
    assert colour(0.1, 0.9) == of("failed")
    assert colour(0.9, 0.9) == (255, 255, 255), "no block there"


def test_a_block_above_another_is_drawn_smaller():
    where = partition(((0, 0, 2), (2, 2, 4)), ((0, 0, 0), (2, 2, 2)))
    picture = draw_block_map(where, {"b0": ("done", 1.0), "b1": ("failed", 1.0)})
    colours = [picture.getpixel((x, 300)) for x in (27, 100)]
    assert colours == [(0xC8, 0x45, 0x2F), (0x4C, 0x9F, 0x70)]


def test_the_map_travels_as_a_small_jpeg():
    shown = Shown(400)
    jpeg = shown.last("picture", "block map")["jpeg"]
    assert Image.open(io.BytesIO(jpeg)).size[0] == MAP_EDGE_PX
    assert len(jpeg) < 100_000
