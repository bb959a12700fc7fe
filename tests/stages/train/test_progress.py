"""What training tells on the way: movement of the surface, previews, numbers; and that it stops when nothing moves."""

import numpy as np
import pytest
import torch

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.fields.sdf_grids import DenseSdf
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import block_folder
from quoin.pipeline.storage.layout import DamagedError
from quoin.stages.train import loop, preview, trainer
from quoin.stages.train.block_training import train_block
from quoin.stages.train.config import LearningRateConfig, SdfCacheConfig, TrainConfig
from quoin.stages.train.loop import FINAL_PHASE_START, MAX_CHECK_POINTS, SurfaceDrift, sample_near_surface
from tests.fixtures import ball_scene

TINY = TrainConfig(
    steps=40,
    rays=64,
    points=32,
    patches=16,
    sampler=GuidedSamplerConfig(samples=8),
    sdf_cache=SdfCacheConfig(resolution=32),
    encoding=HashEncodingConfig(levels=4, max_resolution=48, log2_table=10),
    measure_every=20,
)
STILL = LearningRateConfig(grid=1e-9, surface=1e-9, other=1e-3)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("progress"), n_photos=6, width=80, height=60, n_points=100)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, config=TINY):
    return ball_scene.start(run, config)[0]


def sphere(radius):
    return lambda points: points.norm(dim=1) - radius


# -- movement --------------------------------------------------------------------------------------------------------


def ball_volume(radius=0.5):
    volume = DenseSdf.over_box(torch.ones(3), 48)
    volume.refresh(sphere(radius))
    return volume


def test_samples_near_the_surface_are_where_they_say():
    volume = ball_volume()
    points = sample_near_surface(volume, torch.Generator().manual_seed(0))
    assert 1000 < len(points) <= MAX_CHECK_POINTS
    assert float(sphere(0.5)(points).abs().max()) < float(volume.spacing) + 1e-5
    index = (points - volume.low) / volume.spacing
    torch.testing.assert_close(index, index.round(), atol=1e-4, rtol=0)


def test_a_ball_that_grows_moves_by_what_it_grows_and_one_that_is_right_does_not():
    volume, voxel = ball_volume(), 0.02
    surface_drift = SurfaceDrift(voxel)
    assert surface_drift.update(volume, sphere(0.5), 0.1) is None
    assert surface_drift.update(volume, sphere(0.505), 0.1) == pytest.approx(0.25, rel=1e-3)
    assert surface_drift.n_stable == 0
    for k in range(1, 4):
        assert surface_drift.update(volume, sphere(0.505), 0.1) == pytest.approx(0.0, abs=1e-4)
        assert surface_drift.n_stable == k
    surface_drift.update(volume, sphere(0.51), 0.1)
    assert surface_drift.n_stable == 0


def test_a_bulge_on_a_tenth_of_the_surface_counts_as_movement():
    def bulge(points):
        return points.norm(dim=1) - 0.5 - 0.01 * (points[:, 2] > 0.4).float()  # a cap of a tenth of the sphere

    surface_drift = SurfaceDrift(0.02)
    surface_drift.update(ball_volume(), sphere(0.5), 0.1)
    assert surface_drift.update(ball_volume(), bulge, 0.1) == pytest.approx(0.5, rel=1e-2)


def test_without_a_surface_there_is_nothing_to_compare():
    empty, surface_drift = DenseSdf.over_box(torch.ones(3), 32, fill=1.0), SurfaceDrift(0.02)
    for _ in range(3):
        assert surface_drift.update(empty, sphere(0.5), 1.0) is None
    assert surface_drift.n_stable == 0


def train(run, config, tmp_path):
    events, made = [], start(run, config)
    show = lambda step, rgb: preview.save_preview_image(tmp_path, step, rgb)  # noqa: E731
    log = loop.MetricLog(tmp_path / "log.parquet")
    loop.run_training(
        made, config, Reporter(events.append), "block", log, lambda t: None, save_preview=show, unit_m=1.6, voxel_m=0.05
    )
    return made, events, log


def test_curves_that_a_kill_tore_stop_nothing(tmp_path):
    log = loop.MetricLog(tmp_path / "log.parquet")
    log.load_until(5)  # there are none
    log.add(3, 1.0, {"loss": 0.5})
    log.write()
    log.add(7, 2.0, {"loss": 0.4})
    log.write()
    again = loop.MetricLog(log.path)
    again.load_until(5)
    assert [row["step"] for row in again.rows] == [3]
    log.path.write_bytes(log.path.read_bytes()[:-20])
    torn = loop.MetricLog(log.path)
    with pytest.raises(DamagedError, match="table cannot be read"):  # training goes on with a warning
        torn.load_until(5)
    assert torn.rows == []
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_training_that_moves_nothing_hurries_to_the_last_stretch(run, tmp_path):
    made, events, log = train(run, TINY.model_copy(update={"convergence": 0.05, "lr": STILL}), tmp_path)
    assert made.progress == 1.0
    assert made.step == pytest.approx(TINY.steps * (0.5 + 4 / 40 + 1.0 - FINAL_PHASE_START), abs=3)
    assert made.optimizer.param_groups[0]["lr"] < 0.1 * STILL.other  # the schedules came to their end
    assert any("has converged" in e.get("message", "") for e in events)
    moved = [row["value"] for row in log.rows if row["name"] == "drift_voxels"]
    assert max(moved) < 0.01


@pytest.mark.parametrize("config", [{"convergence": 0.05}, {"lr": STILL}], ids=["moving", "not asked to"])
def test_training_goes_on_where_it_moves_or_is_not_asked_to_stop(run, tmp_path, config):
    rates = {"lr": LearningRateConfig(grid=5e-2, surface=5e-3, final_factor=1.0)}
    made, events, _ = train(run, TINY.model_copy(update={**rates, **config}), tmp_path)
    assert made.step == TINY.steps
    assert not any("has converged" in e.get("message", "") for e in events)


def test_what_was_left_out_is_remembered(run):
    made = start(run)
    made.step = 24
    made.skip_to(FINAL_PHASE_START)
    assert made.progress == pytest.approx(FINAL_PHASE_START)
    made.skip_to(0.2)
    assert made.progress == pytest.approx(FINAL_PHASE_START)
    again = start(run)
    again.load_state_dict(made.state_dict())
    assert again.progress == pytest.approx(FINAL_PHASE_START)


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_time_left_is_that_of_steps_or_budget_whichever_ends_first(run):
    made = start(run)
    made.step = 10
    assert made.seconds_left(4.0) == pytest.approx(120.0)
    made.budget_s, made.elapsed_s = 100.0, 30.0
    assert made.seconds_left(4.0) == pytest.approx(70.0)
    assert made.seconds_left(1.0) == pytest.approx(30.0)
    made.skip_to(FINAL_PHASE_START)
    assert made.seconds_left(4.0) == pytest.approx(10.0)  # a tenth of the budget


def test_the_error_on_sfm_points_is_the_distance_to_them(run):
    made = start(run)
    made.sdf = lambda points: torch.full((len(points),), -0.25)
    assert made.sfm_error() == pytest.approx(0.25)
    points = made.data.supervision.points
    made.sdf = lambda points: points[:, 0]
    sfm = points[made.data.supervision.sfm > 0]
    assert made.sfm_error() == pytest.approx(float(sfm[:, 0].abs().median()))
    made.data.supervision.sfm.zero_()
    assert made.sfm_error() is None


def test_a_block_tells_loss_psnr_samples_surface_error_movement_and_time_left(run):
    events = []
    train_block(run, TINY, Reporter(events.append), "b000", "cpu")
    told = {name for e in events if e["kind"] == "metrics" for name in e["values"]}
    expected = {"loss", "heldout_psnr_db", "samples_per_ray", "sfm_error_m", "drift_voxels", "seconds_left"}
    assert expected <= told
    left = [e["values"]["seconds_left"] for e in events if e["kind"] == "metrics" and "seconds_left" in e["values"]]
    assert left[0] > left[-1] == 0.0
    pictures = [e for e in events if e["kind"] == "picture"]
    assert [e["caption"] for e in pictures] == ["train/b000, step 40: photo, rendering, normals"]
    folder = block_folder(run, "b000") / preview.PREVIEW_FOLDER
    assert [p.name for p in folder.iterdir()] == ["000040.jpg"]


# -- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_shows_photo_rendering_and_normals(run):
    made = start(run)
    rgb = preview.render_preview(made, 1e9)
    assert rgb.shape == (60, 3 * 80, 3)
    photo = preview.best_photo(made.photos)
    assert np.array_equal(rgb[:, :80], posed_images.read_photo(run, photo))
    normals = rgb[:, 160:].astype(float) / 255.0 * 2.0 - 1.0
    found = (rgb[:, 160:] != 255).any(axis=2)
    assert found.mean() > 0.2
    np.testing.assert_allclose(np.linalg.norm(normals[found], axis=1), 1.0, atol=0.02)
    assert np.median(normals[found], axis=0)[2] > 0.3  # towards the camera


def test_normals_are_coloured_as_the_camera_sees_them():
    focal = torch.diag(torch.tensor([1 / 50.0, 1 / 40.0, 1.0]))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * torch.linalg.det(turn).sign()  # local from camera
    seen = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])  # right, up, towards the camera
    colors = preview.normal_colors(seen @ turn.T, torch.ones(3, dtype=torch.bool), turn @ focal)
    torch.testing.assert_close(colors, 0.5 + 0.5 * torch.eye(3))
    nothing = preview.normal_colors(seen, torch.zeros(3, dtype=torch.bool), focal)
    assert bool((nothing == preview.BACKGROUND_GRAY).all())


def test_a_preview_is_as_small_as_the_machine_is_slow():
    assert preview.preview_width_px(1e9, 0.75) == preview.MAX_WIDTH_PX
    assert preview.preview_width_px(0.0, 0.75) == preview.MIN_WIDTH_PX
    assert preview.preview_width_px(0.75 * 100**2, 0.75) == pytest.approx(100, abs=1)


def test_previews_of_an_attempt_that_is_not_gone_on_from_are_forgotten(tmp_path):
    for step in (0, 500, 1000):
        preview.save_preview_image(tmp_path, step, np.zeros((4, 12, 3), np.uint8))
    preview.delete_previews_after(tmp_path, 500)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.jpg", "000500.jpg"]
    preview.delete_previews_after(tmp_path / "none", 0)
