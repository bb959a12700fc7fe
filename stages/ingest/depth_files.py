"""Depth maps by file name: the photo that each belongs to, in which unit it is, and whether it can be used.

Names agree but for the words for photo and depth: ``frame-0000.color.jpg`` and ``frame-0000.depth.png``, ``rgb/12.png``
and ``depth/12.png``, ``a.jpg`` and ``a.png``, ``a_depth.tiff``, ``depth_a.png``; numbers agree with any leading zeros.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.scene.sensor_depth import load_depth, load_upright_depth
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, suffix_of

DEPTH_SUFFIXES = {".png", ".tif", ".tiff", ".pgm"}
MILLIMETER_M, TUM_UNIT_M = 0.001, 0.0002  # metres; the TUM RGB-D benchmark has 5000 units to a metre
MAX_MILLIMETER_DEPTH_M = 15.0  # range of sensors that write millimetres; larger values have another unit
MAX_METER_MEDIAN = 100.0  # median of floating-point depths: below it they are metres, above it millimetres
MAX_DEPTH_THREADS = 16

_DEPTH_NAME = re.compile(r"(?:depths?[._ -](?P<after>.+)|(?P<before>.+?)[._ -]depths?)", re.DOTALL)
_PHOTO_NAME = re.compile(
    r"(?:(?:rgb|colou?r|image)[._ -](?P<after>.+)|(?P<before>.+?)[._ -](?:rgb|colou?r|image))", re.DOTALL
)
MatchKey = Callable[[str, re.Pattern[str]], tuple[str, ...]]  # of a name; empty where it has none
_KIND_FOLDERS = {"rgb", "color", "colour", "colors", "image", "images", "photos", "depth", "depths"}


def is_depth_name(name: str) -> bool:
    """Whether a file's name says that it holds depth."""
    return suffix_of(name) in DEPTH_SUFFIXES and _DEPTH_NAME.fullmatch(_stem(name)) is not None


def match_depths(photos: Iterable[str], depths: Iterable[str]) -> dict[str, str]:
    """Photo name -> depth map name, each relative to its own folder; a name that fits two photos or maps fits none."""
    photos, depths = list(photos), [name for name in depths if suffix_of(name) in DEPTH_SUFFIXES]
    matches: dict[str, str] = {}
    for key in (_path_key, _name_key, _number_key):
        photo_by_key = _unique_by_key(key, (p for p in photos if p not in matches), _PHOTO_NAME)
        depth_by_key = _unique_by_key(key, (d for d in depths if d not in set(matches.values())), _DEPTH_NAME)
        matches |= {photo_by_key[k]: depth_by_key[k] for k in photo_by_key.keys() & depth_by_key.keys()}
    return {photo: matches[photo] for photo in photos if photo in matches}


def _unique_by_key(key: MatchKey, names: Iterable[str], pattern: re.Pattern[str]) -> dict[tuple[str, ...], str]:
    """Names by their key, without those that have no key or share it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        if k := key(name, pattern):
            groups.setdefault(k, []).append(name)
    return {k: group[0] for k, group in groups.items() if len(group) == 1}


def _path_key(name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    folders = unicodedata.normalize("NFC", name).casefold().split("/")[:-1]
    return (*(part for part in folders if part not in _KIND_FOLDERS), "/", *_name_key(name, pattern))


def _name_key(name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    stem = _stem(name)
    match = pattern.fullmatch(stem)
    return ((match["after"] or match["before"]) if match else stem,)


def _number_key(name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    stem = _name_key(name, pattern)[0]
    return (str(int(stem)),) if stem.isdecimal() else ()


def _stem(name: str) -> str:
    """The normalized file name without its suffix, and without a photo's suffix before that (as in a.jpg.png)."""
    stem = unicodedata.normalize("NFC", name).casefold().rsplit("/", 1)[-1]
    stem = stem[: len(stem) - len(suffix_of(stem))]
    return stem[: len(stem) - len(suffix_of(stem))] if suffix_of(stem) in PHOTO_SUFFIXES else stem


@dataclass(frozen=True)
class DepthFileFacts:
    """Facts of a depth map file, in the unit of the file; ``reason`` says why it cannot be used, "" where it can."""

    is_integer: bool = True  # whole numbers
    median: float = 0.0
    far_depth: float = 0.0  # 99th percentile
    reason: str = ""


def inspect_depth(path: Path, size: tuple[int, int], orientation: int, *, has_own_camera: bool) -> DepthFileFacts:
    """Read the depth map of a photo of upright ``size`` once. Never raises for what the file holds."""
    try:
        raw, _, is_integer = load_depth(path)
        load_upright_depth(path, size, orientation, 1.0, has_own_camera=has_own_camera)
    except QuoinError as error:
        return DepthFileFacts(reason=error.what)
    valid = raw[raw > 0]
    if len(valid) == 0:
        return DepthFileFacts(reason="no values: all of it is 0, or 65535")
    median, far_depth = np.percentile(valid, [50, 99])
    return DepthFileFacts(is_integer, float(median), float(far_depth))


def estimate_depth_unit(facts: list[DepthFileFacts]) -> tuple[float, str]:
    """Metres per unit of the files, estimated from the type and size of their numbers, and a text that says how."""
    far_depth, median = (float(np.median([getattr(fact, name) for fact in facts])) for name in ("far_depth", "median"))
    if sum(fact.is_integer for fact in facts) * 2 < len(facts):
        if median < MAX_METER_MEDIAN:
            return 1.0, f"metres: floating-point numbers about {median:.3g}"
        return MILLIMETER_M, f"millimetres: floating-point numbers about {median:.0f}"
    if far_depth * MILLIMETER_M > MAX_MILLIMETER_DEPTH_M:
        return (
            TUM_UNIT_M,
            f"1/5000 m: whole numbers up to {far_depth:.0f}, which would be {far_depth / 1000:.0f} m in millimetres",
        )
    return MILLIMETER_M, f"millimetres: whole numbers about {median:.0f}"


# -- depth maps of the used photos -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthMapSummary:
    """How many photos have a depth map, and metres per unit of the files; None where no photo has one."""

    n_depths: int = 0
    unit_m: float | None = None


def assign_depth_maps(
    rows: list[PhotoRow], depth_of: Mapping[str, Path], config: IngestConfig, report: Reporter
) -> DepthMapSummary:
    """Put the depth map of each used photo (``depth_of`` by name) into its row, where the file can be used.

    Raises QuoinError where none can be used.
    """
    with_map = [row for row in rows if row.used and row.name in depth_of]
    if not with_map:
        return DepthMapSummary()
    facts = _inspect_depth_files(with_map, depth_of, config)
    usable = [fact for fact in facts.values() if not fact.reason]
    _report_failures(facts, depth_of, report)
    unit_m, why = (config.depth_unit_m, "as set") if config.depth_unit_m else estimate_depth_unit(usable)
    camera = str(Path(config.depth_camera).resolve()) if config.depth_camera else ""
    for i, row in enumerate(rows):
        if row.name in facts and not facts[row.name].reason:
            rows[i] = replace(row, depth_path=str(depth_of[row.name]), depth_unit_m=unit_m, depth_camera=camera)
    median_m = float(np.median([fact.median for fact in usable])) * unit_m
    report.log(
        "ingest",
        f"depth maps: unit {unit_m:g} m ({why}), so the median depth is {median_m:.2f} m; "
        "if that is wrong, set ingest.depth_unit_m",
    )
    return DepthMapSummary(len(usable), unit_m)


def _inspect_depth_files(
    rows: list[PhotoRow], depth_of: Mapping[str, Path], config: IngestConfig
) -> dict[str, DepthFileFacts]:
    """The facts of each photo's depth map, by the photo's name."""

    def inspect(row: PhotoRow) -> DepthFileFacts:
        if config.depth_camera and row.orientation != 1:
            return DepthFileFacts(reason="of a rotated photo, which the depth camera does not follow")
        size = row.width, row.height
        has_own_camera = config.depth_camera is not None
        return inspect_depth(depth_of[row.name], size, row.orientation, has_own_camera=has_own_camera)

    with ThreadPoolExecutor(min(MAX_DEPTH_THREADS, os.cpu_count() or 1), thread_name_prefix="ingest") as pool:
        return dict(zip([row.name for row in rows], pool.map(inspect, rows), strict=True))


def _report_failures(facts: Mapping[str, DepthFileFacts], depth_of: Mapping[str, Path], report: Reporter) -> None:
    """Warn of depth maps that cannot be used; raise QuoinError where none can."""
    failed = {name: fact.reason for name, fact in facts.items() if fact.reason}
    if not failed:
        return
    name, reason = next(iter(failed.items()))
    if len(failed) == len(facts):
        raise QuoinError(
            f"None of the {len(failed)} depth maps can be used; that of {name!r} is {reason}",
            where=depth_of[name],
            hint="give 16-bit PNG in millimetres or floating-point TIFF in metres, of the photos' shape",
        )
    text = f"{len(failed)} of {len(facts)} depth maps are left out; that of {name!r} is {reason}"
    report.log("ingest", text, level="warning")
