"""Record of the Manhattan (or Atlanta) frame: the directions that walls face, found by ``pose.frame``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.scene.posed_images import read_frame_attribute
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

Array = np.ndarray


@dataclass(frozen=True)
class ManhattanFrame:
    """Up, and the directions walls face (a wall and the one across the room share one): Manhattan, or Atlanta for more.

    ``up_world`` [3] unit; ``normals_world`` [k, 3] unit and level (orthogonal to up), the strongest first, signs mean
    nothing, none where no frame is trusted; two that are orthogonal are so exactly. ``shares`` [k] of the length of all
    lines but upright ones that each direction explains beyond chance; ``n_photos`` [k] that show it. ``confidence`` is
    that walls stand this way, 0..1; ``reason`` in words why there is no frame, "" where there is one.
    """

    up_world: Float[Array, "3"]
    normals_world: Float[Array, "k 3"]
    shares: Float[Array, "k"]
    n_photos: Int[Array, "k"]
    confidence: float
    reason: str = ""

    def rotated(self, rotation: Float[Array, "3 3"]) -> ManhattanFrame:
        """The frame after the world is turned by ``rotation``."""
        return replace(self, up_world=rotation @ self.up_world, normals_world=self.normals_world @ rotation.T)

    def summary(self) -> str:
        """One line for the log."""
        if self.reason:
            return f"no main directions of walls found: {self.reason}"
        count = len(self.normals_world)
        return f"walls follow {count} main direction{'s' if count > 1 else ''} (confidence {self.confidence:.2f})"


def write_manhattan_frame(run: Run, walls: ManhattanFrame) -> None:
    """Store the Manhattan frame in frame/."""
    run.scene.require_group("frame").attrs["manhattan"] = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(walls).items()
    }


def read_manhattan_frame(run: Run) -> ManhattanFrame | None:
    """The Manhattan frame that pose stored, or None before pose."""
    data = read_frame_attribute(run, "manhattan")
    if data is None:
        return None
    with arrays.translate_damage("frame", "the directions of walls cannot be read"):
        return ManhattanFrame(
            np.array(data["up_world"], np.float64),
            np.array(data["normals_world"], np.float64).reshape(-1, 3),
            np.array(data["shares"], np.float64),
            np.array(data["n_photos"], np.int64),
            float(data["confidence"]),
            str(data["reason"]),
        )


def read_trusted_frame(run: Run) -> ManhattanFrame | None:
    """The Manhattan frame with at least one wall direction, or None where none is trusted."""
    walls = read_manhattan_frame(run)
    return walls if walls is not None and len(walls.normals_world) else None
