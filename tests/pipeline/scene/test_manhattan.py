"""The frame of walls in the store, and in words."""

from pathlib import Path

import numpy as np

from quoin.pipeline.scene.manhattan import ManhattanFrame, read_manhattan_frame, write_manhattan_frame
from quoin.pipeline.storage.run import Run

UP = np.array([0.0, 0.0, 1.0])
BOX = ManhattanFrame(UP, np.array([[0.0, -1, 0], [1, 0, 0]]), np.array([0.4, 0.2]), np.array([9, 7]), 0.8)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    assert read_manhattan_frame(run) is None
    for walls in (BOX, ManhattanFrame(UP, np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), 0.1, "none stand")):
        write_manhattan_frame(run, walls)
        back = read_manhattan_frame(Run.open(run.path))
        assert back is not None
        for name, value in vars(walls).items():
            assert np.array_equal(getattr(back, name), value)


def test_summary_and_rotation() -> None:
    assert BOX.summary() == "walls follow 2 main directions (confidence 0.80)"
    on_its_side = BOX.rotated(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))  # up becomes x
    assert on_its_side.up_world.tolist() == [1.0, 0.0, 0.0]
