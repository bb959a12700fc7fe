"""Pictures with detail at all scales, and of things at several depths seen by a camera that moves."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

Array = np.ndarray


def texture(seed: int, height: int = 300, width: int = 400) -> Array:
    """Grey levels 20..235, smooth blotches and fine grain."""
    rng = np.random.default_rng(seed)
    waves = [gaussian_filter(rng.standard_normal((height, width)), s) * s for s in (1.0, 2.0, 5.0, 12.0, 30.0)]
    mixed = sum(wave / wave.std() for wave in waves)
    return np.clip(128.0 + 40.0 * mixed / np.std(mixed), 20.0, 235.0)


def as_rgb(grey: Array) -> Array:
    return np.repeat(np.clip(np.round(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def saved(rgb: Array, quality: int = 90) -> Array:
    """The photo after JPEG."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def view(step_px: float, seed: int = 0, noise: float = 2.0) -> Array:
    """A wall and three things before it, from a camera ``step_px`` to the right: the wall moves a fifth as far."""
    near = texture(100 + seed)
    far = texture(200 + seed)
    down, across = np.mgrid[:300, :400]
    cover = np.zeros((300, 400))
    for y, x, radius in ((90, 90, 60), (200, 200, 70), (100, 310, 65)):
        cover[np.hypot(down - y, across - x) < radius] = 1.0
    cover = gaussian_filter(cover, 0.7)
    near, cover = (shift(layer, (0, -step_px), order=3, mode="nearest") for layer in (near, cover))
    far = shift(far, (0, -0.2 * step_px), order=3, mode="nearest")
    grain = noise * np.random.default_rng(int(1000 * step_px) + seed + 7).standard_normal((300, 400))
    return as_rgb(cover * near + (1.0 - cover) * far + grain)
