"""Which depth map belongs to which photo, by name alone; and what a depth file holds.

Names agree but for what says photo or depth: ``frame-000000.color.jpg`` and ``frame-000000.depth.png``, ``rgb/12.png``
and ``depth/12.png``, ``a.jpg`` and ``a.png``, ``a_depth.tiff``, ``depth_a.png``; numbers alone agree in any width.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.sensor_depth import load_depth, load_upright_depth
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, suffix_of

DEPTH_SUFFIXES = {".png", ".tif", ".tiff", ".pgm"}
MILLIMETRE, TUM_UNIT = 0.001, 0.0002  # metres; the latter of the TUM RGB-D benchmark: 5000 to a metre
FARTHEST_M = 15.0  # sensors of millimetres see less far: what lies beyond is another unit
SAID_METRES = 100.0  # floating-point depths with a median below are metres, above millimetres

_DEPTH = re.compile(r"(?:depths?[._ -](?P<after>.+)|(?P<before>.+?)[._ -]depths?)", re.DOTALL)
_PHOTO = re.compile(
    r"(?:(?:rgb|colou?r|image)[._ -](?P<after>.+)|(?P<before>.+?)[._ -](?:rgb|colou?r|image))", re.DOTALL
)
Key = Callable[[str, re.Pattern[str]], tuple[str, ...]]  # of a name; empty where it has none
_FOLDERS = {"rgb", "color", "colour", "colors", "image", "images", "photos", "depth", "depths"}


def says_depth(name: str) -> bool:
    """Whether a file's name says that it holds depth."""
    return suffix_of(name) in DEPTH_SUFFIXES and _DEPTH.fullmatch(_stem(name)) is not None


def match_depths(photos: Iterable[str], depths: Iterable[str]) -> dict[str, str]:
    """Photo name -> depth name, both relative to their own folders. A name that fits two photos or maps fits none."""
    photos, depths = list(photos), [name for name in depths if suffix_of(name) in DEPTH_SUFFIXES]
    found: dict[str, str] = {}
    for key in (_path_key, _name_key, _number_key):
        left = _only(key, (p for p in photos if p not in found), _PHOTO)
        offered = _only(key, (d for d in depths if d not in set(found.values())), _DEPTH)
        found |= {left[k]: offered[k] for k in left.keys() & offered.keys()}
    return {photo: found[photo] for photo in photos if photo in found}


def _only(key: Key, names: Iterable[str], says: re.Pattern[str]) -> dict[tuple[str, ...], str]:
    """Names by their key, those without one or with that of another left out."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        if k := key(name, says):
            groups.setdefault(k, []).append(name)
    return {k: group[0] for k, group in groups.items() if len(group) == 1}


def _path_key(name: str, says: re.Pattern[str]) -> tuple[str, ...]:
    folders = unicodedata.normalize("NFC", name).casefold().split("/")[:-1]
    return (*(part for part in folders if part not in _FOLDERS), "/", *_name_key(name, says))


def _name_key(name: str, says: re.Pattern[str]) -> tuple[str, ...]:
    stem = _stem(name)
    match = says.fullmatch(stem)
    return ((match["after"] or match["before"]) if match else stem,)


def _number_key(name: str, says: re.Pattern[str]) -> tuple[str, ...]:
    stem = _name_key(name, says)[0]
    return (str(int(stem)),) if stem.isdecimal() else ()


def _stem(name: str) -> str:
    """The file's name without its suffix (and one more of a photo, as in a.jpg.png), in one spelling."""
    stem = unicodedata.normalize("NFC", name).casefold().rsplit("/", 1)[-1]
    stem = stem[: len(stem) - len(suffix_of(stem))]
    return stem[: len(stem) - len(suffix_of(stem))] if suffix_of(stem) in PHOTO_SUFFIXES else stem


@dataclass(frozen=True)
class DepthFacts:
    """What a depth file turned out to be; ``reason`` is "" where it can be used. Depths in the unit of the file."""

    whole: bool = True  # whole numbers
    median: float = 0.0
    far: float = 0.0  # 99th percentile
    reason: str = ""


def examine_depth(path: Path, size: tuple[int, int], orientation: int, *, own_camera: bool) -> DepthFacts:
    """Read the depth map of a photo of upright ``size`` once. Never raises for what the file holds."""
    try:
        raw, _, whole = load_depth(path)
        load_upright_depth(path, size, orientation, 1.0, own_camera=own_camera)
    except QuoinError as error:
        return DepthFacts(reason=error.what)
    known = raw[raw > 0]
    if len(known) == 0:
        return DepthFacts(reason="no values: all of it is 0, or 65535")
    median, far = np.percentile(known, [50, 99])
    return DepthFacts(whole, float(median), float(far))


def unit_of(facts: list[DepthFacts]) -> tuple[float, str]:
    """Metres per unit of the files, and why: by whether they hold whole numbers, and how large."""
    far, median = (float(np.median([getattr(fact, name) for fact in facts])) for name in ("far", "median"))
    if sum(fact.whole for fact in facts) * 2 < len(facts):
        if median < SAID_METRES:
            return 1.0, f"metres: floating-point numbers about {median:.3g}"
        return MILLIMETRE, f"millimetres: floating-point numbers about {median:.0f}"
    if far * MILLIMETRE > FARTHEST_M:
        return TUM_UNIT, f"1/5000 m: whole numbers up to {far:.0f}, which would be {far / 1000:.0f} m in millimetres"
    return MILLIMETRE, f"millimetres: whole numbers about {median:.0f}"
