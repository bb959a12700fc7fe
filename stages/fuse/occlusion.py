"""What hides what: for every photo the depth of the nearest surface, of a mesh that may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import zarr
from jaxtyping import Float, Int

from quoin.pipeline.geometry.frustum import in_view
from quoin.pipeline.storage import arrays
from quoin.stages.fuse.visibility import View, cast_scene, depth_map

Array = np.ndarray
Local = tuple[Float[Array, "v 3"], Int[Array, "f 3"]]  # vertices in the frame of the views, faces
NAME = "surface/hidden"


def hidden_by_one(mesh: Local, views: list[View]) -> Callable[[int], Float[Array, "h w"]]:
    """The depth map of view i on request, of one mesh: see ``depth_map``."""
    whole = cast_scene(*mesh)
    return lambda i: depth_map(whole, views[i])


def hide(mesh: Local, views: list[View], group: zarr.Group, part: int) -> list[int]:
    """Leave the depth maps of one part of many in ``group``, for all views that show it; which those are."""
    whole, may_see = cast_scene(*mesh), in_view(mesh[0])
    shown = [
        i
        for i, view in enumerate(views)
        if len(may_see(view.cam_from_local, view.intrinsics, (view.width, view.height)))
    ]
    for i in shown:
        arrays.write(group, _name(i, part), depth_map(whole, views[i]).astype(np.float32))
    return shown


def hidden_by_many(
    views: list[View], group: zarr.Group, shown_in: Sequence[Sequence[int]]
) -> Callable[[int], Float[Array, "h w"]]:
    """The depth map of view i on request, of the parts ``shown_in[i]``, which ``hide`` has left."""

    def read(i: int) -> Float[Array, "h w"]:
        nearest = np.full((views[i].height, views[i].width), np.inf, np.float32)
        for part in shown_in[i]:
            depth = arrays.read(group, _name(i, part))
            nearest = np.where(np.abs(depth) < np.abs(nearest), depth, nearest)
        return nearest

    return read


def _name(view: int, part: int) -> str:
    return f"{NAME}/{view:06d}_{part:05d}"
