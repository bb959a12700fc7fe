"""The pose stage: photos in, posed and undistorted photos, points and tracks out.

Besides what ``scene.posed_images`` holds it writes tables/poses.parquet, tables/pairs.parquet, and ``sparse/``:
COLMAP models (the component in use as ``sparse/0``, others as ``sparse/1`` and so on) with the photos' own names and
their distorted cameras at the upright photo's full size. ``sparse/0`` is in the world frame, each other in its own.
What ``quoin export`` writes are undistorted photos with pinhole cameras.
"""

from __future__ import annotations

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.pose.camera_files import pose_cache_inputs
from quoin.stages.pose.config import NEEDS, VERSION, PoseConfig, PoseResult
from quoin.stages.pose.hands import Workers


def find_poses(run: Run, config: PoseConfig, report: Reporter, workers: Workers | None = None) -> PoseResult:
    """Pose the photos that ingest left; QuoinError where no two of them overlap.

    ``hands``: who shares in features, matches and undistortion; None does all here.
    """
    from quoin.stages.pose.known_poses import triangulate_known_poses
    from quoin.stages.pose.output import write_outputs
    from quoin.stages.pose.pairing.shared_matching import remove_exported_features
    from quoin.stages.pose.sfm import estimate_poses
    from quoin.stages.pose.workspace import Workspace

    photos = read_photo_table(run, used_only=True)
    if len(photos) < (2 if config.known_poses else 3):  # the focal length cannot be told from two
        count = ("There are no usable photos", "There is one usable photo", "There are two usable photos")[len(photos)]
        raise QuoinError(
            f"{count}; poses need three that overlap, a good surface many more",
            where=run.photos,
            hint="take photos from many sides that overlap by half or more",
        )
    workspace = Workspace(run, config, report, workers)
    result = (triangulate_known_poses if config.known_poses else estimate_poses)(workspace, config, photos)
    remove_exported_features(workspace)
    return write_outputs(workspace, config, photos, result)


run = stage("pose", needs=NEEDS, version=VERSION, result=PoseResult, inputs=pose_cache_inputs)(find_poses)
