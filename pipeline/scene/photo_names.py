"""Names of photos as files of other programs write them: the photo that each means.

One rule for given cameras, reference cameras and masks: the paths agree from their ends on. Slashes, case, the form of
accents (NFC or NFD), blanks around a name and the ending of the file may differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

from quoin.pipeline.core.errors import QuoinError

NameParts = tuple[str, ...]  # folders and file

_SUFFIX = re.compile(r"(?<=.)\.[a-z][a-z0-9]{1,4}$")  # of comparable names; frame.12 is a name without one


def comparable_name(name: str) -> str:
    """The name in one form of accents, one case and with forward slashes."""
    folded = unicodedata.normalize("NFC", name).casefold().replace("\\", "/").strip()
    return unicodedata.normalize("NFC", folded)


def fit_names(names: Sequence[str], photos: Sequence[str], unused_names: Sequence[str] = ()) -> list[list[int]]:
    """For each name the indices of the photos that it fits best: of more than one photo it cannot be told which.

    A name fits a photo by as many last parts of their paths as agree. Where the next part of one of them is a folder
    that the other side has, too, it is another folder, and the name does not fit. A name that fits one of
    ``unused_names``, photos that are left out, better than any of ``photos`` fits none.
    """
    pool = [_split_name(photo) for photo in (*photos, *unused_names)]
    max_depth = max(map(len, pool), default=0)
    given = [_split_name(name)[-max_depth - 1 :] for name in names]
    photos_by_tail: dict[NameParts, list[int]] = defaultdict(list)
    for index, parts in enumerate(pool):
        for tail, _ in _tails(parts, max_depth):
            photos_by_tail[tail].append(index)
    photo_folders, name_folders = _folder_tails(pool), _folder_tails(given)

    def is_elsewhere(name: NameParts, photo: NameParts, depth: int) -> bool:
        """Whether a name and a photo of ``depth`` equal parts lie in different folders that both sides have."""
        return name[-depth - 1 : -1] in photo_folders[depth] or photo[-depth - 1 : -1] in name_folders[depth]

    fitting = []
    for name, parts in zip(names, given, strict=True):
        best: list[int] = []
        for tail, depth in _tails(parts, max_depth):
            best = [i for i in photos_by_tail.get(tail, ()) if not is_elsewhere(parts, pool[i], depth)]
            if best:
                break
        used = [i for i in best if i < len(photos)]
        fitting.append(used if len(used) < 2 else _of_same_case(name, used, photos))
    return fitting


def match_names(names: Sequence[str], photos: Sequence[str], unused_names: Sequence[str] = ()) -> dict[int, int]:
    """Index of the photo for each given name that has one (``fit_names``).

    Raises QuoinError where a name fits several photos, or two names the same photo.
    """
    matched: dict[int, int] = {}
    name_of_photo: dict[int, str] = {}
    for row, (name, fitting) in enumerate(zip(names, fit_names(names, photos, unused_names), strict=True)):
        if len(fitting) > 1:
            raise QuoinError(
                f"A given name fits {len(fitting)} photos, {photos[fitting[0]]!r} and {photos[fitting[1]]!r} among "
                "them",
                where=name,
                hint="give names with their folders",
            )
        for photo in fitting:
            if photo in name_of_photo:
                raise QuoinError(
                    f"Two given names, {name_of_photo[photo]!r} and {name!r}, fit the same photo",
                    where=photos[photo],
                    hint="give each photo once",
                )
            name_of_photo[photo] = name
            matched[row] = photo
    return matched


def _split_name(name: str) -> NameParts:
    return tuple(part for part in comparable_name(name).split("/") if part not in ("", ".", ".."))


def _tails(parts: NameParts, max_depth: int) -> Iterator[tuple[NameParts, int]]:
    """Ends of a path and their numbers of parts, the longest first: each with the ending of the file, then without."""
    for depth in range(min(len(parts), max_depth), 0, -1):
        tail = parts[-depth:]
        yield tail, depth
        stem = _SUFFIX.sub("", tail[-1])
        if stem != tail[-1]:
            yield (*tail[:-1], stem), depth


def _folder_tails(paths: Sequence[NameParts]) -> dict[int, set[NameParts]]:
    """The last folders of all paths, by how many they are."""
    tails: dict[int, set[NameParts]] = defaultdict(set)
    for folders in {parts[:-1] for parts in paths}:
        for depth in range(1, len(folders) + 1):
            tails[depth].add(folders[-depth:])
    return tails


def _of_same_case(name: str, candidates: list[int], photos: Sequence[str]) -> list[int]:
    """Of photos whose names differ in case only, the one written as ``name``; all of them where none is."""

    def file_name(path: str) -> str:
        return unicodedata.normalize("NFC", path).replace("\\", "/").strip().rsplit("/", 1)[-1]

    equal = [i for i in candidates if file_name(photos[i]) == file_name(name)]
    return equal or candidates
