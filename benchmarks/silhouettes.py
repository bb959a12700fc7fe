"""The statue of liberty by strangers' photos, without the masks that come with them: does its outline fit theirs?

Every eighth photo is held out of everything after the poses. In each of them the mesh's silhouette is compared with the
photo's mask of the statue and its pedestal: intersection over union, all over the picture, and within the box of the
mask ("inside the object's region": beside it there are islands and walls that are there).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from benchmarks import rivals
from benchmarks.measure import DATA, Measured, Numbers, quoin, stages
from quoin.pipeline.scene.blocks import read_held_out

LIBERTY = DATA / "statue_of_liberty"
Array = np.ndarray


def liberty(out: Path) -> tuple[Measured, Numbers]:
    """The whole way at the defaults, then the outlines."""
    photos, run = out / "photos", out / "run"
    shutil.copytree(LIBERTY / "images", photos, dirs_exist_ok=True)  # masks lie beside the originals and would be found
    measured = quoin("reconstruct", photos, "--out", run, *rivals.settings("partition.hold_out_every=8"))
    each = {name: (whole, boxed) for name, whole, boxed in overlaps(run, LIBERTY / "masks")}
    means = np.mean(list(each.values()), axis=0)
    return measured, {**stages(run), "iou": float(means[0]), "iou_in_box": float(means[1]), "photos": each}


def overlaps(folder: Path, masks: Path) -> Iterator[tuple[str, float, float]]:
    """Name of each held-out photo, IoU of the mesh's silhouette with its mask, and the same within the mask's box."""
    import open3d as o3d
    import pycolmap

    from quoin.pipeline.geometry.cameras import pixel_grid, rays_world, unproject
    from quoin.pipeline.imaging.io import load_upright
    from quoin.pipeline.scene import posed_images
    from quoin.pipeline.storage.run import Run

    run = Run.open(folder)
    posed = posed_images.read_posed(run)
    solid = o3d.t.geometry.RaycastingScene()
    solid.add_triangles(o3d.t.io.read_triangle_mesh(str(folder / "mesh.ply")))
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    lenses = {photo.name: model.cameras[photo.camera_id] for photo in model.images.values()}
    for i in read_held_out(run).tolist():
        name, intrinsics, (width, height) = posed.names[i], posed.intrinsics[i], posed.sizes[i].tolist()
        pixels, lens = pixel_grid(width, height), lenses[name]
        origin, directions = rays_world(posed.cam_from_world[i], intrinsics, pixels)
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        ours = np.isfinite(solid.cast_rays(rays)["t_hit"].numpy())
        in_photo = lens.img_from_cam(unproject(intrinsics, pixels, np.ones(len(pixels))))
        shown = load_upright(masks / name)[..., 0] > 127
        theirs = at(shown, in_photo / (lens.width, lens.height))
        if theirs.any():
            yield name, *overlap(ours.reshape(height, width), theirs.reshape(height, width))


def at(picture: Bool[Array, "h w"], place: Float[Array, "n 2"]) -> Bool[Array, "n"]:
    """Pixels in which places lie (in [0, 1] from the top left corner, x and y); False beside the picture."""
    from quoin.stages.fuse.vertex_confidence import nearest

    inside = np.all((place >= 0) & (place < 1), axis=1)
    return inside & nearest(picture, np.where(inside[:, None], place, 0.0))


def overlap(ours: Bool[Array, "h w"], theirs: Bool[Array, "h w"]) -> tuple[float, float]:
    """Intersection over union of two outlines, all over the picture and within the box of the second."""
    rows, columns = np.flatnonzero(theirs.any(axis=1)), np.flatnonzero(theirs.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    whole, boxed = ((a & b).sum() / (a | b).sum() for a, b in ((ours, theirs), (ours[box], theirs[box])))
    return float(whole), float(boxed)
