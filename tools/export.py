"""Export of a run as PLY, glTF, COLMAP model or transforms.json; existing files are never overwritten."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from quoin.pipeline.core.config import StageResult, suggest_closest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Advance, Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.mesh_formats import committed_mesh
from quoin.pipeline.scene.posed_images import Posed
from quoin.pipeline.storage.disk import disk_error
from quoin.pipeline.storage.run import Run

Array = np.ndarray

ExportFormat = Literal["ply", "glb", "obj", "colmap", "nerfstudio"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
MESH_FORMATS = ("ply", "glb", "obj")  # one file; the others are folders

EXPORT_JPEG_QUALITY = 95


class ExportResult(StageResult):
    """The files that an export wrote."""

    format: str
    path: str  # the file, or the folder
    n_files: int
    n_bytes: int
    n_photos: int  # 0 for a mesh
    n_points: int  # sparse points, 0 for a mesh
    n_faces: int  # 0 for cameras


def export_run(run: Run, format: str, out: Path, report: Reporter) -> ExportResult:
    """Write ``out``: a file for ply (full surface), glb (light), obj (full, vertex colours); a folder for the others.

    colmap: images/, masks/ (of photos that have one) and sparse/0, a model of undistorted PINHOLE cameras with points.
    nerfstudio: images/, masks/, transforms.json, sparse_pc.ply. Both in the run's world frame. ``out`` is
    complete or does not exist.
    """
    if format not in EXPORT_FORMATS:
        raise QuoinError("Unknown export format", where=format, hint=suggest_closest(format, EXPORT_FORMATS))
    out = Path(out).absolute()
    _check_output_path(out, format)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with report.task("export", 1, "") as advance:
            counts = _WRITERS[format](run, partial, advance)
        if out.is_dir():
            out.rmdir()  # it is empty
        os.replace(partial, out)
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    files = [f for f in out.rglob("*") if f.is_file()] if out.is_dir() else [out]
    n_photos, n_points, n_faces = counts
    return ExportResult(
        format=format,
        path=str(out),
        n_files=len(files),
        n_bytes=sum(f.stat().st_size for f in files),
        n_photos=n_photos,
        n_points=n_points,
        n_faces=n_faces,
    )


def _check_output_path(out: Path, format: str) -> None:
    if format in MESH_FORMATS:
        if out.suffix.lower() != f".{format}":
            raise QuoinError(f"A {format} file ends in .{format}", where=out, hint=f"name it {out.stem}.{format}")
        if out.exists():
            raise QuoinError("The output already exists", where=out, hint="choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise QuoinError("The output already exists", where=out, hint="choose another --out, or an empty folder")


ExportCounts = tuple[int, int, int]  # photos, points, faces


def _copy_mesh(run: Run, partial: Path, advance: Advance, name: str) -> ExportCounts:
    n_faces = int(run.result_value("fuse", "glb_faces" if name == "mesh.glb" else "n_faces"))
    shutil.copyfile(committed_mesh(run, name), partial)
    advance(1)
    return 0, 0, n_faces


def _write_ply(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    return _copy_mesh(run, partial, advance, "mesh.ply")


def _write_glb(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    return _copy_mesh(run, partial, advance, "mesh.glb")


def _write_obj(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    import trimesh

    mesh = trimesh.load(committed_mesh(run, "mesh.ply"), process=False)
    partial.write_text(
        trimesh.exchange.obj.export_obj(mesh, include_color=True, header="made by quoin"), encoding="utf-8"
    )
    advance(1)
    return 0, 0, len(mesh.faces)


def _write_colmap(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    posed = posed_images.read_posed(run)
    names = jpeg_names(posed.names)
    export_photos(run, partial, names, lambda done: advance(done / len(names)))
    write_colmap_model(partial / "sparse" / "0", posed, names)
    return len(posed), len(posed.points_world), 0


def _write_nerfstudio(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    posed = posed_images.read_posed(run)
    names = jpeg_names(posed.names)
    has_mask = export_photos(run, partial, names, lambda done: advance(done / len(names)))
    write_nerfstudio_transforms(partial / "transforms.json", posed, names, has_mask)
    write_point_cloud(partial / "sparse_pc.ply", posed.points_world, posed.point_colors)
    return len(posed), len(posed.points_world), 0


_WRITERS: dict[str, Callable[[Run, Path, Advance], ExportCounts]] = {
    "ply": _write_ply,
    "glb": _write_glb,
    "obj": _write_obj,
    "colmap": _write_colmap,
    "nerfstudio": _write_nerfstudio,
}


def jpeg_names(names: list[str]) -> list[str]:
    """A JPEG name per photo: its own with suffix .jpg, or with .jpg appended where that would not be unique."""
    short = [str(PurePosixPath(name).with_suffix(".jpg")) for name in names]
    count = Counter(name.lower() for name in short)  # some file systems ignore case
    return [s if count[s.lower()] == 1 else f"{name}.jpg" for s, name in zip(short, names, strict=True)]


def export_photos(run: Run, folder: Path, names: list[str], advance: Advance) -> list[bool]:
    """Write ``images``/<name> and, for photos with masked pixels, ``masks``/<name>.png; returns which have a mask.

    In masks 255 is used and 0 ignored; they are named as COLMAP expects.
    """
    has_mask = []
    for index, name in enumerate(names):
        picture = folder / "images" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        rgb = posed_images.read_photo(run, index)
        Image.fromarray(rgb).save(picture, "JPEG", quality=EXPORT_JPEG_QUALITY, subsampling=0)
        mask = posed_images.read_mask(run, index)
        has_mask.append(bool((mask == 0).any()))
        if has_mask[-1]:
            path = folder / "masks" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path, "PNG")
        advance(index + 1)
    return has_mask


def write_colmap_model(folder: Path, posed: Posed, names: list[str]) -> None:
    """Write a binary COLMAP model in the run's world frame; photos of equal intrinsics share a camera."""
    import pycolmap

    folder.mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    unique_cameras, camera_of = np.unique(np.hstack([posed.sizes, posed.intrinsics]), axis=0, return_inverse=True)
    for camera_id, (width, height, *params) in enumerate(unique_cameras.tolist(), start=1):
        camera = pycolmap.Camera(
            camera_id=camera_id, model="PINHOLE", width=int(width), height=int(height), params=params
        )
        model.add_camera_with_trivial_rig(camera)

    index_in_photo = np.empty(len(posed.track_photo), np.int64)  # of each observation in its image's list of points
    for index, name in enumerate(names):
        observations = np.flatnonzero(posed.track_photo == index)
        index_in_photo[observations] = np.arange(len(observations))
        image = pycolmap.Image(
            name=name,
            camera_id=int(camera_of[index]) + 1,
            image_id=index + 1,
            points2D=pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in posed.track_xy[observations]]),
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(posed.cam_from_world[index]))

    for point, (start, stop) in enumerate(zip(posed.track_offsets[:-1], posed.track_offsets[1:], strict=True)):
        track = pycolmap.Track(
            [pycolmap.TrackElement(int(posed.track_photo[k]) + 1, int(index_in_photo[k])) for k in range(start, stop)]
        )
        point3d_id = model.add_point3D(posed.points_world[point], track, posed.point_colors[point])
        model.points3D[point3d_id].error = float(posed.point_errors_px[point])
    model.write_binary(str(folder))


def write_nerfstudio_transforms(path: Path, posed: Posed, names: list[str], has_mask: list[bool]) -> None:
    """Write transforms.json: camera-to-world, camera axes x right, y up, z backwards (OpenGL); intrinsics per photo."""
    frames = []
    for index, center in enumerate(centers_world(posed.cam_from_world)):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = posed.cam_from_world[index, :, :3].T @ np.diag([1.0, -1.0, -1.0])
        world_from_cam[:3, 3] = center
        fx, fy, cx, cy = posed.intrinsics[index].tolist()
        width, height = posed.sizes[index].tolist()
        frame = {"file_path": f"images/{names[index]}", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
        frame |= {"w": width, "h": height, "transform_matrix": world_from_cam.tolist()}
        if has_mask[index]:
            frame["mask_path"] = f"masks/{names[index]}.png"
        frames.append(frame)
    head = {"camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "ply_file_path": "sparse_pc.ply"}
    path.write_text(json.dumps({**head, "frames": frames}, indent=1), encoding="utf-8")


def write_point_cloud(path: Path, points_world: Float[Array, "p 3"], colors: UInt8[Array, "p 3"]) -> None:
    """Write a binary PLY of coloured points."""
    import trimesh

    trimesh.PointCloud(points_world, colors=colors).export(path)
