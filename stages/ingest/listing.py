"""Which files of a photo folder may be photos, and which mask and depth map belongs to each, before any is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.scene.photo_names import fit_names
from quoin.stages.ingest.clip_decoder import read_clip_header
from quoin.stages.ingest.depth_files import is_depth_name, match_depths
from quoin.stages.ingest.file_digests import file_digests
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, SourceFile, find_files, natural_key, suffix_of
from quoin.stages.ingest.mask_files import MASK_FOLDERS, is_in_mask_folder, match_masks, match_sidecar_masks

FileByName = dict[str, SourceFile]
NO_MASKS: Mapping[str, Path] = {}


@dataclass(frozen=True)
class Listing:
    """All ``files`` in name order, those that are no photos rejected; mask and depth map by the photo's name."""

    files: list[SourceFile]
    mask_of: dict[str, Path]
    unused_masks: list[str]
    contents: str  # hash of all names and sizes, and of what photos, clips, masks and depth maps hold
    depth_of: dict[str, Path] = field(default_factory=dict)
    unused_depths: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _FolderImages:
    """The image files of a photo folder by name, and which of them are photos or masks, as far as names tell.

    Names start above the folder, so that a folder of masks beside it has such names, too.
    """

    files: FileByName
    photos: list[str]
    in_mask_folders: list[str]
    photo_by_sidecar: dict[str, str]  # of masks that lie beside their photo
    named_masks: list[str]  # those that a file of given cameras names


@dataclass(frozen=True)
class _Companions:
    """The masks, or the depth maps, of a photo folder: ``files`` by name, and the name of each photo's file.

    ``rejections`` are those of masks or depth maps among the photos, by their names in the photo folder.
    """

    files: FileByName
    name_by_photo: dict[str, str]
    unused: list[str]
    rejections: dict[str, Rejection]

    def paths(self) -> dict[str, Path]:
        """The file of each photo that has one."""
        return {photo: self.files[name].path for photo, name in self.name_by_photo.items()}

    def paths_in_use(self) -> list[Path]:
        """The files of all photos, each once."""
        return [self.files[name].path for name in sorted(set(self.name_by_photo.values()))]


def list_sources(
    photos: Path,
    clips: Sequence[Path],
    masks: str,
    excluded: Path,
    depth: str | None = None,
    named_masks: Mapping[str, Path] = NO_MASKS,
) -> Listing:
    """List the folder ``photos``, or the one clip that it is, with ``clips`` from other folders; see ``list_photos``.

    Raises QuoinError where a clip is no video, or has the name of another file.
    """
    if photos.is_file():
        if depth or masks not in ("auto", "none"):
            raise QuoinError(
                "Masks and depth maps can be given for photos, not for a video",
                where=photos,
                hint="leave out the masks and the depth maps, or give a folder of photos",
            )
        return _add_clips(Listing([], {}, [], ""), [photos, *clips], excluded)
    listing = list_photos(photos, masks, excluded, depth, named_masks)
    return _add_clips(listing, clips, excluded) if clips else listing


def _add_clips(listing: Listing, clips: Sequence[Path], run_folder: Path) -> Listing:
    """The listing with the clips that are not in it yet."""
    file_by_path = {file.path.resolve(): file for file in listing.files}
    names = {file.name for file in listing.files}
    for clip in clips:
        if clip.resolve() in file_by_path:  # it lies in the photo folder, too
            continue
        _check_clip(clip)
        if clip.name in names:
            raise QuoinError(f"Two files are named {clip.name!r}", where=clip, hint="rename one of them")
        names.add(clip.name)
        file_by_path[clip.resolve()] = SourceFile(
            clip.name, clip.absolute(), Rejection(Reason.VIDEO), clip.stat().st_size
        )
    files = sorted(file_by_path.values(), key=lambda file: natural_key(file.name))
    names_and_sizes = [[file.name, file.n_bytes] for file in files]
    digests = sorted(file_digests([clip.absolute() for clip in clips], run_folder).values())
    return replace(listing, files=files, contents=digest([listing.contents, names_and_sizes, digests]))


def _check_clip(clip: Path) -> None:
    try:
        read_clip_header(clip)
    except QuoinError as error:
        raise QuoinError(
            f"This file is neither a folder of photos nor a video that can be read ({error.what})",
            where=clip,
            hint="give a folder of photos, or a video",
        ) from None


def list_photos(
    root: Path,
    masks: str,
    excluded: Path,
    depth: str | None = None,
    named_masks: Mapping[str, Path] = NO_MASKS,
) -> Listing:
    """List ``root`` but what lies below ``excluded``; ``masks`` is "auto", "none" or a folder, ``depth`` a folder.

    With "auto" also ``named_masks``, by the names of their photos, where a photo has no other mask.
    Raises QuoinError where there is no folder of photos, or masks or depth were given and none belongs to a photo.
    """
    _check_folder(root)
    root, excluded = root.resolve(), excluded.resolve()
    if Path(masks).resolve() == root:  # masks among the photos are found anyway
        masks = "auto"
    mask_folder = None if masks in ("auto", "none") else Path(masks).resolve()
    depth_folder = Path(depth).resolve() if depth else None
    folders = [folder for folder in (mask_folder, depth_folder) if folder is not None and folder != root]
    files = find_files(root, excluded=[excluded, *folders])
    depth_files = _find_depth_files(root, depth_folder, excluded)
    outside_masks = _find_sibling_masks(root) if mask_folder is None else _find_given_masks(mask_folder)

    images = _split_images(root, files, depth_files if depth_folder == root else {}, set(named_masks.values()))
    mask = _match_masks(images, outside_masks, masks, named_masks)
    depth_map = _match_depths(images, depth_files, depth_folder, root)
    rejections = mask.rejections | depth_map.rejections
    searched = [*files, *outside_masks.values(), *depth_files.values()]
    names_and_sizes = [[f.name, f.n_bytes, f.rejection.reason if f.rejection else ""] for f in searched]
    named = [[photo, str(path)] for photo, path in sorted(named_masks.items())] if masks == "auto" else []
    compared = [file.path for file in files if _is_source(file)]
    digests = file_digests([*compared, *mask.paths_in_use(), *depth_map.paths_in_use()], excluded)
    return Listing(
        files=[replace(file, rejection=file.rejection or rejections.get(file.name)) for file in files],
        mask_of=mask.paths(),
        unused_masks=mask.unused,
        contents=digest([*names_and_sizes, *named, *digests.values()]),
        depth_of=depth_map.paths(),
        unused_depths=depth_map.unused,
    )


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise QuoinError("The photo folder does not exist", where=root, hint="check the path")
    if not root.is_dir():
        raise QuoinError("This is a file, not a folder of photos", where=root, hint="give the folder that holds it")


def _split_images(
    root: Path, files: Sequence[SourceFile], depth_files: FileByName, mask_paths: set[Path]
) -> _FolderImages:
    """Tell photos from masks, by name and by ``mask_paths``; ``depth_files`` are neither."""
    images = {f"{root.name}/{file.name}": file for file in files if not file.rejection and file.name not in depth_files}
    photo_by_sidecar = match_sidecar_masks(images)
    in_mask_folders = [name for name, file in images.items() if is_in_mask_folder(file.name)]
    named_masks = [name for name, file in images.items() if file.path in mask_paths]
    masks = {*photo_by_sidecar, *in_mask_folders, *named_masks}
    photos = [name for name in images if name not in masks]
    return _FolderImages(images, photos, in_mask_folders, photo_by_sidecar, named_masks)


def _match_masks(
    images: _FolderImages, outside_masks: FileByName, masks: str, named_masks: Mapping[str, Path]
) -> _Companions:
    """The mask of each photo: of the folder ``masks``, or ("auto") of folders of masks, then beside the photo, then the
    one that a file of given cameras names.
    """
    masks_in_root = list(dict.fromkeys([*images.in_mask_folders, *images.photo_by_sidecar, *images.named_masks]))
    if masks == "none":
        return _Companions({}, {}, [], {images.files[name].name: Rejection(Reason.MASK) for name in masks_in_root})
    searched = dict(outside_masks)
    if masks == "auto":
        searched |= {name: images.files[name] for name in images.in_mask_folders}
    candidates = {name: file for name, file in searched.items() if _is_image(file)}
    mask_by_photo = match_masks(images.photos, candidates)
    if masks == "auto":
        for name, photo in images.photo_by_sidecar.items():
            mask_by_photo.setdefault(photo, name)
        for photo, file in _match_named_masks(images, named_masks).items():
            candidates[file.name] = file
            mask_by_photo.setdefault(photo, file.name)
    elif not mask_by_photo:
        raise QuoinError(
            f"None of the {len(candidates)} masks in this folder belongs to a photo",
            where=masks,
            hint="name the mask of img.jpg img.jpg.png or img.png",
        )
    used = set(mask_by_photo.values())
    return _Companions(
        files=images.files | candidates,
        name_by_photo={images.files[photo].name: name for photo, name in mask_by_photo.items()},
        unused=[name for name in candidates if name not in used],
        rejections={
            images.files[name].name: Rejection(Reason.MASK, "" if name in used else "of no photo")
            for name in masks_in_root
        },
    )


def _match_named_masks(images: _FolderImages, named_masks: Mapping[str, Path]) -> FileByName:
    """The mask that a file of given cameras names for each photo: under its name in the photo folder, or its path."""
    name_by_path = {images.files[name].path: name for name in images.named_masks}
    photos = [images.files[photo].name for photo in images.photos]
    matches = {}
    for path, fitting in zip(named_masks.values(), fit_names(list(named_masks), photos), strict=True):
        for index in fitting:
            n_bytes = path.stat().st_size if path.is_file() else 0  # whoever reads the mask reports a missing one
            matches[images.photos[index]] = SourceFile(name_by_path.get(path, str(path)), path, n_bytes=n_bytes)
    return matches


def _match_depths(images: _FolderImages, depth_files: FileByName, folder: Path | None, root: Path) -> _Companions:
    """The depth map of each photo, from the files of ``folder``."""
    depth_by_photo = match_depths([images.files[name].name for name in images.photos], depth_files)
    if folder is not None and not depth_by_photo:
        raise QuoinError(
            f"None of the {len(depth_files)} depth maps in this folder belongs to a photo",
            where=folder,
            hint="name the depth map of img.jpg img.png, img_depth.png or img.depth.png (PNG or TIFF)",
        )
    unused = sorted(depth_files.keys() - depth_by_photo.values())
    return _Companions(
        files=depth_files,
        name_by_photo=depth_by_photo,
        unused=unused,
        rejections={
            name: Rejection(Reason.DEPTH_MAP, "of no photo" if name in unused else "")
            for name in depth_files
            if folder == root
        },
    )


def _find_depth_files(root: Path, folder: Path | None, excluded: Path) -> FileByName:
    """Files of ``folder`` that may be depth maps; among the photos, those whose name says depth."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise QuoinError("The folder of depth maps does not exist", where=folder, hint="correct --depth")
    is_root = folder == root
    files = find_files(folder, excluded=[excluded] if is_root else [excluded, root])
    return {file.name: file for file in files if _is_image(file) and (not is_root or is_depth_name(file.name))}


def _find_given_masks(folder: Path) -> FileByName:
    if not folder.is_dir():
        raise QuoinError("The folder of masks does not exist", where=folder, hint="correct ingest.masks")
    return {f"{MASK_FOLDERS[0]}/{file.name}": file for file in find_files(folder)}


def _find_sibling_masks(root: Path) -> FileByName:
    """Files of the folders of masks beside ``root``."""
    try:
        siblings = sorted(path for path in root.parent.iterdir() if path.name.casefold() in MASK_FOLDERS)
    except OSError:  # one may read a folder without being allowed to list the one above
        return {}
    folders = [folder for folder in siblings if folder != root and folder.is_dir()]
    return {f"{folder.name}/{file.name}": file for folder in folders for file in find_files(folder)}


def _is_source(file: SourceFile) -> bool:
    """Whether a file may give photos; what else lies in the folder, archives for example, is not read."""
    return file.is_clip or (not file.rejection and suffix_of(file.name) in {*PHOTO_SUFFIXES, ""})


def _is_image(file: SourceFile) -> bool:
    return not file.rejection and suffix_of(file.name) in PHOTO_SUFFIXES
