"""Operations on pycolmap reconstructions, in the COLMAP process: map, convert to arrays, split, transform, prune."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel

MIN_COMPONENT_PHOTOS = 3  # photos; the poses of two alone cannot be trusted
# From this many photos on neighbours hold a photo in place even where it uses a part of its tracks.
MIN_PHOTOS_FOR_TRACK_SELECTION = 300
TRACKS_PER_PHOTO = 200  # the longest, from which many photos are placed; all others are triangulated afterwards


def map_globally(database: str, images: str, output: str, seed: int, threads: int) -> list[pycolmap.Reconstruction]:
    """Components of the global mapper (GLOMAP: Pan et al. 2024), the one with most photos first.

    Its solvers grow faster than the tracks: 763 s with all 222,000 of 1,289 photos, 69 s with TRACKS_PER_PHOTO.
    """
    options = pycolmap.GlobalPipelineOptions(random_seed=seed, num_threads=threads, min_model_size=MIN_COMPONENT_PHOTOS)
    mapper = options.mapper
    mapper.random_seed = mapper.rotation_averaging.random_seed = mapper.global_positioning.random_seed = seed
    mapper.retriangulation.random_seed = seed
    mapper.num_threads = threads
    with pycolmap.Database.open(database) as opened:
        if opened.num_images() >= MIN_PHOTOS_FOR_TRACK_SELECTION:
            mapper.track_required_tracks_per_view = TRACKS_PER_PHOTO
    return _run(pycolmap.global_mapping, database, images, output, options)


def map_incrementally(
    database: str, images: str, output: str, seed: int, threads: int
) -> list[pycolmap.Reconstruction]:
    """Components of the incremental mapper (Schönberger and Frahm 2016), the one with most photos first."""
    options = pycolmap.IncrementalPipelineOptions(
        random_seed=seed,
        num_threads=threads,
        min_model_size=MIN_COMPONENT_PHOTOS,
        structure_less_registration_fallback=False,  # where a few photos cannot be registered, it takes without end
    )
    options.mapper.random_seed = options.triangulation.random_seed = seed
    options.mapper.num_threads = threads
    return _run(pycolmap.incremental_mapping, database, images, output, options)


def _run(mapper: Any, database: str, images: str, output: str, options: Any) -> list[pycolmap.Reconstruction]:
    folder = Path(output) / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    reconstructions = mapper(database, images, str(folder), options)
    shutil.rmtree(folder)  # what is kept is written elsewhere, once
    return sorted(reconstructions.values(), key=lambda component: -component.num_reg_images())


def reconstruction_from_poses(database: str, poses: dict[str, list[list[float]]]) -> pycolmap.Reconstruction:
    """A model without points of the database's photos at given cam_from_world, by photo id; others have no pose."""
    posed = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        for camera in opened.read_all_cameras():
            posed.add_camera(camera)
        for rig in opened.read_all_rigs():
            posed.add_rig(rig)
        images = {image.image_id: image for image in opened.read_all_images()}
        for frame in opened.read_all_frames():
            posed.add_frame(frame)
        for image_id, image in images.items():
            image.points2D = pycolmap.Point2DList(
                [pycolmap.Point2D(xy) for xy in opened.read_keypoints(image_id)[:, :2]]
            )
            posed.add_image(image)
    for image_id in images:
        if str(image_id - 1) not in poses:
            continue
        frame = posed.frame(image_id)
        frame.set_cam_from_world(posed.image(image_id).camera_id, pycolmap.Rigid3d(np.array(poses[str(image_id - 1)])))
        posed.register_frame(image_id)
    return posed


def split_shared_cameras(component: pycolmap.Reconstruction, camera_ids: set[int]) -> pycolmap.Reconstruction:
    """The registered photos and points, where each photo of ``camera_ids`` has a copy of its camera for itself."""
    split = pycolmap.Reconstruction()
    first_new_id = 1 + max(component.cameras)
    for camera in component.cameras.values():
        split.add_camera_with_trivial_rig(camera)
    for image_id in sorted(component.reg_image_ids()):
        image = component.image(image_id)
        camera_id = image.camera_id
        if camera_id in camera_ids:
            camera = pycolmap.Camera(component.camera(camera_id).todict())
            camera_id = camera.camera_id = first_new_id + image_id
            split.add_camera_with_trivial_rig(camera)
        new_image = pycolmap.Image(name=image.name, camera_id=camera_id, image_id=image_id)
        new_image.points2D = pycolmap.Point2DList([pycolmap.Point2D(point.xy) for point in image.points2D])
        split.add_image_with_trivial_frame(new_image, image.cam_from_world())
    for point in component.points3D.values():
        split.add_point3D(point.xyz, point.track, point.color)
    return split


def to_sparse_model(component: pycolmap.Reconstruction) -> SparseModel:
    """The model with registered photos and the cameras they use."""
    image_ids = sorted(component.reg_image_ids())
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids)}
    camera_ids = sorted({component.image(i).camera_id for i in image_ids})
    row_of_camera = {camera_id: row for row, camera_id in enumerate(camera_ids)}
    pixels = {i: np.array([p.xy for p in component.image(i).points2D]).reshape(-1, 2) for i in image_ids}
    points, colors, lengths = [], [], []
    photo: list[int] = []
    xy: list[np.ndarray] = []
    for point in component.points3D.values():
        elements = [e for e in point.track.elements if e.image_id in row_of_image]
        points.append(point.xyz)
        colors.append(point.color)
        lengths.append(len(elements))
        photo.extend(row_of_image[e.image_id] for e in elements)
        xy.extend(pixels[e.image_id][e.point2D_idx] for e in elements)
    return SparseModel(
        photo_ids=np.array(image_ids, np.int64) - 1,
        cam_from_sfm=np.array([component.image(i).cam_from_world().matrix() for i in image_ids]).reshape(-1, 3, 4),
        camera_index=np.array([row_of_camera[component.image(i).camera_id] for i in image_ids], np.int64),
        cameras=[_camera(component.camera(c)) for c in camera_ids],
        points_sfm=np.array(points, np.float64).reshape(-1, 3),
        point_colors=np.array(colors, np.uint8).reshape(-1, 3),
        track_offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        track_photo=np.array(photo, np.int64),
        track_xy=np.array(xy, np.float64).reshape(-1, 2),
    )


def _camera(camera: pycolmap.Camera) -> Camera:
    params = tuple(float(p) for p in camera.params)
    return Camera(camera.model_name, camera.width, camera.height, params, bool(camera.has_prior_focal_length))


def keep_photos_only(component: pycolmap.Reconstruction, keep_photo_ids: set[int]) -> None:
    """Deregister all other photos; points left with one observation go with them."""
    for frame_id in list(component.reg_frame_ids()):
        if frame_id - 1 not in keep_photo_ids:
            component.deregister_frame(frame_id)


def transform_to_world(component: pycolmap.Reconstruction, world_from_sfm: dict[str, Any]) -> None:
    """Move the model by a Similarity given as JSON."""
    component.transform(
        pycolmap.Sim3d(
            world_from_sfm["scale"],
            pycolmap.Rotation3d(np.array(world_from_sfm["rotation"])),
            np.array(world_from_sfm["translation"]),
        )
    )
