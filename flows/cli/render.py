"""``quoin render``: films of a run's trained blocks. Here a block, which is train's to open, meets who looks at it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quoin.cluster.executor import Device, pick_device
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.run import Run
from quoin.tools.render.config import FilmConfig

if TYPE_CHECKING:
    from quoin.stages.train.trained_block import RayRenderer


def block_opener(run: Run, device: Device) -> Callable[[str], RayRenderer]:
    """Opens a trained block of ``run`` by its id, on ``device``."""
    from quoin.stages.train.trained_block import load_ray_renderer

    return functools.partial(load_ray_renderer, run, device=pick_device(device))


def render_run(run: Run, config: FilmConfig, out: Path | None, device: Device, report: Reporter) -> None:
    """Make a film and say where it is."""
    from quoin.tools.render.films import render_film

    film = render_film(run, config, out or run.path / "films" / f"{config.path}.mp4", block_opener(run, device), report)
    print(f"  {film.n_frames} frames, {film.seconds_per_frame:.1f} s each")
    print(f"  {run.public_path(film.file)}")
