"""The stage on photos of the ball scene: depths that are right, and work that goes on where it stopped."""

import numpy as np
import pytest
import torch

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors import estimation
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stage import PRIORS
from quoin.stages.priors.stereo import depth_maps, patchmatch
from quoin.stages.priors.stereo.patchmatch import PatchMatch, PatchMatchParams
from tests.fixtures import ball_scene

SMALL = PriorsConfig(stereo_edge_px=96, sources=4)


@pytest.fixture
def run(tmp_path, monkeypatch):
    params = PatchMatchParams(chunk_pixels_cpu=1 << 10, n_sweep_planes=16)  # enough for a small scene, and faster
    monkeypatch.setattr(patchmatch, "PATCHMATCH_PARAMS", params)
    return ball_scene.make_run(tmp_path, n_photos=6, width=96, height=72)


def error_share(run, index):
    """Relative error of the believed depths of a photo, where the scene is."""
    depth, level = priors.read_depth(run, index)
    posed = posed_images.read_posed(run)
    origin, directions = rays_world(
        posed.cam_from_world[index], posed.intrinsics[index] / 2**level, pixel_grid(depth.shape[1], depth.shape[0])
    )
    true = (ball_scene.cast(origin, directions) * (directions @ posed.cam_from_world[index, 2, :3])).reshape(
        depth.shape
    )
    known = (depth > 0) & np.isfinite(true)
    return np.abs(depth - true)[known] / true[known]


def test_the_first_look_is_at_small_pictures_whatever_the_size_of_the_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(depth_maps, "STEREO_PARAMS", depth_maps.StereoParams(coarsest_edge_px=16))
    run = ball_scene.make_run(tmp_path, n_photos=3, width=160, height=120, n_points=60)
    found = depth_maps.StereoPhotos(run, PriorsConfig(stereo_edge_px=80), "cpu")
    assert (found.coarsest_level[0], found.finest_level[0]) == (4, 1)
    view = found.view(0, found.coarsest_level[0])
    assert view.gray.shape == (7, 10)
    whole = found.view(0, 0)
    assert torch.allclose(view.intrinsics, whole.intrinsics / 16)
    assert float(view.gray.mean()) == pytest.approx(float(whole.gray.mean()), abs=0.01)


def test_a_photo_is_searched_in_as_many_as_are_asked_for(run, monkeypatch):
    asked, chosen = [], depth_maps.source_photos
    monkeypatch.setattr(depth_maps, "source_photos", lambda *given: asked.append(given[-1]) or chosen(*given))
    for n in (8, 12):
        depth_maps.StereoPhotos(run, PriorsConfig(stereo_edge_px=64, sources=n), "cpu")
    assert asked == [10, 12]


@pytest.mark.slow
def test_planes_of_a_worker_that_was_killed_are_found_again_from_the_beginning(run, monkeypatch):
    found = depth_maps.StereoPhotos(run, SMALL, "cpu")
    for number in range(2):
        for work in (found.search, found.filter_consistent):
            for index in found.depth_photos:
                work(index, number)
    arrays.delete_node(run.scene, "priors/000000/planes")  # as where it was killed while it wrote the next ones
    swept = []
    plane_sweep = PatchMatch.plane_sweep
    monkeypatch.setattr(
        PatchMatch, "plane_sweep", lambda self, up: swept.append(tuple(self.view.gray.shape)) or plane_sweep(self, up)
    )
    found.search(0, 2)
    assert swept == [tuple(found.view(0, found.coarsest_level[0]).gray.shape)]
    assert priors.count_hypothesis_passes(run, 0, "planes") == 3


def test_believed_depths_are_right(run):
    result = PRIORS(run, SMALL, Reporter())
    assert result.n_depth_maps == len(posed_images.read_posed(run))
    assert result.consistent_share > 0.2
    assert result.median_consistent_views >= 1
    errors = np.concatenate([error_share(run, i) for i in range(result.n_depth_maps)])
    assert np.median(errors) < 0.005
    assert np.mean(errors < 0.03) > 0.9


@pytest.mark.slow
def test_work_that_was_stopped_goes_on(run, monkeypatch):
    searched = []

    def start(self, planes):
        searched.append(len(searched))
        if len(searched) == 5:
            raise KeyboardInterrupt
        return untouched(self, planes)

    untouched = PatchMatch.start
    monkeypatch.setattr(PatchMatch, "start", start)
    monkeypatch.setattr(depth_maps, "PATCHMATCH_PASSES", depth_maps.PATCHMATCH_PASSES[1:3])
    monkeypatch.setattr(depth_maps, "STEREO_STEPS", depth_maps.STEREO_STEPS[:4])
    with pytest.raises(KeyboardInterrupt):
        PRIORS(run, SMALL, Reporter())
    assert run.manifest("priors") is None
    events = []
    resumed = PRIORS(run, SMALL, Reporter(events.append))
    n = len(posed_images.read_posed(run))
    assert (
        len(searched) == 5 + (len(depth_maps.PATCHMATCH_PASSES) - 1) * n - 4
    )  # nothing was searched twice but what was interrupted
    first = {i: priors.read_depth(run, i)[0] for i in range(n)}
    run.invalidate("priors")
    again = PRIORS(run, SMALL, Reporter())
    assert again.consistent_share == resumed.consistent_share
    for i, depth in first.items():
        np.testing.assert_array_equal(priors.read_depth(run, i)[0], depth)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_semantic_model_labels_photos_and_another_one_labels_them_anew(run, tmp_path):
    class Everywhere(torch.nn.Module):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            return torch.full(picture[0, :1].shape, self.index)

    path = tmp_path / "net.pt"
    config = PriorsConfig(stereo_edge_px=0, semantic_model=str(path))
    for index, shown in ((2, labels.SKY), (12, labels.TRANSIENT)):
        torch.jit.script(Everywhere(index)).save(str(path))
        PRIORS(run, config, Reporter())
        for photo in range(len(posed_images.read_posed(run))):
            found = priors.read_labels(run, photo)
            assert found is not None
            assert (found[0] == shown).all()
    path.unlink()
    with pytest.raises(QuoinError, match="semantic model cannot be read"):
        PRIORS(run, config, Reporter())


@pytest.mark.slow
def test_what_it_worked_with_goes_after_the_commit_and_not_before(run, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as there:
        there.setattr(Run, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            PRIORS(run, SMALL, Reporter())
    assert priors.count_hypothesis_passes(run, 0, "planes") == len(depth_maps.PATCHMATCH_PASSES)
    with monkeypatch.context() as there:
        there.setattr(PatchMatch, "__init__", killed)  # nothing is searched again
        PRIORS(run, SMALL, Reporter())
    assert priors.count_hypothesis_passes(run, 0, "planes") == 0
    assert priors.read_depth(run, 0) is not None
    run.scene["priors"].attrs["in_progress"] = "killed between commit and this"
    priors.write_hypotheses(run, 0, "planes", np.ones((3, 2, 2)), 0, n_passes=4)
    PRIORS(run, SMALL, Reporter())
    assert priors.count_hypothesis_passes(run, 0, "planes") == 0


def test_without_stereo_nothing_is_left_of_it(run):
    priors.write_depth(run, 0, np.ones((4, 4), np.float32), 0)
    assert PRIORS(run, PriorsConfig(stereo_edge_px=0), Reporter()).n_depth_maps == 0
    assert priors.read_depth(run, 0) is None


def test_sky_and_what_passes_have_no_depth(run, monkeypatch):
    shown = np.zeros((36, 48), np.uint8)  # of half the photo's size
    shown[:, 10:20], shown[:, 28:38] = labels.SKY, labels.TRANSIENT
    monkeypatch.setattr(estimation, "label_sky", lambda run, report: priors.write_labels(run, 2, shown, 1))
    monkeypatch.setattr(depth_maps, "PATCHMATCH_PASSES", depth_maps.PATCHMATCH_PASSES[2:])
    monkeypatch.setattr(depth_maps, "STEREO_STEPS", depth_maps.STEREO_STEPS[:4])
    result = PRIORS(run, SMALL, Reporter())
    depth, level = priors.read_depth(run, 2)
    assert level == 0
    assert not depth[:, 20:40].any()
    assert not depth[:, 56:76].any()
    assert depth.any()
    np.testing.assert_array_equal(priors.read_labels(run, 2)[0], shown)
    assert (result.sky_photos, result.sky_share) == (1, pytest.approx(10 / 48))
