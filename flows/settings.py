"""Settings of a run: one section per stage, from a preset, with ``section.key=value`` overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from quoin.fields.losses import LossWeightsConfig
from quoin.pipeline.core.config import (
    StageConfig,
    merge_values,
    parse_overrides,
    read_yaml,
    suggest_closest,
    validate_config,
)
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.object_store import storage_url
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.pose.config import PoseConfig
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.report.config import ReportConfig
from quoin.stages.train.config import TrainConfig

DEFAULT_METHOD = "quoin"
PATH_KEYS = (
    ("ingest", "masks"),
    ("ingest", "depth"),
    ("ingest", "depth_camera"),
    ("pose", "known_poses"),
    ("priors", "semantic_model"),
)


class Settings(StageConfig):
    """The configuration of a whole run."""

    ingest: IngestConfig = validate_config(IngestConfig, {})
    pose: PoseConfig = validate_config(PoseConfig, {})
    partition: PartitionConfig = validate_config(PartitionConfig, {})
    priors: PriorsConfig = validate_config(PriorsConfig, {})
    train: TrainConfig = validate_config(TrainConfig, {})
    fuse: FuseConfig = validate_config(FuseConfig, {})
    report: ReportConfig = validate_config(ReportConfig, {})


RENAMED_PRESETS = {"auto": "default", "preview": "draft"}


def preset_names() -> list[str]:
    """Names of the presets that come with quoin, without those of the demos."""
    return _names("presets")


def read_preset(preset: str) -> dict[str, Any]:
    """Values of a preset (or of a demo's) by name, or of a YAML file by path."""
    if preset.endswith((".yaml", ".yml")):
        return read_yaml(Path(preset))
    if new_name := RENAMED_PRESETS.get(preset):
        raise QuoinError("This preset has another name now", where=preset, hint=f"write {new_name}")
    for kind in ("presets", "demos"):
        if preset in _names(kind):
            return _read(kind, preset)
    raise QuoinError("Unknown preset", where=preset, hint=suggest_closest(preset, preset_names()))


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
    """Values of the train section of a method by name, or of a YAML file by path; losses not named have the default."""
    if method.endswith((".yaml", ".yml")):
        values = read_yaml(Path(method))
    elif method in method_names():
        values = _read("methods", method)
    else:
        raise QuoinError("Unknown method", where=method, hint=suggest_closest(method, method_names()))
    return merge_values({"method": method, "losses": LossWeightsConfig().model_dump()}, values)


def load_settings(
    preset: str = "default", overrides: Iterable[str] = (), *, base: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of ``preset`` with ``overrides``; with ``base`` (a run's stored settings) the preset is not read.

    Values of a method that preset or overrides name are overridden by their own values of the train section. QuoinError
    with the nearest known preset, method, section or key where a name is unknown.
    """
    overridden: Mapping[str, Any] = parse_overrides(overrides)
    if base is None:
        overridden, base = merge_values(read_preset(preset), overridden), {"train": read_method(DEFAULT_METHOD)}
    return _with_absolute_paths(validate_config(Settings, _with_method(overridden, base)))


def _with_absolute_paths(settings: Settings) -> Settings:
    """``settings`` with absolute paths, so that a run can be resumed from any folder."""
    for section, key in PATH_KEYS:
        part = getattr(settings, section)
        value = getattr(part, key, None)
        if value not in (None, "auto", "none") and storage_url(value) is None:
            settings = settings.model_copy(update={section: part.model_copy(update={key: str(Path(value).absolute())})})
    return settings


def _with_method(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` on top of the method they name, on top of ``defaults``."""
    train = values.get("train")
    method = train.get("method") if isinstance(train, Mapping) else None
    return merge_values(merge_values(defaults, {"train": read_method(str(method))}) if method else defaults, values)


def parse_minutes(duration: str) -> float:
    """``90s``, ``5m`` or ``1.5h`` in minutes; a bare number is minutes."""
    parsed = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", duration.strip().lower())
    if parsed is None or float(parsed.group(1)) <= 0:
        raise QuoinError("Invalid time budget", where=duration, hint="write for example 90s, 5m or 2h")
    return float(parsed.group(1)) * {"s": 1 / 60, "m": 1.0, "": 1.0, "h": 60.0}[parsed.group(2)]
