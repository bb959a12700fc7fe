"""Motion between frames is measured to a fraction of a pixel, and blur is told apart from plain walls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from quoin.stages.ingest.motion import displacement, estimate_motion, frame_sharpness, normalized_texture
from tests.stages.ingest.scenes import texture

WALL = texture(3, 600, 900)
HEIGHT, WIDTH = 192, 256


def seen(a: float = 0.0, b: float = 0.0, u: float = 0.0, v: float = 0.0) -> np.ndarray:
    """The middle of the wall after its points moved by the inverse of (a, b, u, v)."""
    turn = np.array([[1 + a, b], [-b, 1 + a]])
    middle = np.array([HEIGHT - 1, WIDTH - 1]) / 2
    start = np.array([300, 450]) + np.array([v, u]) * WIDTH - turn @ middle
    return affine_transform(WALL, turn, start, output_shape=(HEIGHT, WIDTH), order=1).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0.01, 0.0), (0.06, -0.02), (-0.2, 0.1)])
def test_a_shift_is_found(shift):
    u, v = shift
    found = estimate_motion(normalized_texture(seen()), normalized_texture(seen(u=u, v=v)))
    np.testing.assert_allclose(np.median(found, axis=0), [-u, -v], atol=1e-3)
    assert displacement(found) == pytest.approx(np.hypot(u, v), abs=1e-3)


@pytest.mark.parametrize(("a", "b"), [(0.04, 0.0), (0.0, 0.04)])
def test_zoom_and_roll_move_the_places_as_they_should(a, b):
    x, y = np.meshgrid(np.linspace(-0.4, 0.4, 5), np.linspace(-0.4, 0.4, 5) * HEIGHT / WIDTH)
    truth = np.stack([-a * x + b * y, -a * y - b * x], axis=-1).reshape(-1, 2)
    found = estimate_motion(normalized_texture(seen()), normalized_texture(seen(a=a, b=b)))
    assert np.median(np.linalg.norm(found - truth, axis=1)) < 0.003
    assert displacement(found) == pytest.approx(displacement(truth), abs=0.003)


def test_walking_around_a_thing_that_stays_in_the_middle_is_motion():
    """Its front goes one way and what is behind goes the other: the picture as a whole stays where it is."""
    around = np.hypot(*np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]) > 0.75
    first, second = (np.where(around, seen(u=u), seen(u=-u)[::-1]) for u in (0.0, 0.03))
    found = estimate_motion(normalized_texture(first), normalized_texture(second))
    assert 0.015 < displacement(found) < 0.035
    assert np.abs(np.median(found, axis=0)).max() < 0.035


def test_noise_exposure_and_a_thing_that_moves_are_no_motion():
    rng = np.random.default_rng(0)
    other = np.clip(0.7 * seen() + 20 + rng.normal(0, 5, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
    other[60:120, 80:130] = seen(u=0.3)[60:120, 80:130]
    assert displacement(estimate_motion(normalized_texture(seen()), normalized_texture(other))) < 1e-3


def test_other_things_are_told_and_a_bare_wall_tells_nothing():
    assert np.isnan(
        estimate_motion(normalized_texture(seen()), normalized_texture(texture(8, HEIGHT, WIDTH).astype(np.uint8)))
    ).all()
    bare = np.full((HEIGHT, WIDTH), 128, np.uint8)
    assert not normalized_texture(bare).any()
    assert not estimate_motion(normalized_texture(bare), normalized_texture(seen())).any()


def test_blur_in_any_direction_makes_less_sharp():
    sharp = WALL.astype(np.uint8)[:384, :512]
    along = [frame_sharpness(gaussian_filter(sharp.astype(float), (0, s)).astype(np.uint8)) for s in (0, 1, 2, 4)]
    down = [frame_sharpness(gaussian_filter(sharp.astype(float), (s, 0)).astype(np.uint8)) for s in (0, 1, 2, 4)]
    all_over = [frame_sharpness(gaussian_filter(sharp.astype(float), s).astype(np.uint8)) for s in (0, 1, 2, 4)]
    for values in (along, down, all_over):
        assert values[0] > 0.2
        assert values[0] > 1.3 * values[1] > 1.5 * values[2] > 1.8 * values[3]
        assert values[3] < 0.05
    assert frame_sharpness(np.full((384, 512), 90, np.uint8)) == 0.0
