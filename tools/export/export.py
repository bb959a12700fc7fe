"""Export of a run from the committed results of its stages; existing files are never overwritten."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from quoin.pipeline.core.config import suggest_closest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Advance, Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.disk import disk_error
from quoin.pipeline.storage.run import Run
from quoin.tools.export.config import EXPORT_FORMATS, MESH_FORMATS, ExportResult


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


def _committed_mesh(run: Run, name: str) -> Path:
    run.require("fuse")
    path = run.file(name)
    if not path.is_file():
        raise QuoinError("The run's mesh file is missing", where=path, hint="make it again with --force fuse")
    return path


def _copy_mesh(run: Run, partial: Path, advance: Advance, name: str) -> ExportCounts:
    n_faces = int(run.require("fuse").result["glb_faces" if name == "mesh.glb" else "n_faces"])
    shutil.copyfile(_committed_mesh(run, name), partial)
    advance(1)
    return 0, 0, n_faces


def _write_ply(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    return _copy_mesh(run, partial, advance, "mesh.ply")


def _write_glb(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    return _copy_mesh(run, partial, advance, "mesh.glb")


def _write_obj(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    import trimesh

    mesh = trimesh.load(_committed_mesh(run, "mesh.ply"), process=False)
    partial.write_text(
        trimesh.exchange.obj.export_obj(mesh, include_color=True, header="made by quoin"), encoding="utf-8"
    )
    advance(1)
    return 0, 0, len(mesh.faces)


def _write_colmap(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    from quoin.tools.export.colmap_model import write_colmap_model
    from quoin.tools.export.undistorted_photos import export_photos, jpeg_names

    posed = posed_images.read_posed(run)
    names = jpeg_names(posed.names)
    export_photos(run, partial, names, lambda done: advance(done / len(names)))
    write_colmap_model(partial / "sparse" / "0", posed, names)
    return len(posed), len(posed.points_world), 0


def _write_nerfstudio(run: Run, partial: Path, advance: Advance) -> ExportCounts:
    from quoin.tools.export.transforms_json import write_nerfstudio_transforms, write_point_cloud
    from quoin.tools.export.undistorted_photos import export_photos, jpeg_names

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
