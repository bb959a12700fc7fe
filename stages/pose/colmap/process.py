"""The COLMAP process: one step per process, started by ``subprocess_call.py``.

``python -m quoin.stages.pose.colmap.process JOB.json RESULT.json``. Steps are the functions in ``COLMAP_STEPS``; each
takes the job and returns what JSON can hold. Photo i of the photo table is image i + 1, camera c of the job is camera c
+ 1. SIFT only, and no vocabulary tree: nothing here can download.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pycolmap

from quoin.stages.pose.colmap import bundle_adjustment, reconstruction
from quoin.stages.pose.colmap.sparse_model import write_sparse_model
from quoin.stages.pose.colmap.subprocess_call import exit_with_parent

StepArguments = dict[str, Any]


def extract_features(job: StepArguments) -> StepArguments:
    """Cameras and images into the database, then SIFT of every image that has none yet."""
    import_images(job)
    reader = pycolmap.ImageReaderOptions()
    if job["masks"]:
        reader.mask_path = job["masks"]
    options = pycolmap.FeatureExtractionOptions(num_threads=job["threads"], max_image_size=job["max_edge_px"])
    options.sift.max_num_features = job["max_features"]
    pycolmap.extract_features(
        job["database"], job["images"], reader_options=reader, extraction_options=options, device=pycolmap.Device.cpu
    )
    with pycolmap.Database.open(job["database"]) as database:
        counts = {
            image.image_id - 1: database.num_keypoints_for_image(image.image_id) for image in database.read_all_images()
        }
    return {"n_features": [counts.get(photo["id"], 0) for photo in job["photos"]]}


def import_images(job: StepArguments) -> StepArguments:
    """Cameras and images into the database."""
    with pycolmap.Database.open(job["database"]) as database:
        if database.num_images() == len(job["photos"]):
            return {}  # features of an earlier attempt are kept
        database.clear_all_tables()  # of an attempt that was stopped here
        _write_cameras(database, job["cameras"], first_id=1)
        for photo in job["photos"]:
            number, camera_id = photo["id"] + 1, photo["camera"] + 1
            image = pycolmap.Image(name=photo["file"], camera_id=camera_id, image_id=number)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame()
            frame.frame_id, frame.rig_id = number, camera_id
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
    return {}


def _write_cameras(database: pycolmap.Database, cameras: list[list[Any]], first_id: int) -> None:
    """Write cameras, each with a rig of the same id, as COLMAP requires of a single camera."""
    for camera_id, (model, width, height, params, prior) in enumerate(cameras, first_id):
        camera = pycolmap.Camera(model=model, width=width, height=height, params=params, camera_id=camera_id)
        camera.has_prior_focal_length = prior
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=camera_id)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)


def set_cameras(job: StepArguments) -> StepArguments:
    """Replace the cameras of the photos in a database, which keeps its features and matches."""
    with pycolmap.Database.open(job["database"]) as database:
        first_id = 1 + max(camera.camera_id for camera in database.read_all_cameras())
        _write_cameras(database, job["cameras"], first_id)
        for photo, camera in job["camera_of"]:
            image = database.read_image(photo + 1)
            image.camera_id = first_id + camera
            frame = pycolmap.Frame()
            frame.frame_id, frame.rig_id = photo + 1, first_id + camera
            frame.add_data_id(image.data_id)
            database.update_frame(frame)
            database.update_image(image)
    return {}


def delete_pairs(job: StepArguments) -> StepArguments:
    """Delete the verified matches of the pairs of photos in ``pairs``."""
    with pycolmap.Database.open(job["database"]) as database:
        for first, second in job["pairs"]:
            database.delete_two_view_geometry(first + 1, second + 1)
    return {}


def match_images(job: StepArguments) -> StepArguments:
    """Matches and verified two-view geometry of the pairs listed in ``pairs_file``; pairs done already are skipped."""
    options = pycolmap.FeatureMatchingOptions(num_threads=job["threads"])
    verification = _verification_options(job)
    pairing = pycolmap.ImportedPairingOptions(match_list_path=job["pairs_file"], block_size=job["block_size"])
    pycolmap.match_image_pairs(job["database"], options, pairing, verification, device=pycolmap.Device.cpu)
    with pycolmap.Database.open(job["database"]) as database:
        matches = dict(zip(*database.read_num_matches(), strict=True))
        inliers = dict(zip(*database.read_two_view_geometry_num_inliers(), strict=True))
    rows = []
    for pair_id, n_matches in matches.items():
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        rows.append([first - 1, second - 1, n_matches, inliers.get(pair_id, 0)])
    return {"pairs": rows}


def verify_matches(job: StepArguments) -> StepArguments:
    """Verify all matches anew, with the cameras that the photos have by now."""
    with pycolmap.Database.open(job["database"]) as database:
        database.clear_two_view_geometries()
    options = pycolmap.GeometricVerifierOptions(num_threads=job["threads"])
    pycolmap.geometric_verification(
        job["database"], options, pycolmap.ExistingMatchedPairingOptions(), _verification_options(job)
    )
    return {}


def _verification_options(job: StepArguments) -> pycolmap.TwoViewGeometryOptions:
    # What stands still in photos taken from many places tells no pose: date stamps, logos, the wall behind a turntable.
    options = pycolmap.TwoViewGeometryOptions(filter_stationary_matches=True)
    options.ransac.random_seed = job["seed"]
    return options


def map_images(job: StepArguments) -> StepArguments:
    """Write every component that the mapper named in the job finds to ``output``/component<k>."""
    run = {"global": reconstruction.map_globally, "incremental": reconstruction.map_incrementally}[job["mapper"]]
    components = run(job["database"], job["images"], job["output"], job["seed"], job["threads"])
    paths = []
    for index, component in enumerate(components):
        path = Path(job["output"]) / f"component{index}"
        paths.append(_save(component, path))
    return {"components": paths}


def _triangulation_options(job: StepArguments) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions(random_seed=job["seed"], num_threads=job["threads"])
    options.triangulation.random_seed = options.mapper.random_seed = job["seed"]
    return options


def triangulate(job: StepArguments) -> StepArguments:
    """Triangulate points from known poses; poses and cameras stay as they are."""
    posed = reconstruction.reconstruction_from_poses(job["database"], job["poses"])
    options = _triangulation_options(job)
    folder = Path(job["output"]) / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    component = pycolmap.triangulate_points(
        posed, job["database"], job["images"], folder, options=options, refine_intrinsics=False
    )
    component.extract_colors_for_all_images(job["images"])
    return {"component": _save(component, Path(job["output"]))}


def refine_poses(job: StepArguments) -> StepArguments:
    """Poses by id of photo after bundle adjustment of points triangulated from given ``poses``.

    Cameras stay, and the poses of the photos in ``constant``.

    Points are first triangulated with the errors that inexact poses give them (``max_errors_px``, falling).
    """
    poses = job["poses"]
    for max_error_px in job["max_errors_px"]:
        posed = reconstruction.reconstruction_from_poses(job["database"], poses)
        options = _triangulation_options(job)
        focal = min(camera.mean_focal_length() for camera in posed.cameras.values())
        bundle_adjustment.allow_errors(options, max_error_px, focal)
        with TemporaryDirectory(dir=job["output"]) as folder:
            component = pycolmap.triangulate_points(
                posed, job["database"], job["images"], folder, options=options, refine_intrinsics=False
            )
        bundle_adjustment.adjust_poses(component, job["threads"], max_error_px, set(job["constant"]))
        poses |= {str(i - 1): component.image(i).cam_from_world().matrix().tolist() for i in component.reg_image_ids()}
    return {"poses": poses}


def refine_model(job: StepArguments) -> StepArguments:
    """A robust bundle adjustment of the model at ``path`` without dropped photos, written to ``output``.

    With ``free``, intrinsics are refined as far as the photos support it: returns the cameras whose principal points
    moved, the shifts in both halves, and how many photos got a camera of their own.
    """
    component = pycolmap.Reconstruction(job["path"])
    reconstruction.keep_photos_only(component, set(job["photo_ids"]))
    bundle_adjustment.filter_points(component)
    bundle_adjustment.adjust_bundle(component, job["threads"], set())
    wrongly_shared = bundle_adjustment.find_wrongly_shared_cameras(component, job["threads"]) if job["free"] else set()
    shifts = (
        bundle_adjustment.find_principal_point_shifts(
            Path(job["path"]), job["photo_ids"], wrongly_shared, job["threads"]
        )
        if job["free"]
        else {}
    )
    edge = {c: max(component.camera(c).width, component.camera(c).height) for c in shifts}
    moved = {c for c, shift in shifts.items() if shift.is_consistent(edge[c])}
    n_split = sum(component.image(i).camera_id in wrongly_shared for i in component.reg_image_ids())
    if wrongly_shared:
        component = reconstruction.split_shared_cameras(component, wrongly_shared)
        bundle_adjustment.adjust_bundle(component, job["threads"], set())
    bundle_adjustment.adjust_bundle(component, job["threads"], moved)
    half_shifts = [[shift.first_half.tolist(), shift.second_half.tolist()] for shift in shifts.values()]
    saved = _save(component, Path(job["output"]))
    return {"component": saved, "moved": sorted(moved), "tried": half_shifts, "n_split": n_split}


def export_models(job: StepArguments) -> StepArguments:
    """Write models for other tools: without dropped photos, in the world frame, under the photos' own names."""
    for entry in job["models"]:
        component = pycolmap.Reconstruction(entry["path"])
        reconstruction.keep_photos_only(component, set(entry["photo_ids"]))
        reconstruction.transform_to_world(component, entry["world_from_sfm"])
        for image in component.images.values():
            image.name = job["names"][image.image_id - 1]
        Path(entry["output"]).mkdir(parents=True, exist_ok=True)
        component.write(entry["output"])
    return {}


def _save(component: pycolmap.Reconstruction, path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    component.write(path)
    write_sparse_model(path / "model.npz", reconstruction.to_sparse_model(component))
    return str(path)


COLMAP_STEPS = {
    step.__name__: step
    for step in (
        import_images,
        extract_features,
        set_cameras,
        delete_pairs,
        match_images,
        verify_matches,
        map_images,
        triangulate,
        refine_model,
        refine_poses,
        export_models,
    )
}


def main(job_path: str, result_path: str) -> None:
    """Run the job and write its result, or the error message of the library."""
    exit_with_parent()
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    pycolmap.logging.alsologtostderr = True
    pycolmap.set_random_seed(job["seed"])
    try:
        result = COLMAP_STEPS[job["step"]](job)
    except (RuntimeError, ValueError, OSError) as error:
        result = {"error": str(error).strip() or type(error).__name__}
    part = Path(result_path).with_suffix(".partial")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(result_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
