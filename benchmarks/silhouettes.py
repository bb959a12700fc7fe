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
from benchmarks.measure import DATA, Measurement, Metrics, read_stage_results, run_quoin
from quoin.pipeline.scene.blocks import read_held_out

LIBERTY_DATA = DATA / "statue_of_liberty"
Array = np.ndarray


def compare_liberty(out: Path) -> tuple[Measurement, Metrics]:
    """The whole way at the defaults, then the outlines."""
    photos, run = out / "photos", out / "run"
    shutil.copytree(
        LIBERTY_DATA / "images", photos, dirs_exist_ok=True
    )  # masks lie beside the originals and would be found
    measured = run_quoin("reconstruct", photos, "--out", run, *rivals.set_options("partition.hold_out_every=8"))
    each = {name: (whole, boxed) for name, whole, boxed in silhouette_ious(run, LIBERTY_DATA / "masks")}
    means = np.mean(list(each.values()), axis=0)
    return measured, {**read_stage_results(run), "iou": float(means[0]), "iou_in_box": float(means[1]), "photos": each}


def silhouette_ious(folder: Path, masks: Path) -> Iterator[tuple[str, float, float]]:
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
        mesh_silhouette = np.isfinite(solid.cast_rays(rays)["t_hit"].numpy())
        in_photo = lens.img_from_cam(unproject(intrinsics, pixels, np.ones(len(pixels))))
        mask = load_upright(masks / name)[..., 0] > 127
        mask_silhouette = sample_mask(mask, in_photo / (lens.width, lens.height))
        if mask_silhouette.any():
            yield name, *silhouette_iou(mesh_silhouette.reshape(height, width), mask_silhouette.reshape(height, width))


def sample_mask(picture: Bool[Array, "h w"], position: Float[Array, "n 2"]) -> Bool[Array, "n"]:
    """Pixels in which places lie (in [0, 1] from the top left corner, x and y); False beside the picture."""
    from quoin.pipeline.imaging.filters import sample_nearest

    inside = np.all((position >= 0) & (position < 1), axis=1)
    return inside & sample_nearest(picture, np.where(inside[:, None], position, 0.0))


def silhouette_iou(mesh_silhouette: Bool[Array, "h w"], mask_silhouette: Bool[Array, "h w"]) -> tuple[float, float]:
    """Intersection over union of two outlines, all over the picture and within the box of the second."""
    rows, columns = np.flatnonzero(mask_silhouette.any(axis=1)), np.flatnonzero(mask_silhouette.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    whole, boxed = (
        (a & b).sum() / (a | b).sum()
        for a, b in ((mesh_silhouette, mask_silhouette), (mesh_silhouette[box], mask_silhouette[box]))
    )
    return float(whole), float(boxed)
