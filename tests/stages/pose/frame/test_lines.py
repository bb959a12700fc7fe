"""The detector of straight segments against drawn pictures."""

import numpy as np
from PIL import Image, ImageDraw

from quoin.stages.pose.frame.lines import SEGMENTS, find_segments


def drawn(shapes: list[tuple[str, list, float]], size: tuple[int, int] = (320, 240), noise: float = 2.0) -> np.ndarray:
    """Filled shapes (kind, points, gray), drawn eight times as large, then averaged; noise in gray levels."""
    big = Image.new("L", (size[0] * 8, size[1] * 8), 90)
    draw = ImageDraw.Draw(big)
    for kind, points, gray in shapes:
        getattr(draw, kind)([(8 * x, 8 * y) for x, y in points], fill=int(gray))
    gray = np.asarray(big.resize(size, Image.Resampling.BOX), float)
    gray = gray + np.random.default_rng(0).normal(0, noise, gray.shape)
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def everywhere(rgb: np.ndarray) -> np.ndarray:
    return np.ones(rgb.shape[:2], bool)


def test_the_sides_of_a_turned_square_are_found_to_a_fraction_of_a_pixel() -> None:
    corners = np.array([[60.0, 50], [250, 80.5], [220.3, 200], [70.2, 170]])
    rgb = drawn([("polygon", corners.tolist(), 180)])
    segments = find_segments(rgb, everywhere(rgb))
    assert len(segments) == 4
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        off = np.abs((segments - a) @ across).max(axis=1)
        side = segments[np.argmin(off)]
        assert off.min() < 0.2
        assert np.linalg.norm(side[1] - side[0]) > 0.9 * np.linalg.norm(b - a)


def test_circles_and_noise_are_not_straight() -> None:
    rgb = drawn([("ellipse", [(100, 60), (160, 120)], 180), ("ellipse", [(200, 100), (280, 180)], 20)])
    segments = find_segments(rgb, everywhere(rgb))
    assert np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1).max(initial=0) < 1.7 * SEGMENTS.min_length_px
    dull = drawn([])
    assert find_segments(dull, everywhere(dull)).shape == (0, 2, 2)


def test_what_is_not_to_be_used_has_no_lines_and_no_border() -> None:
    rgb = drawn([("rectangle", [(40, 40), (280, 200)], 180)])
    use = everywhere(rgb)
    use[:, 160:] = False
    segments = find_segments(rgb, use)
    assert len(segments) == 3
    assert segments[..., 0].max() < 160
    assert find_segments(rgb, np.zeros_like(use)).shape == (0, 2, 2)
