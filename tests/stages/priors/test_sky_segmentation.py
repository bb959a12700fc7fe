"""Sky on photos that are drawn: a wall with noise under a gradient; and all that is no sky though it looks like it."""

import numpy as np
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import priors
from quoin.pipeline.storage import arrays
from quoin.stages.priors.sky_labels import label_sky
from quoin.stages.priors.sky_segmentation import (
    fit_mixture,
    ray_angles_rad,
    segment_sky,
    select_reliable_points,
    upward_border,
)
from tests.fixtures import ball_scene

H, W = 120, 160
INTRINSICS = np.array([140.0, 140.0, W / 2, H / 2])
LEVEL = look_at(np.zeros(3), np.array([0.0, 1.0, 0.2]))  # looks up by 11 degrees, so that the horizon is in row 88


def picture(top: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A blue gradient with a soft cloud over a rough wall that steps down to the right; which is sky; points."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:H, :W]
    wall = row >= top + 15 * (column > 100)
    cloud = np.exp(-(((row - 15) / 9) ** 2) - ((column - 40) / 25) ** 2)[..., None]
    blue = np.array([0.45, 0.6, 0.85]) + 0.0015 * row[..., None] * np.array([1.0, 0.8, 0.2])
    sky = blue * (1 - 0.8 * cloud) + 0.8 * cloud * np.array([0.92, 0.92, 0.94])
    stone = np.array([0.5, 0.42, 0.35]) + rng.normal(0, 0.09, (H, W, 1))
    rgb = np.where(wall[..., None], stone, sky) + rng.normal(0, 0.004, (H, W, 3))
    points = rng.uniform([0, top + 20], [W, H], (150, 2))
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), ~wall, points


def found(rgb, points, pose=LEVEL):
    return segment_sky(rgb, *ray_angles_rad(pose, INTRINSICS, rgb.shape[:2]), points)


@pytest.mark.parametrize("seed", [0, 1])
def test_sky_above_a_wall_is_found_with_its_cloud(seed):
    rgb, true, points = picture(seed=seed)
    sky = found(rgb, points)
    assert (sky & true).sum() > 0.97 * true.sum()
    assert (sky & ~true).sum() < 0.01 * sky.sum()


def test_a_photo_held_sideways_or_upside_down_has_the_same_sky():
    rgb, true, points = picture()
    for turns in (1, 2, 3):
        angle = np.pi / 2 * turns
        roll = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        size = np.array([[H, W], [W, H]][turns % 2])
        turned = np.rot90(rgb, turns)
        intrinsics = np.array([140.0, 140.0, size[1] / 2, size[0] / 2])
        middle = (points - [W / 2, H / 2]) @ roll[:2, :2].T + size[::-1] / 2
        sky = segment_sky(
            np.ascontiguousarray(turned), *ray_angles_rad(roll @ LEVEL, intrinsics, turned.shape[:2]), middle
        )
        share = (sky & np.rot90(true, turns)).sum() / true.sum()
        assert share > 0.95
        assert (sky & ~np.rot90(true, turns)).sum() < 0.01 * sky.sum()


def test_the_upper_edge_is_where_up_leads_out():
    edge = upward_border(ray_angles_rad(LEVEL, INTRINSICS, (H, W))[1])
    assert edge[0].all()
    assert not edge[5:].any()


@pytest.mark.parametrize("what", ["points within", "points above", "to the ground", "looking down", "dark"])
def test_what_is_no_sky_stays_unknown(what):
    rgb, true, points = picture()
    pose = LEVEL
    if what == "points within":  # seen by others where this photo shows nothing: a white wall before them
        points = np.random.default_rng(1).uniform([0, 0], [W, H], (400, 2))
    elif what == "points above":  # a bare wall between a cornice and the ground
        points = np.concatenate([points, np.stack([np.arange(0.0, W, 2), np.full(W // 2, 1.0)], axis=1)])
    elif what == "to the ground":  # a sheet behind a statue
        rgb = np.where((np.abs(np.mgrid[:H, :W][1] - 80) < 25)[..., None] & ~true[..., None], rgb, rgb[5, 5])
    elif what == "looking down":
        pose = look_at(np.zeros(3), np.array([0.0, 1.0, -1.5]))
    else:
        rgb = np.where(true[..., None], rgb // 16, rgb)
    assert not found(rgb, points, pose).any()


def test_points_are_firm_that_three_photos_see_from_apart_and_exactly():
    centres = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]])
    points = np.array([[0.0, 10, 0], [0.0, 1000, 0], [0.0, 10, 0], [0.0, 10, 0]])  # near, a cloud, seen twice, inexact
    photo = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2])
    firm = select_reliable_points(centres, points, np.array([0.5, 0.5, 0.5, 5.0]), np.array([0, 3, 6, 8, 11]), photo)
    assert firm.tolist() == [True, False, False, False]


def test_a_mixture_is_the_density_its_colours_were_drawn_from():
    rng = np.random.default_rng(0)
    colours = np.concatenate([rng.normal(0.2, 0.05, (3000, 3)), rng.normal(0.8, 0.1, (1000, 3))])
    mixture = fit_mixture(colours, 2)
    np.testing.assert_allclose(np.sort(mixture.weights), [0.25, 0.75], atol=0.02)
    one = np.exp(mixture.log_density(np.full((1, 3), 0.2)))[0]
    assert one == pytest.approx(0.75 / (0.05 * np.sqrt(2 * np.pi)) ** 3, rel=0.2)
    grid = np.stack(np.meshgrid(*[np.linspace(-0.3, 1.5, 37)] * 3), axis=-1).reshape(-1, 3)
    assert np.exp(mixture.log_density(grid)).sum() * 0.05**3 == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("n_with_sky", "confidence", "labelled"), [(4, 0.9, 4), (2, 0.9, 0), (4, 0.2, 0)])
def test_sky_is_trusted_where_up_is_known_and_most_photos_that_look_up_show_it(
    tmp_path, monkeypatch, n_with_sky, confidence, labelled
):
    run = ball_scene.make_run(tmp_path, n_photos=5, width=32, height=24)
    run.scene.require_group("frame").attrs["gravity"] = {"up_world": [0.0, 0.0, 1.0], "confidence": confidence}
    asked = iter(range(5))

    def pretended(run, posed, firm, index):
        sky = np.zeros((24, 32), bool)
        sky[:6] = next(asked) < n_with_sky
        return sky, 0, 30.0

    monkeypatch.setattr("quoin.stages.priors.sky_labels._segment_photo", pretended)
    label_sky(run, Reporter())
    stored = [priors.read_labels(run, i) for i in range(5)]
    assert sum(s is not None for s in stored) == labelled
    for i in range(labelled - 1):  # killed while it wrote them: fewer than half of what is left has sky
        arrays.delete_node(run.scene, f"priors/{i:06d}/labels")
    asked = iter([0, 5, 5, 5, 5])
    label_sky(run, Reporter())
    assert sum(priors.read_labels(run, i) is not None for i in range(5)) == min(labelled, 2)
    assert all((s[0][:6] == labels.SKY).all() and not s[0][6:].any() for s in stored if s is not None)
