"""Writer of COLMAP models: posed photos as undistorted PINHOLE cameras, with the points and their tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quoin.pipeline.scene.posed_images import Posed


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
