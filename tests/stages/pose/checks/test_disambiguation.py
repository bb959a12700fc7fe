"""A house with two equal facades, photographed all around: without care its front and back come to lie in one place."""

from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.stages.pose.checks.ambiguity import compare_photos, find_conflicting_side
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.mapping import load_component
from quoin.stages.pose.sfm import estimate_poses
from quoin.stages.pose.workspace import Workspace
from tests.stages.pose.room import ingested, save
from tests.stages.pose.square import LENS, cameras_all_around, render, square

N = 20
TRUTH = cameras_all_around(N)


def n_misplaced(model: SparseModel) -> int:
    """Photos turned by over 10 degrees from where most are right."""
    turned = np.einsum("nij,nik->njk", TRUTH[model.photo_ids, :, :3], model.cam_from_sfm[:, :, :3])
    cosine = (np.einsum("nij,mij->nm", turned, turned) - 1) / 2
    return len(turned) - int((cosine > np.cos(np.radians(10))).sum(axis=1).max())


@pytest.mark.slow
@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_equal_facades_do_not_fold(mapper: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = []
    for index, pose in enumerate(TRUTH):
        path = tmp_path / "photos" / f"{index:02d}.jpg"
        save(path, render(pose, square()))
        rows.append({"path": str(path), "focal_px": LENS.params[0]})
    run = ingested(tmp_path / "run", rows)
    config = PoseConfig(max_edge_px=400, max_features=900, threads=1, mapper=mapper)
    found = estimate_poses(Workspace(run, config, Reporter()), config, read_photo_table(run, used_only=True))
    first = load_component(str(run.path / "work" / "pose" / f"{mapper}-database" / "component0"), 15).filtered.model
    assert n_misplaced(first) >= 5  # the mapper alone folds it
    assert find_conflicting_side(compare_photos(first), len(first.photo_ids)) is not None
    assert n_misplaced(found.components[0].filtered.model) == 0
    assert found.components[0].n_photos >= N / 2
    assert "were laid over others" in found.warnings[0]
