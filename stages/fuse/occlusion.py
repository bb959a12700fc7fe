"""Occlusion: depth maps of the nearest surface for every photo, of a mesh that may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import zarr
from jaxtyping import Float, Int

from quoin.pipeline.geometry.frustum import frustum_query
from quoin.pipeline.storage import arrays
from quoin.stages.fuse.visibility import LocalView, make_raycasting_scene, render_depth

Array = np.ndarray
LocalMesh = tuple[Float[Array, "v 3"], Int[Array, "f 3"]]  # vertices in the frame of the views, faces
OCCLUSION_GROUP = "surface/hidden"


def occlusion_of_mesh(mesh: LocalMesh, views: list[LocalView]) -> Callable[[int], Float[Array, "h w"]]:
    """A function that renders the depth map of view i of the mesh (``render_depth``)."""
    whole = make_raycasting_scene(*mesh)
    return lambda i: render_depth(whole, views[i])


def write_occlusion_maps(mesh: LocalMesh, views: list[LocalView], group: zarr.Group, chunk: int) -> list[int]:
    """Write the depth maps of a chunk for all views that may show it to ``group``; return these views."""
    whole, may_see = make_raycasting_scene(*mesh), frustum_query(mesh[0])
    visible_views = [
        i
        for i, view in enumerate(views)
        if len(may_see(view.cam_from_local, view.intrinsics, (view.width, view.height)))
    ]
    for i in visible_views:
        arrays.write_array(group, _name(i, chunk), render_depth(whole, views[i]).astype(np.float32))
    return visible_views


def occlusion_of_chunks(
    views: list[LocalView], group: zarr.Group, chunks_in_view: Sequence[Sequence[int]]
) -> Callable[[int], Float[Array, "h w"]]:
    """A function that reads the depth map of view i, merged from those of the chunks ``chunks_in_view[i]``."""

    def read(i: int) -> Float[Array, "h w"]:
        nearest = np.full((views[i].height, views[i].width), np.inf, np.float32)
        for chunk in chunks_in_view[i]:
            depth = arrays.read_array(group, _name(i, chunk))
            nearest = np.where(np.abs(depth) < np.abs(nearest), depth, nearest)
        return nearest

    return read


def _name(view: int, chunk: int) -> str:
    return f"{OCCLUSION_GROUP}/{view:06d}_{chunk:05d}"
