"""What a photo folder holds, before any file is opened: what may be a photo, which mask is whose, what is neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.layout import sha256_of
from quoin.stages.ingest.clip_decoder import read_header
from quoin.stages.ingest.depth_files import match_depths, says_depth
from quoin.stages.ingest.file_search import CLIP, PHOTO_SUFFIXES, Found, find_files, natural_key, suffix_of
from quoin.stages.ingest.mask_files import MASK_FOLDERS, in_mask_folder, masks_beside, match_masks


@dataclass(frozen=True)
class Listing:
    """All ``files`` in name order, those that are no photos with a reason; mask and depth map by the photo's name."""

    files: list[Found]
    mask_of: dict[str, Path]
    unused_masks: list[str]
    contents: str  # hash of all names and sizes, and of what masks and depth maps hold
    depth_of: dict[str, Path] = field(default_factory=dict)
    unused_depths: list[str] = field(default_factory=list)


def list_sources(photos: Path, clips: Sequence[Path], masks: str, without: Path, depth: str | None = None) -> Listing:
    """List the folder ``photos``, or the one clip that it is, with ``clips`` that lie elsewhere; see ``list_photos``.

    Raises QuoinError where a file is no clip, or has the name of another.
    """
    if photos.is_file():
        if depth or masks not in ("auto", "none"):
            raise QuoinError(
                "Masks and depth maps are for photos, not for frames of a video", where=photos, do="leave them out"
            )
        clips, listing = [photos, *clips], Listing([], {}, [], "")
    else:
        listing = list_photos(photos, masks, without, depth)
    if not clips:
        return listing
    found = {file.path.resolve(): file for file in listing.files}
    names = {file.name for file in listing.files}
    for clip in clips:
        if clip.resolve() in found:  # it lies in the folder, too
            continue
        try:
            read_header(clip)
        except QuoinError as error:
            raise QuoinError(
                f"This is a file, not a folder of photos, and no video that can be read ({error.what})",
                where=clip,
                do="name a folder of photos, or a video",
            ) from None
        if clip.name in names:
            raise QuoinError("Two files have this name", where=clip, do="rename one of them")
        names.add(clip.name)
        found[clip.resolve()] = Found(clip.name, clip.absolute(), CLIP, clip.stat().st_size)
    files = sorted(found.values(), key=lambda file: natural_key(file.name))
    named = [[file.name, file.n_bytes] for file in files]
    return replace(listing, files=files, contents=digest([listing.contents, named]))


def list_photos(root: Path, masks: str, without: Path, depth: str | None = None) -> Listing:
    """List ``root`` but what lies below ``without``; ``masks`` is "auto", "none" or a folder, ``depth`` a folder.

    Raises QuoinError where there is no folder of photos, or masks or depth were named and none belongs to a photo.
    """
    if not root.exists():
        raise QuoinError("There is no such folder of photos", where=root, do="check the path")
    if not root.is_dir():
        raise QuoinError("This is a file, not a folder of photos", where=root, do="name the folder that holds it")
    root = root.resolve()
    if Path(masks).resolve() == root:  # they lie among the photos, as they may
        masks = "auto"
    named = masks not in ("auto", "none")
    apart = [Path(masks).resolve()] if named else []
    measured, mixed = _depth_files(root, depth, without.resolve())
    if depth and not mixed:
        apart.append(Path(depth).resolve())
    files = find_files(root, without=[without.resolve(), *apart])
    outside = _named_masks(Path(masks)) if named else _masks_beside_folder(root)
    # Names from here on start above the root, so that a folder of masks beside it has one too.
    inside = {f"{root.name}/{f.name}": f for f in files if not f.reason and not (mixed and f.name in measured)}
    beside = masks_beside(inside)
    in_folders = {name: file for name, file in inside.items() if in_mask_folder(file.name)}
    photos = [name for name in inside if name not in beside and name not in in_folders]

    candidates = {n: f for n, f in (outside if named else outside | in_folders).items() if _is_image(f)}
    paired = match_masks(photos, candidates)
    if not named:
        for mask, photo in beside.items():
            paired.setdefault(photo, mask)
    if named and not paired:
        raise QuoinError(
            f"None of the {len(candidates)} masks in this folder belongs to a photo",
            where=masks,
            do="name the mask of img.jpg img.jpg.png or img.png",
        )
    if masks == "none":
        paired = {}
    depth_of = match_depths([inside[photo].name for photo in photos], measured)
    if depth and not depth_of:
        raise QuoinError(
            f"None of the {len(measured)} depth maps in this folder belongs to a photo",
            where=depth,
            do="name the depth map of img.jpg img.png, img_depth.png or img.depth.png (PNG or TIFF)",
        )
    unused_depths = sorted(measured.keys() - depth_of.values())
    used = set(paired.values())
    reasons = {name: "mask" if name in used or masks == "none" else "mask: of no photo" for name in in_folders | beside}
    reasons |= {f"{root.name}/{n}": "depth: of no photo" if n in unused_depths else "depth" for n in measured if mixed}
    listed = [Found(f.name, f.path, f.reason or reasons.get(f"{root.name}/{f.name}", ""), f.n_bytes) for f in files]
    everything = inside | candidates
    return Listing(
        files=listed,
        mask_of={inside[photo].name: everything[mask].path for photo, mask in paired.items()},
        unused_masks=[] if masks == "none" else [name for name in candidates if name not in used],
        contents=digest(
            [
                *([f.name, f.n_bytes, f.reason] for f in [*files, *outside.values(), *measured.values()]),
                *(_digest(everything[mask].path) for mask in sorted(used)),
                *(_digest(measured[name].path) for name in sorted(depth_of.values())),
            ]
        ),
        depth_of={photo: measured[name].path for photo, name in depth_of.items()},
        unused_depths=unused_depths,
    )


def _depth_files(root: Path, depth: str | None, without: Path) -> tuple[dict[str, Found], bool]:
    """Files that may be depth maps, by their names in their folder; and whether they lie among the photos."""
    if depth is None:
        return {}, False
    folder = Path(depth).resolve()
    if not folder.is_dir():
        raise QuoinError("There is no such folder of depth maps", where=depth, do="correct --depth")
    found = find_files(folder, without=[without] if folder == root else [without, root])
    mixed = folder == root
    return {f.name: f for f in found if _is_image(f) and (not mixed or says_depth(f.name))}, mixed


def _named_masks(folder: Path) -> dict[str, Found]:
    if not folder.is_dir():
        raise QuoinError("There is no such folder of masks", where=folder, do="correct ingest.masks")
    return {f"{MASK_FOLDERS[0]}/{file.name}": file for file in find_files(folder)}


def _masks_beside_folder(root: Path) -> dict[str, Found]:
    try:
        beside = sorted(path for path in root.parent.iterdir() if path.name.casefold() in MASK_FOLDERS)
    except OSError:  # one may read a folder without being allowed to list the one above
        return {}
    folders = [folder for folder in beside if folder != root and folder.is_dir()]
    return {f"{folder.name}/{file.name}": file for folder in folders for file in find_files(folder)}


def _digest(path: Path) -> str:
    """Of what a mask or a depth map holds: one that is made anew often has the size of the old one."""
    try:
        return sha256_of(path)
    except OSError:  # it will be told when it is read
        return ""


def _is_image(file: Found) -> bool:
    return not file.reason and suffix_of(file.name) in PHOTO_SUFFIXES
