"""The pose stage: photos in, posed and undistorted photos, points and tracks out.

Besides what ``scene.posed_images`` holds it writes tables/poses.parquet, tables/pairs.parquet, and ``sparse/``:
COLMAP models (the component in use as ``sparse/0``, others as ``sparse/1`` and so on) with the photos' own names and
their distorted cameras at the upright photo's full size. ``sparse/0`` is in the world frame, each other in its own.
What ``quoin export`` writes are undistorted photos with pinhole cameras.
"""

from __future__ import annotations

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.workers import InlineWorkers
from quoin.pipeline.scene.camera_files import hash_camera_files
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.stage import Stage, StageContext
from quoin.stages.pose.config import PoseConfig, PoseResult


def find_poses(context: StageContext, config: PoseConfig) -> PoseResult:
    """Pose the photos that ingest used; QuoinError where no two of them overlap.

    Workers share features, matches and undistortion; this process maps.
    """
    from quoin.stages.pose.known_poses import triangulate_known_poses
    from quoin.stages.pose.output import write_outputs
    from quoin.stages.pose.pairing.matching import remove_exported_features
    from quoin.stages.pose.sfm import estimate_poses
    from quoin.stages.pose.workspace import MAX_LOCAL_PHOTOS, Workspace

    run = context.run
    photos = read_photo_table(run, used_only=True)
    if len(photos) < (2 if config.known_poses else 3):  # the focal length cannot be told from two
        count = ("There are no usable photos", "There is one usable photo", "There are two usable photos")[len(photos)]
        raise QuoinError(
            f"{count}; poses need three that overlap, a good surface many more",
            where=run.photos,
            hint="take photos from many sides that overlap by half or more",
        )
    workers = context.workers if len(photos) > MAX_LOCAL_PHOTOS else InlineWorkers()
    workspace = Workspace(run, config, context.report, workers)
    result = (triangulate_known_poses if config.known_poses else estimate_poses)(workspace, config, photos)
    remove_exported_features(workspace)
    return write_outputs(workspace, config, photos, result)


POSE = Stage(
    name="pose",
    needs=("ingest",),
    version=9,
    config=PoseConfig,
    result=PoseResult,
    run=find_poses,
    inputs=lambda run, config: hash_camera_files(config.known_poses),
)
