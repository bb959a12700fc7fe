"""Labels of occupancy (Mescheder et al. 2019): from lines of sight, depth maps, or a closed mesh."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quoin.stages.train.data.initial_sdf import DepthMap, fuse_tsdf

Array = np.ndarray
N_INSIDE_TEST_RAYS = 3  # rays per inside test, of which one may graze an edge
MAX_INTERIOR_DEPTH = 0.03  # in the block's unit: so far behind a point on a surface space counts as occupied


def interior_points_behind(
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    reach: Float[Tensor, "n"],
    draw: Float[Tensor, "n"],
    half_extent: Float[Tensor, "3"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Points just behind the ends of lines of sight, and 1 where they are in the block, else 0.

    They lie up to MAX_INTERIOR_DEPTH behind, spread evenly in log distance over three decades by ``draw`` in [0, 1).
    """
    at = reach + MAX_INTERIOR_DEPTH * 10.0 ** (-3.0 * draw)
    points = origins + directions * at[:, None]
    return points, (points.abs() <= half_extent).all(dim=1).to(points.dtype)


def occupancy_from_mesh(
    vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], points: Float[Array, "n 3"]
) -> Bool[Array, "n"]:
    """True for points inside a closed mesh: their rays leave it an odd number of times. Eager only.

    ValueError where the mesh is open.
    """
    import open3d as o3d

    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    n_open = int((np.unique(edges, axis=0, return_counts=True)[1] % 2).sum())
    if n_open or len(faces) == 0:
        raise ValueError(
            f"the mesh is not watertight: {n_open} edges of its {len(faces)} faces are open (are its vertices welded?)"
        )
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2  # single precision far from the origin is coarse
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor((vertices - middle).astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
    )
    return scene.compute_occupancy((points - middle).astype(np.float32), nsamples=N_INSIDE_TEST_RAYS).numpy() > 0


def occupancy_from_depth(
    points: Float[Array, "n 3"], depth_maps: list[DepthMap], thickness: float
) -> tuple[Bool[Array, "n"], Bool[Array, "n"]]:
    """True for occupied points, and True for points of which it is known. Eager only.

    Points in front of the surface of some map are free. Points less than ``thickness`` behind it in at least one map,
    and in front of none, are occupied. The rest is unknown. Exact to about a pixel's footprint.
    """
    free, behind = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for depth_map in depth_maps:
        ahead, count = (t.numpy() for t in fuse_tsdf(torch.from_numpy(points), [depth_map], [], thickness))
        free |= ahead > 0
        behind |= (count > 0) & (ahead <= 0)
    return behind & ~free, behind | free
