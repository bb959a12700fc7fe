"""Masks by file name: the photo that each belongs to.

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

_MASK_NAME = re.compile(r"(?:masks?[._ -](?P<after>.+)|(?P<before>.+?)[._ -]masks?)", re.DOTALL)


def is_in_mask_folder(name: str) -> bool:
    """Whether a file lies below a folder of masks."""
    return any(part.casefold() in MASK_FOLDERS for part in PurePosixPath(name).parts[:-1])


def match_sidecar_masks(names: Iterable[str]) -> dict[str, str]:
    """Masks that lie next to their photos: mask name -> photo name. ``img.png`` beside ``img.jpg`` is a photo."""
    names = [name for name in names if suffix_of(name) in PHOTO_SUFFIXES]
    photos: dict[tuple[str, str], str] = {}
    for name in names:
        folder, file = _normalized_parts(name)
        photos.setdefault((folder, file), name)
        photos.setdefault((folder, _stem(file)), name)
    matches = {}
    for name in names:
        folder, file = _normalized_parts(name)
        stem = _stem(file)
        photo_key = _strip_mask_word(stem) or (stem if suffix_of(stem) in PHOTO_SUFFIXES else "")
        photo = photos.get((folder, photo_key))
        if photo_key and photo and photo != name:
            matches[name] = photo
    return {mask: photo for mask, photo in matches.items() if photo not in matches}


def match_masks(photos: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """Photo name -> mask name. All names start at one common folder; those of masks pass through a mask folder.

    The mask folder nearest to the photo wins; there, the plain name wins over one decorated with "mask".
    """
    photos, masks = list(photos), list(masks)
    plain: dict[tuple[str, str], str] = {}
    decorated: dict[tuple[str, str], str] = {}
    for name in masks:
        folder, file = _normalized_parts(name)
        stem = _stem(file)
        plain.setdefault((folder, stem), name)
        decorated.setdefault((folder, _strip_mask_word(stem)), name)
    matches = {}
    for photo in photos:
        folder, file = _normalized_parts(photo)
        keys = [(place, key) for place in _candidate_folders(folder) for key in (file, _stem(file))]
        hits = (table[key] for key in keys for table in (plain, decorated) if key in table)
        if mask := next(hits, None):
            matches[photo] = mask
    return matches | _match_numbers(set(photos) - matches.keys(), set(masks) - set(matches.values()))


def _match_numbers(photos: set[str], masks: set[str]) -> dict[str, str]:
    """Photo -> mask by number, as in ``image/000012.png`` and ``mask/012.png`` of the DTU sets; unique numbers only."""
    by_number: dict[tuple[str, int], list[str]] = {}
    for mask in masks:
        folder, file = _normalized_parts(mask)
        if _stem(file).isdecimal():
            by_number.setdefault((folder, int(_stem(file))), []).append(mask)
    matches: dict[str, list[str]] = {}
    for photo in photos:
        folder, file = _normalized_parts(photo)
        if _stem(file).isdecimal():
            hits = [by_number.get((place, int(_stem(file))), []) for place in _candidate_folders(folder)]
            if only := next((hit for hit in hits if len(hit) == 1), None):
                matches.setdefault(only[0], []).append(photo)
    return {photos_of_mask[0]: mask for mask, photos_of_mask in matches.items() if len(photos_of_mask) == 1}


def _candidate_folders(folder: str) -> list[str]:
    """Where masks of a photo in ``folder`` may lie, nearest first: inside or beside each folder above it."""
    parts = PurePosixPath(folder).parts
    places = []
    for depth in range(len(parts), -1, -1):
        above, below = parts[:depth], parts[depth:]
        for tail in (below, below[1:]) if below else (below,):
            places.append(str(PurePosixPath(*above, MASK_FOLDERS[0], *tail)))
    return places


def _normalized_parts(name: str) -> tuple[str, str]:
    """Folder and file, comparable: one spelling of the mask folder, one case and one form of accents."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    parts = [MASK_FOLDERS[0] if part.casefold() in MASK_FOLDERS else part for part in path.parts[:-1]]
    return str(PurePosixPath(*parts)), path.name.casefold()


def _stem(file: str) -> str:
    suffix = suffix_of(file)
    return file[: -len(suffix)] if suffix in PHOTO_SUFFIXES else file


def _strip_mask_word(stem: str) -> str:
    match = _MASK_NAME.fullmatch(stem)
    return (match["after"] or match["before"]) if match else ""
