"""Cameras that training corrects: their geometry, their slopes, what is gained on wrong poses; and off means off."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.losses import LossWeightsConfig
from quoin.fields.rays import RaySamples, RenderOutput
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, project
from quoin.pipeline.scene import posed_images
from quoin.stages.train import block_training, camera_refinement, trainer
from quoin.stages.train.camera_refinement import (
    IMAGE_RADIUS_FOCAL,
    PRIOR_WEIGHT_PER_PX2,
    REFINEMENT_START_SHARE,
    RELATIVE_DEPTH_RANGE,
    CameraRefinement,
    refine_patches,
)
from quoin.stages.train.config import LearningRateConfig, SdfCacheConfig, TrainConfig
from quoin.stages.train.photoconsistency import best_views_loss, extract_patches, ncc, warp_patches
from quoin.stages.train.step import LOSS_STATS, photoconsistency_loss
from tests.fixtures import ball_scene

N_PHOTOS = 9
SMALL = TrainConfig(
    steps=120,
    rays=256,
    points=64,
    patches=256,
    sampler=GuidedSamplerConfig(samples=12),
    sdf_cache=SdfCacheConfig(resolution=48),
    encoding=HashEncodingConfig(levels=5, max_resolution=64, log2_table=11),
)
TINY = SMALL.model_copy(update={"steps": 40, "rays": 64, "points": 64, "patches": 32})
REFINED = {"lr": LearningRateConfig(cameras=0.1)}


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cameras")
    made = ball_scene.make_run(folder, n_photos=N_PHOTOS, width=240, height=180, n_points=250)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, config):
    return ball_scene.start(run, config)[0]


def unit(vector):
    return vector / np.linalg.norm(vector)


def random_cameras(rng, k=3):
    pose = np.concatenate([Rotation.random(k, rng).as_matrix(), rng.normal(0, 1, (k, 3, 1)) + [[0], [0], [3]]], axis=2)
    intrinsics = np.array([[200.0, 210.0, 80.0, 60.0], [150.0, 150.0, 64.0, 50.0], [200.0, 210.0, 80.0, 60.0]])[:k]
    return CameraRefinement(pose, intrinsics, rng.uniform(1.5, 4.0, k)).double(), pose, intrinsics


# -- geometry --------------------------------------------------------------------------------------------------------


def test_without_a_correction_the_cameras_are_those_given_and_what_they_see_through_fits_together():
    cameras, pose, intrinsics = random_cameras(np.random.default_rng(0))
    now, focal = cameras.poses()
    np.testing.assert_allclose(now.detach(), pose, atol=1e-6)
    np.testing.assert_allclose(focal.detach(), intrinsics, rtol=1e-6)
    torch.nn.init.normal_(cameras.correction, std=5.0)
    pose, intrinsics = (t.detach().numpy() for t in cameras.poses())
    np.testing.assert_allclose(
        pose[:, :, :3] @ pose[:, :, :3].transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(pose[:, :, :3]), 1.0, atol=1e-6)
    matrix, back, centers = (t.detach().numpy() for t in cameras())
    np.testing.assert_allclose(centers, centers_world(pose), atol=1e-9)
    points = np.random.default_rng(1).normal(0, 0.3, (20, 3))
    for k in range(3):
        xy, depth = project(pose[k], intrinsics[k], points)
        seen = points @ matrix[k, :, :3].T + matrix[k, :, 3]
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], xy, atol=1e-6)
        rays = np.concatenate([xy, np.ones((20, 1))], axis=1) @ back[k].T
        np.testing.assert_allclose(centers[k] + rays * depth[:, None], points, atol=1e-6)


def test_photos_of_one_camera_share_their_zoom_and_others_do_not():
    cameras, _, given = random_cameras(np.random.default_rng(2))
    cameras.correction.data[:, 6] = torch.tensor([3.0, 1.0, 5.0])
    grown = cameras.poses()[1].detach().numpy()[:, :2] / given[:, :2]
    expected = np.exp(IMAGE_RADIUS_FOCAL**-1 * np.array([4.0 / 205.0, 1.0 / 150.0, 4.0 / 205.0]))
    np.testing.assert_allclose(grown, expected[:, None].repeat(2, axis=1), rtol=1e-6)


@pytest.mark.parametrize("number", range(7))
def test_a_unit_of_each_number_moves_the_picture_by_about_a_pixel(number):
    cameras, pose, intrinsics = random_cameras(np.random.default_rng(3))
    cameras.correction.data[:, number] = 1.0
    moved = cameras.displacement_px().numpy()
    assert ((moved > 0.5) & (moved < 2.0)).all()
    side = IMAGE_RADIUS_FOCAL * np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
    now, focal = (t.detach().numpy() for t in cameras.poses())
    for k in range(3):  # against points one by one
        directions = np.concatenate([side, np.ones((5, 1))], axis=1)
        depths = float(cameras.depth[k]) * np.array([1 - RELATIVE_DEPTH_RANGE, 1, 1 + RELATIVE_DEPTH_RANGE])
        points = (depths[:, None, None] * directions).reshape(-1, 3)
        local = (points - pose[k, :, 3]) @ pose[k, :, :3]
        shift = project(now[k], focal[k], local)[0] - project(pose[k], intrinsics[k], local)[0]
        assert moved[k] == pytest.approx(np.sqrt((shift**2).sum(axis=1).mean()), rel=1e-5)


def test_the_slope_of_the_patch_loss_by_each_correction_is_that_of_finite_differences(run):
    """With the true surface, in double precision; off the minimum, where slopes are not 0."""
    made = start(run, TINY.model_copy(update=REFINED))
    photos, cameras = made.photos.double(), made.camera_refinement.double()
    photos.tile_cdf = photos.tile_cdf.double()
    torch.manual_seed(0)
    cameras.correction.data = torch.randn_like(cameras.correction)
    cameras.write_to(photos)
    pixels = photos.draw_pixels(60, torch.Generator().manual_seed(1))
    origins, directions = photos.rays(pixels[:, 0], pixels[:, 1:].double() + 0.5)
    patches = extract_patches(photos, pixels, torch.rand(60, photos.sources.shape[1]).double(), torch.tensor(0), 4)
    height = torch.tensor([0.0, 0.0, -1.0]).double() @ (origins + torch.tensor([0.0, 0.0, 0.4]).double()).T
    normal = torch.tensor([[0.0, 0.0, 1.0]]).double().expand(60, 3)

    def loss():
        warped, center = refine_patches(cameras, patches, pixels[:, 0])
        seen, inside = warp_patches(warped, photos.gray, height - (normal * (center - origins)).sum(dim=1), normal)
        cost = 1.0 - ncc(warped.reference[:, None], seen)
        return best_views_loss(cost, warped.usable[:, None] & inside, 2, 2.5)[0]

    assert directions.dtype == torch.float64
    loss().backward()
    slope = cameras.correction.grad.clone()
    assert (slope.abs().max(dim=0).values > 1e-5).all()
    step = 1e-6
    with torch.no_grad():
        for k, number in [(k, number) for k in (0, 4) for number in range(7)]:
            found = []
            for sign in (1, -1):
                cameras.correction[k, number] += sign * step
                found.append(float(loss()))
                cameras.correction[k, number] -= sign * step
            assert float(slope[k, number]) == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-3, abs=1e-7)


# -- training --------------------------------------------------------------------------------------------------------


def spoilt(posed, focal):
    """The poses, each turned by 0.5 degrees and moved by 2 cm along random axes, and another focal length."""
    rng = np.random.default_rng(1)
    pose = posed.cam_from_world.copy()
    for k, center in enumerate(centers_world(pose)):
        pose[k, :, :3] = Rotation.from_rotvec(np.radians(0.5) * unit(rng.normal(size=3))).as_matrix() @ pose[k, :, :3]
        pose[k, :, 3] = -pose[k, :, :3] @ (center + 0.02 * unit(rng.normal(size=3)))
    return dataclasses.replace(posed, cam_from_world=pose, intrinsics=posed.intrinsics * [focal, focal, 1.0, 1.0])


def errors_px(poses, intrinsics, true):
    """How far from where it is each photo shows the points it sees: root mean square, after a similarity of the world.

    The surface alone does not hold the world: all cameras may turn together about the ball's axis.
    """
    photo, point = true.track_photo[::5], true.track_point[::5]
    right = true.track_xy[::5]

    def wrong(similarity):
        turn = np.exp(similarity[6]) * Rotation.from_rotvec(similarity[:3]).as_matrix()
        points = (true.points_world @ turn.T + similarity[3:6])[point]
        camera = np.einsum("tij,tj->ti", poses[photo, :, :3], points) + poses[photo, :, 3]
        return camera[:, :2] / camera[:, 2:] * intrinsics[photo, :2] + intrinsics[photo, 2:] - right

    square = (wrong(least_squares(lambda x: wrong(x).ravel(), np.zeros(7)).x) ** 2).sum(axis=1)
    return np.array([np.sqrt(square[photo == k].mean()) for k in range(len(poses))])


@pytest.fixture
def wrong(run):
    """The run with wrong cameras, and the true ones."""
    true = posed_images.read_posed(run)
    posed_images.write_posed(run, spoilt(true, 1.01))
    yield run, true
    posed_images.write_posed(run, true)


def rendered(sdf, gradient):
    """A rendering of which only SDF and gradient matter."""
    none, no_points = torch.zeros(len(sdf), 3), torch.zeros(0, 3)
    return RenderOutput(none, none, none[:, 0], none[:, 0], none, sdf, gradient, no_points[:, 0], no_points)


def true_surface(frame):
    """A loss in place of the field's, with the patches on the true surface: what is left is the cameras.

    A ball of 50 pixels bends away from patches, which are planes: it is why the cameras become no better than that.
    """

    def compute_loss(model, data, step):
        rays, patches, cameras = step.samples.rays, step.patches, data.cameras
        n = len(patches.usable)
        origins, directions = rays.origins[:n].double().numpy(), rays.directions[:n].double().numpy()
        origins = origins * frame.radius_m + frame.center_world
        reach = np.concatenate([ball_scene.cast(o, d[None]) for o, d in zip(origins, directions, strict=True)])
        met = np.isfinite(reach)
        reach[~met] = 1.0
        points = origins + reach[:, None] * directions
        away = (points - ball_scene.BALL_CENTRE) / ball_scene.BALL_RADIUS
        normal = np.where(points[:, 2:] > 1e-5, away, [0.0, 0.0, 1.0])
        sides = torch.tensor(reach / frame.radius_m)[:, None] + torch.tensor([-1e-3, 1e-3])
        sdf = torch.tensor([1e-3, -1e-3]) * torch.tensor(met)[:, None]
        out = rendered(sdf, torch.tensor(normal)[:, None].expand(-1, 2, -1).float())
        patches, center = refine_patches(cameras, patches, step.batch.pixels[:n, 0])
        samples = RaySamples(rays[:n], sides.float(), sides.float())
        term, used = photoconsistency_loss(data.photos, samples, patches, out, center)
        loss = term + cameras.prior_loss()
        terms = torch.zeros(len(LOSS_STATS))
        terms[[LOSS_STATS.index("photoconsistency"), LOSS_STATS.index("photoconsistency_used")]] = torch.stack(
            [term, used]
        ).detach()
        nothing = torch.full_like(step.samples.t, torch.nan)
        return loss, terms, rendered(nothing, nothing[..., None].expand(-1, -1, 3))

    return compute_loss


@pytest.mark.slow
def test_wrong_cameras_and_a_wrong_focal_length_become_right(wrong):
    run, true = wrong
    made, frame = ball_scene.start(run, SMALL.model_copy(update=REFINED))
    made._loss = true_surface(frame)
    found = []
    for _ in range(2):
        poses, intrinsics = (t.detach().double().numpy() for t in made.camera_refinement.poses())
        found.append((errors_px(frame.to_cam_from_world(poses), intrinsics, true), intrinsics[0, 0]))
        for _ in range(SMALL.steps - made.step):
            made.train_step()
    (before, wrong_focal), (after, focal) = found
    assert np.median(before) > 1.0
    assert np.median(after) < 0.45 * np.median(before)
    assert after.max() < 0.5 * before.max()
    assert abs(focal / true.intrinsics[0, 0] - 1) < 0.4 * abs(wrong_focal / true.intrinsics[0, 0] - 1)


def test_few_patches_do_not_carry_a_photo_away(run):
    """The prior is all there is of a photo that is not compared with any, and holds what a few chances would move."""
    made = start(run, TINY.model_copy(update=REFINED))
    made.camera_refinement.correction.data[0] = 1.0
    loss = made.camera_refinement.prior_loss()
    assert float(loss.detach()) == pytest.approx(PRIOR_WEIGHT_PER_PX2 * 7.0 / N_PHOTOS)
    loss.backward()
    assert (made.camera_refinement.correction.grad[0] > 0).all()
    assert (made.camera_refinement.correction.grad[1:] == 0).all()


def test_cameras_stay_until_the_surface_is_there_and_the_photos_look_through_them_after(run):
    made = start(run, TINY.model_copy(update=REFINED))
    given = made.photos.centers.clone()
    for _ in range(int(REFINEMENT_START_SHARE * TINY.steps)):
        made.train_step()
    assert torch.equal(made.photos.centers, given)
    for _ in range(3):
        made.train_step()
    assert not torch.equal(made.photos.centers, given)
    for buffer, values in zip(
        ("pixel_from_local", "local_from_pixel", "centers"), made.camera_refinement(), strict=True
    ):
        assert torch.equal(getattr(made.photos, buffer), values)


def test_at_rate_0_nothing_is_trained_or_kept(run):
    made = start(run, TINY)
    assert made.camera_refinement is None
    assert "camera_refinement" not in made.state_dict()
    before = {name: buffer.clone() for name, buffer in made.photos.named_buffers()}
    for _ in range(12):
        made.train_step()
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.photos.named_buffers())


def test_a_training_that_was_stopped_goes_on_to_the_last_bit(run, tmp_path):
    config = TINY.model_copy(update=REFINED)
    whole, first = start(run, config), start(run, config)
    for made, n in ((whole, 24), (first, 16)):
        for _ in range(n):
            made.train_step()
    block_training.save_checkpoint(tmp_path, first.state_dict(), "key")
    second = start(run, config)
    second.load_state_dict(block_training.load_checkpoint(tmp_path, "key"))
    for _ in range(8):
        second.train_step()
    one, other = whole.state_dict(), second.state_dict()
    assert float(one["camera_refinement"].abs().max()) > 0.0
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert torch.equal(whole.photos.pixel_from_local, second.photos.pixel_from_local)
    with pytest.raises(QuoinError, match="with camera_refinement"):
        start(run, TINY).load_state_dict(one)


def test_a_step_that_is_not_finite_leaves_the_cameras(run):
    made = start(run, TINY.model_copy(update=REFINED))
    made.step = TINY.steps // 2
    made.train_step()
    kept = made.camera_refinement.correction.detach().clone()
    assert float(kept.abs().max()) > 0.0
    made.data.supervision.weight.fill_(torch.nan)
    made.train_step()
    assert torch.equal(made.camera_refinement.correction, kept)


def test_cameras_without_patches_are_refused():
    with pytest.raises(QuoinError, match="Cameras are refined by comparing patches"):
        TrainConfig(losses=LossWeightsConfig(photoconsistency=0.0), **REFINED)


# -- what is kept and told -------------------------------------------------------------------------------------------


def test_corrected_cameras_are_kept_in_the_world_and_far_ones_named(run, tmp_path):
    made, frame = ball_scene.start(run, TINY.model_copy(update=REFINED))
    true = posed_images.read_posed(run)
    found = camera_refinement.refined_camera_rows(
        made.camera_refinement, frame, true.names, np.zeros(len(true.names), np.int64)
    )
    np.testing.assert_allclose([row["cam_from_world"] for row in found], true.cam_from_world.reshape(-1, 12), atol=1e-5)
    np.testing.assert_allclose([row["intrinsics"] for row in found], true.intrinsics, rtol=1e-6)
    assert max(row["rotation_deg"] for row in found) < 1e-4
    made.camera_refinement.correction.data[3, 0], made.camera_refinement.correction.data[4, 3] = 2.0, 20.0
    found = camera_refinement.refined_camera_rows(
        made.camera_refinement, frame, true.names, np.zeros(len(true.names), np.int64)
    )
    pose = np.array(found[3]["cam_from_world"]).reshape(3, 4)
    between = Rotation.from_matrix(pose[:, :3] @ true.cam_from_world[3, :, :3].T)
    assert found[3]["rotation_deg"] == pytest.approx(np.degrees(between.magnitude()), rel=1e-3)
    assert found[3]["rotation_deg"] == pytest.approx(
        np.degrees(2.0 * float(made.camera_refinement.unit_per_px[3, 0])), rel=1e-3
    )
    px = float(made.camera_refinement.depth[4]) * frame.radius_m / true.intrinsics[4, 0]
    assert found[4]["translation_m"] == pytest.approx(20.0 * px, rel=1e-3)
    events = []
    camera_refinement.write_refined_cameras(tmp_path / "cameras.parquet", found, Reporter(events.append), "train/b000")
    assert next(e["message"] for e in events if e["level"] == "warning").endswith("4.jpg")
    again = pq.read_table(tmp_path / "cameras.parquet").to_pylist()
    assert again == found
