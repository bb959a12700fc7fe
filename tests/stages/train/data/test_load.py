"""From the store to the device: photos at their level, with their exposures."""

import numpy as np
import torch

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.storage.run import Run
from quoin.stages.train.config import SdfCacheConfig, TrainConfig
from tests.fixtures import ball_scene

SMALL = TrainConfig(
    steps=10,
    rays=64,
    points=64,
    patches=64,
    sdf_cache=SdfCacheConfig(resolution=32),
    encoding=HashEncodingConfig(levels=4, max_resolution=64, log2_table=12),
)


def test_a_halved_photo_shows_the_same_things_with_fewer_pixels(tmp_path):
    run = ball_scene.make_run(tmp_path, n_photos=4, width=80, height=60, n_points=60)
    level = np.array([0, 1, 2, 0])
    whole, _ = ball_scene.start(run, SMALL)
    halved, _ = ball_scene.start(run, SMALL, photo_level=level)
    one = torch.cat([torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 0.2, torch.ones(20, 1)], dim=1)
    for k in range(4):
        before, after = (one @ t.photos.pixel_from_local[k].T for t in (whole, halved))
        torch.testing.assert_close(before[:, :2] / before[:, 2:] / 2 ** level[k], after[:, :2] / after[:, 2:])
        assert halved.photos.sizes[k, 0].tolist() == [80 // 2 ** level[k], 60 // 2 ** level[k]]
        picture = posed_images.read_photo(run, k, int(level[k]))
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].reshape(2, -1)
        colour, _ = halved.photos.colors(torch.from_numpy(np.stack([np.full(len(x), k), x, y], axis=1)))
        assert np.array_equal(np.rint(255 * colour.numpy()).astype(np.uint8), picture.reshape(-1, 3))


def test_gains_start_as_the_scenes_exposures_unless_there_are_none(tmp_path):
    run: Run = ball_scene.make_run(tmp_path, n_photos=4, width=48, height=36, n_points=40)
    gains = np.exp(np.random.default_rng(0).normal(0, 0.2, (4, 3)))
    priors.write_exposures(run, gains)
    trainer, _ = ball_scene.start(run, SMALL)
    exposure = trainer.model.appearance(torch.arange(4)).exposure
    torch.testing.assert_close(exposure.detach(), torch.tensor(gains, dtype=torch.float32))
    free = SMALL.model_copy(update={"color": SMALL.color.model_copy(update={"exposure": False})})
    trainer, _ = ball_scene.start(run, free)
    assert (trainer.model.appearance.log_exposure == 0).all()
