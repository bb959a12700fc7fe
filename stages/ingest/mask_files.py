"""Which mask belongs to which photo, by name alone.

Masks lie in a folder named masks or mask, inside the photos' folder or beside it, mirroring its subfolders; or next to
the photos under a name that says mask. For ``img.jpg``: ``img.jpg.png``, ``img.png``, ``img_mask.png``,
``mask_img.png``, ``img.mask.png`` and the like, any image suffix, any case; for ``000012.jpg`` also ``012.png``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, suffix_of

MASK_FOLDERS = ("masks", "mask")

_DECORATED = re.compile(r"(?:masks?[._ -](?P<after>.+)|(?P<before>.+?)[._ -]masks?)", re.DOTALL)


def in_mask_folder(name: str) -> bool:
    """Whether a file lies below a folder of masks."""
    return any(part.casefold() in MASK_FOLDERS for part in PurePosixPath(name).parts[:-1])


def masks_beside(names: Iterable[str]) -> dict[str, str]:
    """Masks that lie next to their photos: mask name -> photo name. ``img.png`` beside ``img.jpg`` is a photo."""
    names = [name for name in names if suffix_of(name) in PHOTO_SUFFIXES]
    photos: dict[tuple[str, str], str] = {}
    for name in names:
        folder, file = _split(name)
        photos.setdefault((folder, file), name)
        photos.setdefault((folder, _stem(file)), name)
    found = {}
    for name in names:
        folder, file = _split(name)
        stem = _stem(file)
        says = _undecorated(stem) or (stem if suffix_of(stem) in PHOTO_SUFFIXES else "")
        photo = photos.get((folder, says))
        if says and photo and photo != name:
            found[name] = photo
    return {mask: photo for mask, photo in found.items() if photo not in found}


def match_masks(photos: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """Photo name -> mask name. All names start at one common folder; those of masks pass through a mask folder.

    The mask folder nearest to the photo wins; there, the plain name wins over one decorated with "mask".
    """
    photos, masks = list(photos), list(masks)
    plain: dict[tuple[str, str], str] = {}
    decorated: dict[tuple[str, str], str] = {}
    for name in masks:
        folder, file = _split(name)
        stem = _stem(file)
        plain.setdefault((folder, stem), name)
        decorated.setdefault((folder, _undecorated(stem)), name)
    found = {}
    for photo in photos:
        folder, file = _split(photo)
        keys = [(place, key) for place in _places(folder) for key in (file, _stem(file))]
        hits = (table[key] for key in keys for table in (plain, decorated) if key in table)
        if mask := next(hits, None):
            found[photo] = mask
    return found | _match_numbers(set(photos) - found.keys(), set(masks) - set(found.values()))


def _match_numbers(photos: set[str], masks: set[str]) -> dict[str, str]:
    """Pairs by number alone, as in ``image/000012.png`` and ``mask/012.png`` of the DTU sets; each number once only."""
    by_number: dict[tuple[str, int], list[str]] = {}
    for mask in masks:
        folder, file = _split(mask)
        if _stem(file).isdecimal():
            by_number.setdefault((folder, int(_stem(file))), []).append(mask)
    found: dict[str, list[str]] = {}
    for photo in photos:
        folder, file = _split(photo)
        if _stem(file).isdecimal():
            hits = [by_number.get((place, int(_stem(file))), []) for place in _places(folder)]
            if only := next((hit for hit in hits if len(hit) == 1), None):
                found.setdefault(only[0], []).append(photo)
    return {claims[0]: mask for mask, claims in found.items() if len(claims) == 1}


def _places(folder: str) -> list[str]:
    """Where masks of a photo in ``folder`` may lie, nearest first: inside or beside each folder above it."""
    parts = PurePosixPath(folder).parts
    places = []
    for depth in range(len(parts), -1, -1):
        above, below = parts[:depth], parts[depth:]
        for tail in (below, below[1:]) if below else (below,):
            places.append(str(PurePosixPath(*above, MASK_FOLDERS[0], *tail)))
    return places


def _split(name: str) -> tuple[str, str]:
    """Folder and file, comparable: one spelling of the mask folder, one case and one form of accents."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    parts = [MASK_FOLDERS[0] if part.casefold() in MASK_FOLDERS else part for part in path.parts[:-1]]
    return str(PurePosixPath(*parts)), path.name.casefold()


def _stem(file: str) -> str:
    suffix = suffix_of(file)
    return file[: -len(suffix)] if suffix in PHOTO_SUFFIXES else file


def _undecorated(stem: str) -> str:
    match = _DECORATED.fullmatch(stem)
    return (match["after"] or match["before"]) if match else ""
