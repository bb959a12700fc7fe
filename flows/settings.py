"""All a user may turn: one section per stage, from a preset, with ``section.key=value`` laid on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from quoin.pipeline.core.config import StageConfig, build, merge, nearest, parse_overrides, read_yaml
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.object_store import url_of
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.pose.config import PoseConfig
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.report.config import ReportConfig
from quoin.stages.train.config import TrainConfig

DEFAULT_METHOD = "quoin"
PATHS = (
    ("ingest", "masks"),
    ("ingest", "depth"),
    ("ingest", "depth_camera"),
    ("pose", "given"),
    ("priors", "semantic_model"),
)
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
    return _names("presets")


def read_preset(preset: str) -> dict[str, Any]:
    """Values of a preset by name, of a YAML file by path, or of ``auto`` (the default preset, whatever the photos)."""
    if preset.endswith((".yaml", ".yml")):
        return read_yaml(Path(preset))
    name = "default" if preset == "auto" else preset
    if name not in preset_names():
        raise QuoinError("Unknown preset", where=preset, do=nearest(preset, [*preset_names(), "auto"]))
    return _read("presets", name)


def _names(kind: str) -> list[str]:
    folder = resources.files("quoin.configs") / kind
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _read(kind: str, name: str) -> dict[str, Any]:
    with resources.as_file(resources.files("quoin.configs") / kind / f"{name}.yaml") as path:
        return read_yaml(path)


def method_names() -> list[str]:
    """Names of the training methods that come with quoin."""
    return _names("methods")


def read_method(method: str) -> dict[str, Any]:
    """Values of the train section of a method by name, or of a YAML file by path."""
    if method.endswith((".yaml", ".yml")):
        return {"method": method, **read_yaml(Path(method))}
    if method not in method_names():
        raise QuoinError("Unknown method", where=method, do=nearest(method, method_names()))
    return {"method": method, **_read("methods", method)}


def load_settings(
    preset: str = "auto", overrides: Iterable[str] = (), *, base: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of ``preset`` with ``overrides`` on top; with ``base`` (a run's stored settings) the preset is not read.

    A method that preset or overrides name lies under what they say of the train section themselves. Raises QuoinError
    naming the nearest known preset, method, section or key.
    """
    said: Mapping[str, Any] = parse_overrides(overrides)
    if base is None:
        said, base = merge(read_preset(preset), said), {"train": read_method(DEFAULT_METHOD)}
    return _from_anywhere(build(Settings, _with_method(said, base)))


def _from_anywhere(settings: Settings) -> Settings:
    """With whole paths: a run is gone on with from any folder."""
    for section, key in PATHS:
        part = getattr(settings, section)
        value = getattr(part, key, None)
        if value not in (None, "auto", "none") and url_of(value) is None:
            settings = settings.model_copy(update={section: part.model_copy(update={key: str(Path(value).absolute())})})
    return settings


def _with_method(values: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` on top of the method they name, on top of ``under``."""
    train = values.get("train")
    method = train.get("method") if isinstance(train, Mapping) else None
    return merge(merge(under, {"train": read_method(str(method))}) if method else under, values)


def check_stage(name: str) -> str:
    """``name`` if it is a stage; QuoinError with the nearest one otherwise."""
    if name not in STAGES:
        raise QuoinError("Unknown stage", where=name, do=nearest(name, STAGES))
    return name


def minutes(duration: str) -> float:
    """``90s``, ``5m`` or ``1.5h`` in minutes; a bare number is minutes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", duration.strip().lower())
    if found is None or float(found.group(1)) <= 0:
        raise QuoinError("A budget is a time", where=duration, do="write for example 90s, 5m or 2h")
    return float(found.group(1)) * {"s": 1 / 60, "m": 1.0, "": 1.0, "h": 60.0}[found.group(2)]
