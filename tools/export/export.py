"""Export a run, from what its stages committed only. What is there already is never overwritten."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from quoin.pipeline.core.config import nearest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.atomic import disk_error
from quoin.pipeline.storage.run import Run
from quoin.tools.export.config import FORMATS, MESH_FORMATS, ExportResult


def export(run: Run, format: str, out: Path, report: Reporter) -> ExportResult:
    """Write ``out``: a file for ply (full surface), glb (light), obj (full, vertex colours); a folder for the others.

    colmap: images/, masks/ (of photos that have one) and sparse/0, a model of undistorted PINHOLE cameras with points.
    nerfstudio: images/, masks/, transforms.json, sparse_pc.ply. Both in the run's world frame. ``out`` appears whole or
    not at all.
    """
    if format not in FORMATS:
        raise QuoinError("Unknown export format", where=format, do=nearest(format, FORMATS))
    out = Path(out).absolute()
    _check_free(out, format)
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with report.task("export", 1, "") as advance:
            made = _WRITERS[format](run, part, advance)
        if out.is_dir():
            out.rmdir()  # it is empty
        os.replace(part, out)
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    files = [f for f in out.rglob("*") if f.is_file()] if out.is_dir() else [out]
    n_photos, n_points, n_faces = made
    return ExportResult(
        format=format,
        path=str(out),
        n_files=len(files),
        n_bytes=sum(f.stat().st_size for f in files),
        n_photos=n_photos,
        n_points=n_points,
        n_faces=n_faces,
    )


def _check_free(out: Path, format: str) -> None:
    if format in MESH_FORMATS:
        if out.suffix.lower() != f".{format}":
            raise QuoinError(f"A {format} file ends in .{format}", where=out, do=f"name it {out.stem}.{format}")
        if out.exists():
            raise QuoinError("There is something here already", where=out, do="choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise QuoinError("There is something here already", where=out, do="choose another --out, or an empty folder")


Advance = Callable[[float], None]
Counts = tuple[int, int, int]  # photos, points, faces


def _committed(run: Run, name: str) -> Path:
    run.require("fuse")
    path = run.file(name)
    if not path.is_file():
        raise QuoinError("The run's mesh is gone", where=path, do="redo it with --force fuse")
    return path


def _mesh(run: Run, part: Path, advance: Advance, name: str) -> Counts:
    n_faces = int(run.require("fuse").result["glb_faces" if name == "mesh.glb" else "n_faces"])
    shutil.copyfile(_committed(run, name), part)
    advance(1)
    return 0, 0, n_faces


def _ply(run: Run, part: Path, advance: Advance) -> Counts:
    return _mesh(run, part, advance, "mesh.ply")


def _glb(run: Run, part: Path, advance: Advance) -> Counts:
    return _mesh(run, part, advance, "mesh.glb")


def _obj(run: Run, part: Path, advance: Advance) -> Counts:
    import trimesh

    mesh = trimesh.load(_committed(run, "mesh.ply"), process=False)
    part.write_text(trimesh.exchange.obj.export_obj(mesh, include_color=True, header="made by quoin"), encoding="utf-8")
    advance(1)
    return 0, 0, len(mesh.faces)


def _colmap(run: Run, part: Path, advance: Advance) -> Counts:
    from quoin.tools.export.colmap_model import write_model
    from quoin.tools.export.undistorted_photos import jpeg_names, write_photos

    posed = posed_images.read_posed(run)
    names = jpeg_names(posed.names)
    write_photos(run, part, names, lambda done: advance(done / len(names)))
    write_model(part / "sparse" / "0", posed, names)
    return len(posed), len(posed.points_world), 0


def _nerfstudio(run: Run, part: Path, advance: Advance) -> Counts:
    from quoin.tools.export.transforms_json import write_points, write_transforms
    from quoin.tools.export.undistorted_photos import jpeg_names, write_photos

    posed = posed_images.read_posed(run)
    names = jpeg_names(posed.names)
    masked = write_photos(run, part, names, lambda done: advance(done / len(names)))
    write_transforms(part / "transforms.json", posed, names, masked)
    write_points(part / "sparse_pc.ply", posed.points_world, posed.point_colors)
    return len(posed), len(posed.points_world), 0


_WRITERS: dict[str, Callable[[Run, Path, Advance], Counts]] = {
    "ply": _ply,
    "glb": _glb,
    "obj": _obj,
    "colmap": _colmap,
    "nerfstudio": _nerfstudio,
}
