"""What passes by: a region of unexplained colour loses its say, fine texture and masked parts do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.train.trust import CELL, Trust, contrast_of

SIZE = 12 * CELL


@pytest.fixture
def photos() -> list[np.ndarray]:
    """Two photos: a smooth one, and one whose right half is fine texture; of different shapes."""
    rng = np.random.default_rng(0)
    smooth = np.full((SIZE, SIZE, 3), 120, np.uint8)
    textured = smooth[: SIZE // 2].copy()
    textured[:, SIZE // 2 :] = rng.integers(60, 180, (SIZE // 2, SIZE // 2, 3))
    return [smooth, textured]


def everywhere(photos: list[np.ndarray], n: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, len(photos), n)
    sizes = np.array([p.shape[1::-1] for p in photos])[photo]
    return torch.from_numpy(np.concatenate([photo[:, None], (rng.random((n, 2)) * sizes).astype(np.int64)], axis=1))


def test_contrast_is_that_of_each_cell(photos: list[np.ndarray]) -> None:
    found = contrast_of(photos[1])
    assert found.shape == (6, 12)
    assert found[:, :6].max() < 1e-6
    assert found[:, 6:].min() > 0.1
    assert contrast_of(photos[0][:20, :17]).shape == (2, 2)


def test_a_shirt_before_a_wall_is_distrusted_and_texture_is_not(photos: list[np.ndarray]) -> None:
    trust = Trust(photos)
    pixels = everywhere(photos, 20_000)
    photo, x, y = pixels.unbind(1)
    shirt = (photo == 0) & (x < 5 * CELL) & (y < 5 * CELL)
    fine = (photo == 1) & (x >= SIZE // 2)
    residual = torch.where(shirt, 0.2, torch.where(fine, 0.1, 0.02))
    for part in range(0, len(pixels), 1000):
        trust.learn(pixels[part : part + 1000], residual[part : part + 1000], torch.ones(1000))
    assert (trust.of(pixels) == 1).all()  # nothing is judged yet
    trust.judge()
    weight = trust.of(pixels)
    within = shirt & (x < 4 * CELL) & (y < 4 * CELL)  # a neighbourhood wholly shirt
    beyond = ~shirt & ((photo == 1) | (x >= 6 * CELL) | (y >= 6 * CELL))
    assert weight[within].max() == 0
    assert weight[beyond].min() == 1


def test_what_is_masked_or_hardly_seen_is_not_judged(photos: list[np.ndarray]) -> None:
    trust = Trust(photos)
    pixels = everywhere(photos, 4000)
    hidden = pixels[:, 0] == 0
    trust.learn(pixels, torch.where(hidden, 0.5, 0.02), (~hidden).float())
    few = torch.tensor([[0, 3, 3], [0, 100, 100]])
    trust.learn(few, torch.tensor([0.5, 0.5]), torch.ones(2))
    trust.judge()
    assert (trust.of(pixels) == 1).all()


def test_what_is_explained_later_is_trusted_again(photos: list[np.ndarray]) -> None:
    trust = Trust(photos)
    pixels = everywhere(photos, 4000)
    corner = (pixels[:, 0] == 0) & (pixels[:, 1] < 5 * CELL) & (pixels[:, 2] < 5 * CELL)
    trust.learn(pixels, torch.where(corner, 0.3, 0.02), torch.ones(4000))
    trust.judge()
    assert trust.of(pixels)[corner].mean() < 0.5
    for _ in range(2000):
        trust.learn(pixels[:64], torch.full((64,), 0.02), torch.ones(64))
    for seed in range(1, 4):
        trust.learn(everywhere(photos, 4000, seed), torch.full((4000,), 0.02), torch.ones(4000))
    trust.judge()
    assert trust.of(pixels)[corner].mean() > 0.9
