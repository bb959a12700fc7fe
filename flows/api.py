"""The Python interface: ``import quoin`` gives what is defined or named here. See "From Python" in README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from quoin.flows.pipeline import run_stages
from quoin.flows.progress import progress_sink
from quoin.flows.session import (
    ExecutorName,
    Location,
    check_executor,
    make_workers,
    open_reporter,
    resume_run,
    split_sources,
    start_run,
)
from quoin.flows.settings import load_settings
from quoin.pipeline.core.config import validate_config
from quoin.pipeline.core.errors import QuoinError, first_line
from quoin.pipeline.core.workers import Device
from quoin.pipeline.scene.mesh_formats import committed_mesh
from quoin.pipeline.scene.ply_format import read_vertex_property
from quoin.pipeline.scene.posed_images import read_posed
from quoin.pipeline.storage.layout import damaged_file_error
from quoin.pipeline.storage.run import Run

if TYPE_CHECKING:
    import trimesh

    from quoin.stages.report.facts import PhotoFacts, Report
    from quoin.tools.evaluate.config import EvaluateResult

Array = np.ndarray


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of the N placed, undistorted photos in the frame of the mesh: z up, meters where scale is known.

    ``cam_from_world`` maps world points to camera coordinates (x right, y down, z forward, as in COLMAP and OpenCV);
    ``intrinsics`` are fx, fy, cx, cy in pixels, with the center of the upper left pixel at (0.5, 0.5); ``sizes`` are
    width and height in pixels.
    """

    names: list[str]
    cam_from_world: Float[Array, "n 3 4"]
    intrinsics: Float[Array, "n 4"]
    sizes: Int[Array, "n 2"]


class RunResults:
    """The results of a run, read from its folder or URL. Each method raises QuoinError where its stage is not done."""

    def __init__(self, location: Location) -> None:
        self._run = Run.open(location)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    @property
    def location(self) -> str:
        """The run's folder or URL."""
        return self._run.location

    @property
    def report_path(self) -> Path:
        """Path of report.html on this machine."""
        return self._existing_file("report.html")

    def mesh(self) -> trimesh.Trimesh:
        """The surface with vertex colors, and the confidence of each vertex, 0 to 1, in ``vertex_attributes``."""
        import trimesh

        path = committed_mesh(self._run, "mesh.ply")
        mesh = trimesh.load_mesh(path, process=False)
        confidence = read_vertex_property(path, "confidence")
        if confidence is not None:
            mesh.vertex_attributes["confidence"] = confidence
        return mesh

    def cameras(self) -> Cameras:
        """The cameras of the photos that could be placed."""
        posed = read_posed(self._run)
        return Cameras(posed.names, posed.cam_from_world, posed.intrinsics, posed.sizes)

    def photos(self) -> list[PhotoFacts]:
        """Every photo found: ``state`` is placed, not placed or not used; ``rejection`` says why it is not placed."""
        from quoin.stages.report.collect import collect_photos

        self._run.require("ingest")
        return collect_photos(self._run)

    def report(self) -> Report:
        """The content of report.json: counts, times, scores, advice."""
        from quoin.stages.report.facts import Report

        data = self._existing_file("report.json").read_bytes()
        try:
            return Report.model_validate_json(data)
        except ValueError as error:
            raise damaged_file_error("report.json", f"this file cannot be read ({first_line(error)})") from error

    def evaluate(
        self, truth: Path | str, *, cameras: Path | str | None = None, distances_m: Sequence[float] = ()
    ) -> EvaluateResult:
        """Scores of the surface against ``truth`` (a mesh or points), as by ``quoin evaluate``."""
        from quoin.tools.evaluate.config import EvaluateConfig
        from quoin.tools.evaluate.evaluation import evaluate_surface

        config = validate_config(EvaluateConfig, {"distances_m": list(distances_m)})
        camera_path = None if cameras is None else Path(cameras)
        with resume_run(self.location) as run, progress_sink() as sink, open_reporter(run, sink) as report:
            return evaluate_surface(run, Path(truth), camera_path, report, config)

    def _existing_file(self, name: str) -> Path:
        path = self._run.file(name)
        if not path.exists():
            raise QuoinError(f"This run has no {name} yet", where=self.location, hint="finish it with quoin resume")
        return path


def reconstruct(
    photos: Location | Sequence[Location],
    out: Location,
    *,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    executor: ExecutorName = "inline",
    address: str | None = None,
    progress: bool = True,
) -> RunResults:
    """Reconstruct a surface from photos and videos; a run that is already in ``out`` goes on where it stopped.

    Args:
        photos: a folder of photos and videos, or a video, or a list of both with at most one folder; URLs will do.
        out: the run's folder, or its URL.
        preset: the name of a preset, or a YAML file (``quoin.preset_names()``).
        settings: values laid on top of the preset, by the names ``--set`` takes: ``{"train.steps": 400}``.
        seed: the same seed gives the same result, within what the hardware allows.
        device: what trains: ``auto``, ``cpu`` or ``cuda``.
        executor: ``inline`` trains one block after the other in this process, ``ray`` on Ray actors.
        address: a running Ray cluster (``auto`` or host:port) for ``executor="ray"``.
        progress: show bars in a terminal, a table in a notebook, lines elsewhere; otherwise warnings only.

    Raises:
        QuoinError: something the caller can change; the message says what.
        PartialResult: some blocks could not be trained; the mesh of the others is in ``out``.
    """
    check_executor(executor, device, address)
    run_settings = load_settings(preset, setting_overrides(settings or {}))
    source, clips = split_sources([photos] if isinstance(photos, str | Path) else list(photos))
    with (
        start_run(source, out, run_settings, seed, clips) as run,
        progress_sink(quiet=not progress) as sink,
        open_reporter(run, sink) as report,
    ):
        run_stages(run, run_settings, make_workers(executor, device, address), report)
    return RunResults(out)


def open_run(location: Location) -> RunResults:
    """The results of the run at ``location``, a folder or a URL; QuoinError where there is none."""
    return RunResults(location)


def setting_overrides(settings: Mapping[str, Any]) -> list[str]:
    """``{"train.steps": 400}`` as ``["train.steps=400"]``, the form of ``--set``."""
    return [f"{name}={json.dumps(value, default=str)}" for name, value in settings.items()]
