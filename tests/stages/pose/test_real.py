"""Small real photo sets, read in place; skipped where they are absent."""

from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST
from quoin.stages.pose.colmap.database import DescriptorReader
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.pairs import unique_pairs
from quoin.stages.pose.pairing.retrieval import photo_similarity
from quoin.stages.pose.sfm import estimate_poses
from quoin.stages.pose.stage import POSE
from quoin.stages.pose.workspace import Workspace

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def opened(name: str, out: Path) -> Run:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the photo set {name} is not on this machine")
    run = Run.create(
        out, photos=(folder / "images" if (folder / "images").is_dir() else folder).resolve(), settings={}, seed=0
    )
    INGEST(run, IngestConfig(), Reporter())
    return run


@pytest.mark.slow
def test_bundler_et(tmp_path: Path) -> None:
    result = POSE(opened("bundler_et", tmp_path / "run"), PoseConfig(threads=1), Reporter())
    assert result.n_registered == 9
    assert result.median_reprojection_px < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("sceaux_castle", 11), ("sacre_coeur", 10), ("cyprus", 10)])
def test_everyday_sets_are_registered_whole(name: str, count: int, tmp_path: Path) -> None:
    assert POSE(opened(name, tmp_path / "run"), PoseConfig(max_edge_px=1200), Reporter()).n_registered == count


@pytest.mark.slow
def test_measured_cameras_of_the_fountain(tmp_path: Path) -> None:
    from benchmarks.poses import pose_errors, read_strecha_cameras

    run = opened("strecha_fountain_p11", tmp_path / "run")
    result = POSE(run, PoseConfig(), Reporter())
    posed = posed_images.read_posed(run)
    truth = read_strecha_cameras(DATA / "strecha_fountain_p11" / "gt_dense_cameras")
    centre, rotation = pose_errors(posed.cam_from_world, np.array([truth[name] for name in posed.names]))
    assert result.n_refined_cameras == 1
    assert centre < 0.0005
    assert rotation < 0.1


@pytest.mark.slow
def test_retrieval_finds_most_of_what_exhaustive_matching_finds(tmp_path: Path) -> None:
    run = opened("kitchen", tmp_path / "run")
    config = PoseConfig(max_edge_px=640, max_features=1500)
    found = estimate_poses(Workspace(run, config, Reporter()), config, read_photo_table(run, used_only=True))
    strong = {tuple(pair) for pair in found.pairs[found.pairs[:, 3] >= 60, :2].tolist()}
    reader = DescriptorReader(run.path / "work" / "pose" / "database.db")
    alike = photo_similarity(reader, 25, 100, seed=0).toarray()
    reader.close()
    best = np.argsort(-alike, axis=1)[:, :8]
    proposed = unique_pairs(np.stack([np.repeat(np.arange(25), 8), best.ravel()], axis=1))
    share = len(proposed) / (25 * 24 / 2)
    recall = len(strong & {tuple(pair) for pair in proposed.tolist()}) / len(strong)
    assert share < 0.5
    assert recall > 0.8
