"""``quoin render``: videos of the trained blocks of a run. Gives the trained blocks to tools/render."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quoin.fields.device import pick_device
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Device
from quoin.pipeline.storage.run import Run
from quoin.tools.render.config import FilmConfig

if TYPE_CHECKING:
    from quoin.stages.train.trained_block import RayRenderer


def block_opener(run: Run, device: Device) -> Callable[[str], RayRenderer]:
    """A function that loads a trained block of ``run`` by its id onto ``device``."""
    from quoin.stages.train.trained_block import load_ray_renderer

    return functools.partial(load_ray_renderer, run, device=pick_device(device))


def render_run(run: Run, config: FilmConfig, out: Path | None, device: Device, report: Reporter) -> None:
    """Render a video and print its path."""
    from quoin.tools.render.films import render_film

    film = render_film(run, config, out or run.path / "films" / f"{config.path}.mp4", block_opener(run, device), report)
    print(f"  {film.n_frames} frames, {film.seconds_per_frame:.1f} s each")
    print(f"  {run.storage.public_path(film.file)}")
