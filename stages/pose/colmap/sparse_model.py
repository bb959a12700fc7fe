"""Sparse model as arrays: what the COLMAP process writes and the rest of this stage works on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse import coo_array, csr_array

from quoin.pipeline.storage.arrays import read_npz
from quoin.stages.pose.colmap.camera import Camera

Array = np.ndarray


@dataclass(frozen=True)
class SparseModel:
    """K registered photos, their cameras, P points and T observations (CSR), in the frame SfM chose.

    ``photo_ids`` [K] rows of the photo table; ``camera_index`` [K] into ``cameras``; ``track_photo`` [T] is 0..K-1 and
    ``track_xy`` [T, 2] pixels of the upright, distorted photo.
    """

    photo_ids: Int[Array, "k"]
    cam_from_sfm: Float[Array, "k 3 4"]
    camera_index: Int[Array, "k"]
    cameras: list[Camera]
    points_sfm: Float[Array, "p 3"]
    point_colors: UInt8[Array, "p 3"]
    track_offsets: Int[Array, "p+1"]
    track_photo: Int[Array, "t"]
    track_xy: Float[Array, "t 2"]

    @property
    def track_point(self) -> Int[Array, "t"]:
        """Point index of every observation."""
        return np.repeat(np.arange(len(self.points_sfm)), np.diff(self.track_offsets))

    def rows_of(self, photo_ids: Int[Array, "*n"]) -> Int[Array, "*n"]:
        """Rows 0..K-1 of photos by their ids; -1 where a photo is not registered."""
        row = np.full(1 + max(int(photo_ids.max(initial=0)), int(self.photo_ids.max(initial=0))), -1)
        row[self.photo_ids] = np.arange(len(self.photo_ids))
        return row[photo_ids]

    def shared_points(self) -> csr_array:
        """Number of points that two photos both see, [K, K]."""
        ones, shape = np.ones(len(self.track_photo), np.int64), (len(self.photo_ids), len(self.points_sfm))
        visibility = coo_array((ones, (self.track_photo, self.track_point)), shape=shape).tocsr()
        visibility.data[:] = 1
        return (visibility @ visibility.T).tocsr()

    def observations_by_camera(self) -> list[Int[Array, "_"]]:
        """Rows of the observations of each camera's photos."""
        camera = self.camera_index[self.track_photo]
        order = np.argsort(camera, kind="stable")
        return np.split(order, np.cumsum(np.bincount(camera, minlength=len(self.cameras)))[:-1])

    @property
    def n_observations(self) -> Int[Array, "k"]:
        """Observed points per photo."""
        return np.bincount(self.track_photo, minlength=len(self.photo_ids))

    def keep_photos(self, keep: Bool[Array, "k"]) -> SparseModel:
        """The model without the other photos; points seen by fewer than two of the rest go as well."""
        row = np.cumsum(keep) - 1
        part = self.keep_observations(keep[self.track_photo])
        return replace(
            part,
            photo_ids=self.photo_ids[keep],
            cam_from_sfm=self.cam_from_sfm[keep],
            camera_index=self.camera_index[keep],
            track_photo=row[part.track_photo],
        )

    def keep_observations(self, keep: Bool[Array, "t"]) -> SparseModel:
        """The model without the other observations; points with fewer than two of the rest go as well."""
        is_kept, keep = self.survivors(keep)
        return replace(
            self,
            points_sfm=self.points_sfm[is_kept],
            point_colors=self.point_colors[is_kept],
            track_offsets=np.concatenate(
                [[0], np.cumsum(np.bincount(self.track_point[keep], minlength=len(is_kept))[is_kept])]
            ),
            track_photo=self.track_photo[keep],
            track_xy=self.track_xy[keep],
        )

    def survivors(self, keep: Bool[Array, "t"]) -> tuple[Bool[Array, "p"], Bool[Array, "t"]]:
        """Which points, and which observations, are left when only some observations are kept."""
        point_of = self.track_point
        is_kept = np.bincount(point_of[keep], minlength=len(self.points_sfm)) >= 2
        return is_kept, keep & is_kept[point_of]


_ARRAYS = [
    "photo_ids",
    "cam_from_sfm",
    "camera_index",
    "points_sfm",
    "point_colors",
    "track_offsets",
    "track_photo",
    "track_xy",
]


def write_sparse_model(path: Path, model: SparseModel) -> None:
    """Write the model to one .npz file."""
    cameras = json.dumps([camera.as_json() for camera in model.cameras])
    np.savez(path, cameras=np.array(cameras), **{name: getattr(model, name) for name in _ARRAYS})


def read_sparse_model(path: Path) -> SparseModel:
    """The model in a file by ``write_sparse_model``."""
    data = read_npz(path, f"work/pose/{path.parent.name}/{path.name}", ("cameras", *_ARRAYS))
    cameras = [Camera.from_json(camera) for camera in json.loads(str(data.pop("cameras")))]
    return SparseModel(cameras=cameras, **data)
