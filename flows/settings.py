"""All a user may turn: one section per stage, from a preset, with ``section.key=value`` laid on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.config import StageConfig, build, merge, nearest, parse_overrides, read_yaml
from pipeline.errors import QuoinError
from stages.fuse.config import FuseConfig
from stages.ingest.config import IngestConfig
from stages.partition.config import PartitionConfig
from stages.pose.config import PoseConfig
from stages.priors.config import PriorsConfig
from stages.report.config import ReportConfig
from stages.train.config import TrainConfig

STAGES = ("ingest", "pose", "partition", "priors", "train", "fuse", "report")


class Settings(StageConfig):
    """The configuration of a whole run."""

    ingest: IngestConfig = build(IngestConfig, {})
    pose: PoseConfig = build(PoseConfig, {})
    partition: PartitionConfig = build(PartitionConfig, {})
    priors: PriorsConfig = build(PriorsConfig, {})
    train: TrainConfig = build(TrainConfig, {})
    fuse: FuseConfig = build(FuseConfig, {})
    report: ReportConfig = build(ReportConfig, {})


def preset_names() -> list[str]:
    """Names of the presets that come with quoin."""
    folder = resources.files("configs") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(preset: str) -> dict[str, Any]:
    """Values of a preset by name, of a YAML file by path, or of ``auto`` (the default preset, whatever the photos)."""
    if preset.endswith((".yaml", ".yml")):
        return read_yaml(Path(preset))
    name = "default" if preset == "auto" else preset
    if name not in preset_names():
        raise QuoinError("Unknown preset", where=preset, do=nearest(preset, [*preset_names(), "auto"]))
    with resources.as_file(resources.files("configs") / "presets" / f"{name}.yaml") as path:
        return read_yaml(path)


def load_settings(
    preset: str = "auto", overrides: Iterable[str] = (), *, base: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of ``preset`` with ``overrides`` on top; with ``base`` (a run's stored settings) the preset is not read.

    Raises QuoinError naming the nearest known preset, section or key.
    """
    values = read_preset(preset) if base is None else dict(base)
    return build(Settings, merge(values, parse_overrides(overrides)))


def check_stage(name: str) -> str:
    """``name`` if it is a stage; QuoinError with the nearest one otherwise."""
    if name not in STAGES:
        raise QuoinError("Unknown stage", where=name, do=nearest(name, STAGES))
    return name
