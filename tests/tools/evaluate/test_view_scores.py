"""PSNR and SSIM against numbers known otherwise."""

import numpy as np
import pytest

from quoin.tools.evaluate.view_scores import MAX_PSNR_DB, SSIM_C1, SSIM_C2, color_correct, psnr_db, score_view, ssim_map

RNG = np.random.default_rng(0)
PHOTO = RNG.random((24, 31, 3)).astype(np.float32)
ALL = np.ones((24, 31), bool)


def test_psnr_of_a_known_error():
    assert psnr_db(np.full((10, 3), 0.6), np.full((10, 3), 0.5)) == pytest.approx(20.0)
    assert psnr_db(PHOTO[0], PHOTO[0]) == MAX_PSNR_DB


def test_a_perfect_rendering():
    psnr, corrected, ssim = score_view(PHOTO, PHOTO, ALL)
    assert (psnr, ssim) == (MAX_PSNR_DB, pytest.approx(1.0))
    assert corrected > 90


def test_ssim_of_even_pictures_is_its_term_of_luminance():
    a, b = 0.3, 0.7
    got = ssim_map(np.full((20, 20, 3), a, np.float32), np.full((20, 20, 3), b, np.float32))
    np.testing.assert_allclose(got, (2 * a * b + SSIM_C1) / (a * a + b * b + SSIM_C1), rtol=1e-6)


def test_ssim_at_a_pixel_is_the_formula_over_its_window():
    other = np.clip(PHOTO + RNG.normal(0, 0.2, PHOTO.shape), 0, 1).astype(np.float32)
    y, x = 11, 14
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        p, q = (v[y - 5 : y + 6, x - 5 : x + 6, channel].astype(float) for v in (PHOTO, other))
        mean_p, mean_q = (window * p).sum(), (window * q).sum()
        var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
        both = (window * (p - mean_p) * (q - mean_q)).sum()
        top = (2 * mean_p * mean_q + SSIM_C1) * (2 * both + SSIM_C2)
        values.append(top / ((mean_p**2 + mean_q**2 + SSIM_C1) * (var_p + var_q + SSIM_C2)))
    assert ssim_map(PHOTO, other)[y, x] == pytest.approx(np.mean(values), rel=1e-9)


def test_colour_correction_undoes_exposure_and_tint_and_nothing_else():
    matrix, shift = np.array([[0.6, 0.1, 0.0], [0.0, 0.7, 0.05], [0.1, 0.0, 0.5]]), np.array([0.05, 0.0, 0.1])
    photo = (PHOTO @ matrix.T + shift).astype(np.float32)
    psnr, corrected, _ = score_view(PHOTO, photo, ALL)
    assert psnr < 20
    assert corrected > 80
    noise = RNG.random((500, 3))
    assert psnr_db(color_correct(RNG.random((500, 3)), noise), noise) < 12, "a picture of something else stays wrong"


def test_pixels_the_mask_leaves_out_do_not_count():
    broken = PHOTO.copy()
    broken[:, :8] = 1.0 - broken[:, :8]
    used = ALL.copy()
    used[:, :8] = False
    assert score_view(broken, PHOTO, used)[0] == MAX_PSNR_DB
    assert score_view(broken, PHOTO, ALL)[0] < 20
    assert score_view(broken, PHOTO, ~ALL) is None
