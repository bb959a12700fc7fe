"""What hides what: for every photo the depth of the nearest surface, of a mesh that may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import zarr
from jaxtyping import Float, Int

from pipeline import store
from pipeline.frustum import in_view
from stages.fuse.visibility import View, cast_scene, depth_map

Array = np.ndarray
Local = tuple[Float[Array, "v 3"], Int[Array, "f 3"]]  # vertices in the frame of the views, faces


def hidden_by_one(mesh: Local, views: list[View]) -> Callable[[int], Float[Array, "h w"]]:
    """The depth map of view i on request, of one mesh: see ``depth_map``."""
    whole = cast_scene(*mesh)
    return lambda i: depth_map(whole, views[i])


def hidden_by_many(
    meshes: Iterable[Local], views: list[View], group: zarr.Group, name: str, advance: Callable[[], object]
) -> Callable[[int], Float[Array, "h w"]]:
    """The same of many meshes, one in memory at a time; the depth maps are kept in ``group`` under ``name``.

    ``advance`` is called after every mesh.
    """
    for vertices, faces in meshes:
        part, may_see = cast_scene(vertices, faces), in_view(vertices)
        for i, view in enumerate(views):
            if len(may_see(view.cam_from_local, view.intrinsics, (view.width, view.height))):
                depth, at = depth_map(part, view), f"{name}/{i:06d}"
                if at in group:
                    before = store.read(group, at)
                    depth = np.where(np.abs(before) <= np.abs(depth), before, depth)
                store.write(group, at, depth.astype(np.float32))
        advance()

    def read(i: int) -> Float[Array, "h w"]:
        at = f"{name}/{i:06d}"
        empty = np.full((views[i].height, views[i].width), np.inf, np.float32)
        return store.read(group, at) if at in group else empty

    return read
