"""Options that commands share: about the result, about where it is computed, and about the display; its summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from quoin.flows.cli.errors import exit_on_error
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import format_duration

if TYPE_CHECKING:
    from quoin.flows.settings import Settings
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run

Flag = Parameter(negative="", show_default=False)  # may be repeated, where it has a value
Pair = Parameter(negative="")
RESULT_GROUP, RUN_GROUP = Group("Result", sort_key=1), Group("Execution", sort_key=2)


@Parameter(name="*", group=RESULT_GROUP)
@dataclass(frozen=True)
class ResultOptions:
    """Options that change the result."""

    preset: str = "default"
    "draft: a first look; default; or a YAML file"
    set: Annotated[tuple[str, ...], Flag] = ()
    "setting as section.key=value, overrides the preset; may be repeated"
    masks: Path | None = None
    "folder of masks, named like the photos; dark pixels are ignored"
    depth: Path | None = None
    "folder of depth maps of a sensor, named like the photos (16-bit PNG in millimeters, TIFF in meters)"
    semantic_model: Path | None = None
    "network that labels sky, people and vehicles by the 150 classes of ADE20K: an ONNX or TorchScript file"
    poses: Path | None = None
    "cameras to use instead of estimating them: a COLMAP model or a transforms.json"
    memory: float | None = None
    "memory in GiB for training one block: less gives more, smaller blocks; by default 60 % of the machine's"
    budget: str | None = None
    "time limit for training all blocks, such as 90s, 5m or 2h; each takes at most train.steps"
    seed: int = 0
    "the same seed gives the same result, as far as the hardware allows"

    def settings(self) -> Settings:
        from quoin.flows.settings import load_settings

        return load_settings(self.preset, self.overrides())

    def overrides(self) -> list[str]:
        """The options as settings, section.key=value, that override the preset."""
        from quoin.flows.settings import parse_minutes

        path_options = [
            ("ingest.masks", self.masks),
            ("ingest.depth", self.depth),
            ("priors.semantic_model", self.semantic_model),
            ("pose.known_poses", self.poses),
        ]
        chosen = [f"{key}={quote_path(path)}" for key, path in path_options if path is not None]
        if self.memory is not None:
            chosen.append(f"partition.memory_gib={self.memory:g}")
        if self.budget is not None:
            chosen.append(f"train.budget_minutes={parse_minutes(self.budget)}")
        return [*chosen, *self.set]


@Parameter(name="*", group=RUN_GROUP)
@dataclass(frozen=True)
class DisplayOptions:
    """Options that change the display."""

    json: Annotated[bool, Flag] = False
    "progress as JSON lines on standard output"
    quiet: Annotated[bool, Parameter(negative="", alias="-q", show_default=False)] = False
    "only warnings and errors"

    @contextmanager
    def reporter(self, run: Run) -> Iterator[Reporter]:
        """A reporter that displays and logs events of ``run``; an exception inside ends the command with a message."""
        from quoin.flows.progress import DisplayMode, display_sink
        from quoin.flows.session import open_reporter

        mode: DisplayMode = "json" if self.json else "quiet" if self.quiet else "auto"
        with exit_on_error(run.path, run.location), display_sink(mode) as sink, open_reporter(run, sink) as report:
            yield report


@Parameter(name="*", group=RUN_GROUP)
@dataclass(frozen=True)
class RunOptions(DisplayOptions):
    """Options that change where work runs, and the display."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    "device that trains"
    executor: Literal["inline", "ray"] = "inline"
    "inline: blocks one after the other in this process; ray: on Ray actors"
    address: str | None = None
    "address of a running Ray cluster (auto or host:port); without one, Ray starts on this machine"
    gpu_share: float = 1.0
    "share of a GPU and of its memory for each Ray actor: 0.5 puts two on each GPU"
    engine: Literal["auto", "direct", "prefect"] = "auto"
    "direct: without Prefect; prefect: as a flow; auto: as a flow if PREFECT_API_URL names a server that responds"
    force: str | None = None
    "redo this stage and all stages that depend on it"

    def execute(self, run: Run, settings: Settings, *, last_stage: str = "report") -> None:
        """Reconstruct up to stage ``last_stage``."""
        from quoin.fields.device import pick_device
        from quoin.flows.capacity import record_durations, stages_in_progress
        from quoin.flows.engine import run_pipeline
        from quoin.flows.pipeline import STAGES, invalidate_from
        from quoin.flows.session import make_workers

        began, in_progress = time.time(), stages_in_progress(run)
        with self.reporter(run) as report:
            if self.force:
                invalidate_from(run, self.force)
            workers = make_workers(self.executor, self.device, self.address, self.gpu_share)
            run_pipeline(self.engine, run, settings, workers, report, last_stage=last_stage)
        if self.executor == "inline" and last_stage == STAGES[-1].name:
            record_durations(run, settings, pick_device(self.device), began, in_progress)

    def check(self) -> None:
        """Raise QuoinError for a wrong option, before anything is written."""
        from quoin.flows.pipeline import find_stage
        from quoin.flows.session import check_executor

        if self.force:
            find_stage(self.force)
        check_executor(self.executor, self.device, self.address)


def quote_path(path: Path) -> str:
    """The absolute path as a YAML scalar; QuoinError if it does not exist."""
    if not os.path.exists(path):
        raise QuoinError("File or folder not found", where=path, hint="check the path")
    return json.dumps(str(path.absolute()))


def default_run_folder(photos: Path | str) -> Path:
    """runs/<name of the photo folder or of the video>."""
    source = Path(photos)
    name = source.stem if os.path.isfile(source) else source.absolute().name
    return Path("runs") / (name or "photos")


def default_export_path(run: Run, format: str) -> Path:
    """exports/<name of the run>.<format> in the run for a mesh, exports/<format> for a folder."""
    from quoin.tools.export import MESH_FORMATS

    return run.path / "exports" / (f"{Path(run.location).name}.{format}" if format in MESH_FORMATS else format)


def print_summary(run: Run, *, quiet: bool = False) -> None:
    """Print counts, time and the paths of the results on standard output."""
    if quiet:
        return
    pose, train, fuse = (_result(run, stage) for stage in ("pose", "train", "fuse"))
    seconds = sum(m.seconds for name, m in run.record.manifests.items() if "/" not in name)
    facts = [
        f"{pose['n_registered']} of {pose['n_photos']} photos posed" if "n_registered" in pose else "",
        f"{len(train['blocks'])} block{'s' if len(train['blocks']) != 1 else ''} trained" if train else "",
        f"{fuse['n_faces']:,} faces" if "n_faces" in fuse else "",
        f"in {format_duration(seconds)}",
    ]
    print(", ".join(fact for fact in facts if fact))
    for name in ("mesh.ply", "mesh.glb", "report.html"):
        if run.file(name).exists():
            print(f"  {run.storage.public_path(name)}")


def _result(run: Run, stage: str) -> dict[str, Any]:
    manifest = run.manifest(stage)
    return manifest.result if manifest else {}
