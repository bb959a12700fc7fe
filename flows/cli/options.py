"""What commands have in common: options about the result, about where work runs, and about what is shown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from quoin.flows.cli.errors import exit_on_error
from quoin.pipeline.core.errors import QuoinError

if TYPE_CHECKING:
    from quoin.flows.settings import Settings
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run

Flag = Parameter(negative="")
RESULT_GROUP, RUN_GROUP = Group("What to make", sort_key=1), Group("How to run", sort_key=2)


@Parameter(name="*", group=RESULT_GROUP)
@dataclass(frozen=True)
class ResultOptions:
    """What a user may turn about the result."""

    preset: str = "auto"
    "auto, the name of a preset, or a YAML file"
    set: Annotated[tuple[str, ...], Flag] = ()
    "section.key=value, laid on top of the preset; may be repeated"
    masks: Path | None = None
    "folder of masks (any usual naming; dark is ignored)"
    depth: Path | None = None
    "folder of depth maps by a sensor, with the photos' names (16-bit PNG in millimetres, TIFF in metres)"
    semantic_model: Path | None = None
    "network that knows sky and passers-by, ADE20K's 150 classes: an ONNX or TorchScript file"
    poses: Path | None = None
    "cameras to use instead of estimating them: a COLMAP model or a transforms.json"
    memory: float | None = None
    "GiB one block may take to train (more, smaller blocks of fewer photos); 60 % of the machine's where not given"
    budget: str | None = None
    "time to train all blocks in, such as 90s, 5m or 2h; at most train.steps each"
    seed: int = 0
    "the same seed gives the same result, within what the hardware allows"

    def settings(self) -> Settings:
        from quoin.flows.settings import load_settings

        return load_settings(self.preset, self.overrides())

    def overrides(self) -> list[str]:
        """All that is laid on top of the preset, as section.key=value."""
        from quoin.flows.settings import parse_minutes

        path_options = [
            ("ingest.masks", self.masks),
            ("ingest.depth", self.depth),
            ("priors.semantic_model", self.semantic_model),
            ("pose.given", self.poses),
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
    """What is shown of the work."""

    json: Annotated[bool, Flag] = False
    "progress as JSON lines on standard output"
    quiet: Annotated[bool, Parameter(negative="", alias="-q")] = False
    "only warnings and errors"

    @contextmanager
    def reporter(self, run: Run) -> Iterator[Reporter]:
        """A reporter that shows and keeps what happens in ``run``; what is raised meanwhile ends the command."""
        from quoin.flows.cli.terminal import DisplayMode, display_sink
        from quoin.flows.session import open_reporter

        mode: DisplayMode = "json" if self.json else "quiet" if self.quiet else "auto"
        with exit_on_error(run.path, run.location), display_sink(mode) as sink, open_reporter(run, sink) as report:
            yield report


@Parameter(name="*", group=RUN_GROUP)
@dataclass(frozen=True)
class RunOptions(DisplayOptions):
    """Where the work runs and what is shown of it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    "what trains"
    executor: Literal["inline", "ray"] = "inline"
    "blocks one after the other here, or on Ray actors"
    address: str | None = None
    "a running Ray cluster (auto or host:port); without one, Ray runs on this machine"
    gpu_share: float = 1.0
    "part of a GPU, and of its memory, that a Ray actor takes: 0.5 puts two on each"
    engine: Literal["auto", "direct", "prefect"] = "auto"
    "auto: Prefect where PREFECT_API_URL names a server that answers"
    force: str | None = None
    "redo this stage and all that comes of it"

    def execute(self, run: Run, settings: Settings, *, last_stage: str = "report") -> None:
        """Reconstruct up to stage ``last_stage``."""
        from quoin.cluster.executor import pick_device
        from quoin.flows.capacity import record_durations, stages_in_progress
        from quoin.flows.engine import run_pipeline
        from quoin.flows.pipeline import invalidate_from
        from quoin.flows.session import make_executor
        from quoin.flows.settings import STAGES

        began, in_progress = time.time(), stages_in_progress(run)
        with self.reporter(run) as report:
            if self.force:
                invalidate_from(run, self.force)
            executor = make_executor(self.executor, self.device, self.address, self.gpu_share)
            run_pipeline(self.engine, run, settings, executor, report, last_stage=last_stage)
        if self.executor == "inline" and last_stage == STAGES[-1]:
            record_durations(run, settings, pick_device(self.device), began, in_progress)

    def check(self) -> None:
        """Refuse what is mistyped before anything is made."""
        from quoin.flows.session import check_executor
        from quoin.flows.settings import check_stage

        if self.force:
            check_stage(self.force)
        check_executor(self.executor, self.device, self.address)


def quote_path(path: Path) -> str:
    """An absolute path as a YAML scalar."""
    if not os.path.exists(path):
        raise QuoinError("There is nothing here", where=path, hint="name a folder or file that exists")
    return json.dumps(str(path.absolute()))
