"""What a photo folder holds, before any file is opened: what may be a photo, which mask is whose, what is neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.storage.layout import sha256_of
from quoin.stages.ingest.clip_decoder import read_clip_header
from quoin.stages.ingest.depth_files import is_depth_name, match_depths
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, SourceFile, find_files, natural_key, suffix_of
from quoin.stages.ingest.mask_files import MASK_FOLDERS, is_in_mask_folder, match_masks, match_sidecar_masks


@dataclass(frozen=True)
class Listing:
    """All ``files`` in name order, those that are no photos with a reason; mask and depth map by the photo's name."""

    files: list[SourceFile]
    mask_of: dict[str, Path]
    unused_masks: list[str]
    contents: str  # hash of all names and sizes, and of what masks and depth maps hold
    depth_of: dict[str, Path] = field(default_factory=dict)
    unused_depths: list[str] = field(default_factory=list)


def list_sources(photos: Path, clips: Sequence[Path], masks: str, excluded: Path, depth: str | None = None) -> Listing:
    """List the folder ``photos``, or the one clip that it is, with ``clips`` that lie elsewhere; see ``list_photos``.

    Raises QuoinError where a file is no clip, or has the name of another.
    """
    if photos.is_file():
        if depth or masks not in ("auto", "none"):
            raise QuoinError(
                "Masks and depth maps are for photos, not for frames of a video", where=photos, hint="leave them out"
            )
        clips, listing = [photos, *clips], Listing([], {}, [], "")
    else:
        listing = list_photos(photos, masks, excluded, depth)
    if not clips:
        return listing
    found = {file.path.resolve(): file for file in listing.files}
    names = {file.name for file in listing.files}
    for clip in clips:
        if clip.resolve() in found:  # it lies in the folder, too
            continue
        try:
            read_clip_header(clip)
        except QuoinError as error:
            raise QuoinError(
                f"This is a file, not a folder of photos, and no video that can be read ({error.what})",
                where=clip,
                hint="name a folder of photos, or a video",
            ) from None
        if clip.name in names:
            raise QuoinError("Two files have this name", where=clip, hint="rename one of them")
        names.add(clip.name)
        found[clip.resolve()] = SourceFile(clip.name, clip.absolute(), Rejection(Reason.VIDEO), clip.stat().st_size)
    files = sorted(found.values(), key=lambda file: natural_key(file.name))
    named = [[file.name, file.n_bytes] for file in files]
    return replace(listing, files=files, contents=digest([listing.contents, named]))


def list_photos(root: Path, masks: str, excluded: Path, depth: str | None = None) -> Listing:
    """List ``root`` but what lies below ``excluded``; ``masks`` is "auto", "none" or a folder, ``depth`` a folder.

    Raises QuoinError where there is no folder of photos, or masks or depth were named and none belongs to a photo.
    """
    if not root.exists():
        raise QuoinError("There is no such folder of photos", where=root, hint="check the path")
    if not root.is_dir():
        raise QuoinError("This is a file, not a folder of photos", where=root, hint="name the folder that holds it")
    root = root.resolve()
    if Path(masks).resolve() == root:  # they lie among the photos, as they may
        masks = "auto"
    named = masks not in ("auto", "none")
    mask_folders = [Path(masks).resolve()] if named else []
    depth_files, is_mixed = _find_depth_files(root, depth, excluded.resolve())
    if depth and not is_mixed:
        mask_folders.append(Path(depth).resolve())
    files = find_files(root, excluded=[excluded.resolve(), *mask_folders])
    mask_files = _explicit_masks(Path(masks)) if named else _sibling_masks(root)
    # Names from here on start above the root, so that a folder of masks beside it has one too.
    image_files = {
        f"{root.name}/{f.name}": f for f in files if not f.rejection and not (is_mixed and f.name in depth_files)
    }
    sidecars = match_sidecar_masks(image_files)
    masks_in_folders = {name: file for name, file in image_files.items() if is_in_mask_folder(file.name)}
    photos = [name for name in image_files if name not in sidecars and name not in masks_in_folders]

    candidates = {n: f for n, f in (mask_files if named else mask_files | masks_in_folders).items() if _is_image(f)}
    mask_by_photo = match_masks(photos, candidates)
    if not named:
        for mask, photo in sidecars.items():
            mask_by_photo.setdefault(photo, mask)
    if named and not mask_by_photo:
        raise QuoinError(
            f"None of the {len(candidates)} masks in this folder belongs to a photo",
            where=masks,
            hint="name the mask of img.jpg img.jpg.png or img.png",
        )
    if masks == "none":
        mask_by_photo = {}
    depth_of = match_depths([image_files[photo].name for photo in photos], depth_files)
    if depth and not depth_of:
        raise QuoinError(
            f"None of the {len(depth_files)} depth maps in this folder belongs to a photo",
            where=depth,
            hint="name the depth map of img.jpg img.png, img_depth.png or img.depth.png (PNG or TIFF)",
        )
    unused_depths = sorted(depth_files.keys() - depth_of.values())
    used = set(mask_by_photo.values())
    rejections = {
        name: Rejection(Reason.MASK, "" if name in used or masks == "none" else "of no photo")
        for name in masks_in_folders | sidecars
    }
    rejections |= {
        f"{root.name}/{n}": Rejection(Reason.DEPTH_MAP, "of no photo" if n in unused_depths else "")
        for n in depth_files
        if is_mixed
    }
    listed = [
        SourceFile(f.name, f.path, f.rejection or rejections.get(f"{root.name}/{f.name}"), f.n_bytes) for f in files
    ]
    everything = image_files | candidates
    return Listing(
        files=listed,
        mask_of={image_files[photo].name: everything[mask].path for photo, mask in mask_by_photo.items()},
        unused_masks=[] if masks == "none" else [name for name in candidates if name not in used],
        contents=digest(
            [
                *(
                    [f.name, f.n_bytes, f.rejection.reason if f.rejection else ""]
                    for f in [*files, *mask_files.values(), *depth_files.values()]
                ),
                *(_content_digest(everything[mask].path) for mask in sorted(used)),
                *(_content_digest(depth_files[name].path) for name in sorted(depth_of.values())),
            ]
        ),
        depth_of={photo: depth_files[name].path for photo, name in depth_of.items()},
        unused_depths=unused_depths,
    )


def _find_depth_files(root: Path, depth: str | None, excluded: Path) -> tuple[dict[str, SourceFile], bool]:
    """Files that may be depth maps, by their names in their folder; and whether they lie among the photos."""
    if depth is None:
        return {}, False
    folder = Path(depth).resolve()
    if not folder.is_dir():
        raise QuoinError("There is no such folder of depth maps", where=depth, hint="correct --depth")
    found = find_files(folder, excluded=[excluded] if folder == root else [excluded, root])
    is_mixed = folder == root
    return {f.name: f for f in found if _is_image(f) and (not is_mixed or is_depth_name(f.name))}, is_mixed


def _explicit_masks(folder: Path) -> dict[str, SourceFile]:
    if not folder.is_dir():
        raise QuoinError("There is no such folder of masks", where=folder, hint="correct ingest.masks")
    return {f"{MASK_FOLDERS[0]}/{file.name}": file for file in find_files(folder)}


def _sibling_masks(root: Path) -> dict[str, SourceFile]:
    try:
        sidecars = sorted(path for path in root.parent.iterdir() if path.name.casefold() in MASK_FOLDERS)
    except OSError:  # one may read a folder without being allowed to list the one above
        return {}
    folders = [folder for folder in sidecars if folder != root and folder.is_dir()]
    return {f"{folder.name}/{file.name}": file for folder in folders for file in find_files(folder)}


def _content_digest(path: Path) -> str:
    """Of what a mask or a depth map holds: one that is made anew often has the size of the old one."""
    try:
        return sha256_of(path)
    except OSError:  # it will be told when it is read
        return ""


def _is_image(file: SourceFile) -> bool:
    return not file.rejection and suffix_of(file.name) in PHOTO_SUFFIXES
