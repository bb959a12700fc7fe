"""The same seed gives the same weights to the last bit; and nothing is compiled anew once training runs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.field.heads import AppearanceEmbedding
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.fields.sdf_grids import DenseSdf
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.geometry.lattice import BrickBox
from quoin.stages.train import trainer
from quoin.stages.train.config import SdfCacheConfig, TrainConfig
from tests.fixtures import ball_scene

SMALL = TrainConfig(
    steps=30,
    rays=512,
    points=512,
    patches=128,
    sampler=GuidedSamplerConfig(samples=16),
    sdf_cache=SdfCacheConfig(resolution=48, refresh_every=20),
    encoding=HashEncodingConfig(levels=6, max_resolution=96, log2_table=12),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("repeatable"), n_photos=6, width=80, height=60, n_points=200)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def start(run, config=SMALL, **changes):
    return ball_scene.start(run, config, **changes)[0]


def trained(run, config, n_steps):
    made = start(run, config)
    made.step = config.steps // 2  # past the point where every loss counts
    for _ in range(n_steps):
        made.train_step()
    return made.state_dict()


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_two_trainings_of_one_seed_are_the_same_to_the_last_bit(run, two_threads, monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    assert differing(trained(run, SMALL, 8), trained(run, SMALL, 8)) == []


@pytest.mark.compiled
def test_so_are_compiled_ones(run, two_threads):
    assert differing(trained(run, SMALL, 30), trained(run, SMALL, 30)) == []


@pytest.mark.compiled
def test_nothing_is_compiled_after_the_second_step_whatever_the_schedules_and_the_block(run):
    import torch._dynamo.utils

    def graphs():
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    torch._dynamo.reset()
    config = SMALL.model_copy(update={"steps": 7})
    large = start(run, config)
    seen, counted = set(), []
    for _ in range(7):
        schedule = large._schedule(large.progress)
        seen.add((int(schedule.patch_level), *schedule.weights.tolist(), float(schedule.anneal)))
        large.train_step()
        counted.append(graphs())
    assert len(seen) == 3  # anneal, pyramid levels and patches did change
    assert counted[1] > 0
    assert counted[2:] == counted[1:2] * 5
    large.sfm_error()  # the SDF alone is a graph of its own
    compiled_by_one = graphs()
    box = BrickBox((0, 0, 0), (1, 1, 1))
    small = start(run, config, core=box, photo_index=np.arange(4), photo_weight=np.ones(4))
    assert small.cache.values.shape != large.cache.values.shape
    assert len(small.photos.rgb) != len(large.photos.rgb)
    for _ in range(7):
        small.train_step()
    small.sfm_error()
    assert graphs() == compiled_by_one


# -- what makes it so ------------------------------------------------------------------------------------------------


@given(
    n_photos=st.integers(1, 12),
    gain=st.booleans(),
    n_appearance=st.integers(0, 3),
    photo=st.lists(st.integers(0, 11), min_size=1),
)
def test_appearance_is_the_photos_row_and_its_gradient_goes_there(n_photos, gain, n_appearance, photo):
    photo = torch.tensor(photo) % n_photos
    appearance = AppearanceEmbedding(n_photos, has_exposure=gain, n_appearance=n_appearance)
    torch.nn.init.normal_(appearance.table)
    row = appearance.table[photo]
    condition = appearance(photo)
    torch.testing.assert_close(condition.exposure, row[:, :3].exp() if gain else torch.ones(len(photo), 3))
    torch.testing.assert_close(condition.appearance, row[:, 3:])
    (condition.exposure.sum() + 2.0 * condition.appearance.sum()).backward()
    times = torch.bincount(photo, minlength=n_photos)[:, None]
    by_gain = appearance.table[:, :3].exp() if gain else torch.zeros(n_photos, 3)
    torch.testing.assert_close(
        appearance.table.grad, times * torch.cat([by_gain, torch.full((n_photos, n_appearance), 2.0)], 1)
    )


def test_of_several_points_at_one_sample_the_last_wins_and_others_are_left_alone(two_threads):
    generator = torch.Generator().manual_seed(0)
    volume = DenseSdf.over_box(torch.ones(3), 8)
    points = torch.rand(60_000, 3, generator=generator) * 2.4 - 1.2  # some outside
    sdf, counts = torch.randn(60_000, generator=generator), torch.rand(60_000, generator=generator) < 0.7
    sdf[::7] = torch.nan
    expected = volume.values.clone().numpy()
    index = ((points - volume.low) / volume.spacing).round().long()
    good = counts & sdf.isfinite() & ((index >= 0) & (index <= 8)).all(dim=1)
    for (i, j, k), value in zip(index[good].tolist(), sdf[good].tolist(), strict=True):
        expected[i, j, k] = value
    volume.update_nearest(points, sdf, torch.zeros(60_000, 3), counts)
    got = volume.values.numpy()
    assert np.array_equal(got.ravel()[1:], expected.ravel()[1:].astype(np.float32))
    assert got[0, 0, 0] == 0.0 or got[0, 0, 0] == np.float32(expected[0, 0, 0])
