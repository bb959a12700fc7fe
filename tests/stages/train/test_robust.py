"""What training does where things go wrong: numbers that are none, memory that does not suffice, files of others."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quoin.fields.encoding.fourier import FrequencyEncodingConfig
from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import out_of_memory_reason
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import read_partition
from quoin.stages.train import block_training, trainer
from quoin.stages.train.config import SdfCacheConfig, TrainConfig
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame
from quoin.stages.train.step import (
    LOSS_STATS,
    MAX_NON_FINITE_STEPS,
    MIN_BATCH_SIZE,
    BatchSize,
    halve_batch_size,
)
from tests.fixtures import ball_scene

TINY = TrainConfig(
    steps=60,
    rays=128,
    points=64,
    patches=32,
    sampler=GuidedSamplerConfig(samples=8),
    sdf_cache=SdfCacheConfig(resolution=32),
    encoding=HashEncodingConfig(levels=4, max_resolution=48, log2_table=10),
)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("robust"), n_photos=6, width=80, height=60, n_points=100)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


@pytest.fixture
def own_run(tmp_path):
    """A run of the test's own, to be spoilt."""
    made = ball_scene.make_run(tmp_path, n_photos=6, width=80, height=60, n_points=100)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, config=TINY, report=None):
    return ball_scene.start(run, config, report)[0]


def advance(made, n):
    for _ in range(n):
        made.train_step()


def weights(made):
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_fewer_rays_than_patches_are_all_patches(run):
    made = start(run, TINY.model_copy(update={"rays": 24}))
    advance(made, 2)
    assert made.batch_size.patches == 24


def test_held_out_pixels_are_of_all_photos(run):
    made, asked = start(run), []
    made.photos.held_out = torch.arange(700)[:, None].expand(-1, made.photos.held_out.shape[1])
    made.render = lambda part: (asked.append(part[:, 0]) or SimpleNamespace(color=torch.zeros(len(part), 3)), None)
    made.photos.colors = lambda part: (torch.zeros(len(part), 3), torch.ones(len(part)))
    made.held_out_psnr(limit=400)
    seen = torch.cat(asked)
    assert len(seen) <= 400
    assert seen.max() >= 698


# -- numbers that are none -------------------------------------------------------------------------------------------


class Poison(torch.autograd.Function):
    """The value itself; its gradient is not a number."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.nan


@pytest.mark.parametrize("wrong", ["eikonal", "the gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_goes_on(run, wrong):
    made, said = start(run), []
    made.warn = said.append
    for _ in range(3):
        made.train_step()
    kept, moments = weights(made), {k: v.clone() for k, v in made.state_dict().items() if k.startswith("optimizer.")}
    honest = made._loss

    def spoilt(*inputs):
        loss, terms, out = honest(*inputs)
        if wrong == "the gradient":
            return Poison.apply(loss), terms, out
        terms = terms.clone()
        terms[LOSS_STATS.index(wrong)] = torch.inf
        return loss * torch.inf, terms, out

    made._loss = spoilt
    for _ in range(4):
        assert made.train_step() is None
    assert same(kept, weights(made))
    assert all(torch.equal(v, made.state_dict()[k]) for k, v in moments.items())
    assert bool(made.cache.values.isfinite().all())
    made._loss = honest
    for _ in range(3):
        values = made.train_step()
    assert values is not None
    assert not same(kept, weights(made))
    assert len(said) == 1
    assert wrong in said[0]


def test_a_gradient_that_is_never_finite_stops_with_the_checkpoint_intact(run, tmp_path):
    made = start(run)
    made.train_step()
    block_training.save_checkpoint(tmp_path, made.state_dict(), "key")
    honest = made._loss
    made._loss = lambda *inputs: (Poison.apply((found := honest(*inputs))[0]), *found[1:])
    with pytest.raises(QuoinError, match="the gradient is not a finite number"):
        advance(made, MAX_NON_FINITE_STEPS + trainer.LOG_INTERVAL_STEPS)
    again = start(run)
    again.load_state_dict(block_training.load_checkpoint(tmp_path, "key"))
    assert all(torch.isfinite(value).all() for value in weights(again).values())


# -- memory that does not suffice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ],
)
def test_a_step_that_memory_does_not_suffice_for_is_taken_again_with_half(run, error, tmp_path):
    made, said = start(run), []
    made.warn = said.append
    honest, seen = made._loss, []

    def hungry(*inputs):
        seen.append(len(inputs[2].batch.pixels))
        if len(inputs[2].batch.pixels) > 64:
            raise error
        return honest(*inputs)

    made._loss = hungry
    for _ in range(11):
        values = made.train_step()
    assert seen == [128] + [64] * 10
    assert made.step == 10
    assert values is not None
    assert made.batch_size == BatchSize(64, 32, 16)
    assert len(said) == 1
    assert "64" in said[0]
    block_training.save_checkpoint(tmp_path, made.state_dict(), "key")
    again = start(run)
    again.load_state_dict(block_training.load_checkpoint(tmp_path, "key"))
    assert again.batch_size == made.batch_size


def test_what_even_the_smallest_step_has_no_memory_for_is_told(run):
    made = start(run)

    def hungry(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    made._loss = hungry
    with pytest.raises(QuoinError, match="Out of memory in a training step of 64 rays"):
        advance(made, 10)


def test_other_errors_are_not_taken_for_it(run):
    made = start(run)

    def broken(*inputs):
        raise RuntimeError("shapes do not match")

    made._loss = broken
    with pytest.raises(RuntimeError, match="shapes"):
        made.train_step()
    assert made.batch_size.rays == TINY.rays


def test_the_cpu_allocator_says_what_is_listened_for():
    with pytest.raises(RuntimeError) as told:
        torch.empty(1 << 60)
    assert out_of_memory_reason(told.value)
    assert not out_of_memory_reason(ValueError("out of memory"))


def test_halving_ends_at_the_smallest_step():
    size, count = BatchSize(1024, 2048, 512), 0
    while (less := halve_batch_size(size)) is not None:
        assert all(n // 2 == m or m == least for n, m, least in zip(size, less, MIN_BATCH_SIZE, strict=True))
        size, count = less, count + 1
    assert count == 4
    assert size == BatchSize(64, 128, 32)
    assert halve_batch_size(BatchSize(64, 16, 16)) is None


# -- photos, points and boxes ----------------------------------------------------------------------------------------


def test_a_wholly_masked_photo_is_named_and_not_drawn_from(own_run):
    posed_images.write_photo(own_run, 2, [posed_images.read_photo(own_run, 2)], np.zeros((60, 80), np.uint8))
    events = []
    made = start(own_run, report=Reporter(events.append))
    assert [e["message"] for e in events if e.get("level") == "warning"] == [
        "photos left out of the training, as their masks cover them: 2.jpg"
    ]
    assert 2 not in made.photos.tiles[:, 0]
    assert 2 not in made.photos.held_out[:, 0]
    assert 2 not in made.photos.sources
    assert made.train_step() is None  # and it trains


def spoil(run, **fields):
    posed_images.write_posed(run, dataclasses.replace(posed_images.read_posed(run), **fields))


def test_a_block_without_photos_is_told(run):
    partition = read_partition(run)
    none = np.zeros(0, np.int64)
    block = dataclasses.replace(partition.blocks[0], photo_index=none, photo_weight=np.zeros(0), photo_level=none)
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(block.outer))
    with pytest.raises(QuoinError, match="No photo sees this block"):
        build_trainer(run, TINY, block, frame, "cpu")


def test_poses_without_a_point_are_told(own_run):
    none = np.zeros(0, np.int64)
    spoil(
        own_run,
        points_world=np.zeros((0, 3)),
        point_errors_px=np.zeros(0),
        point_colors=np.zeros((0, 3), np.uint8),
        track_offsets=np.zeros(1, np.int64),
        track_photo=none,
        track_xy=np.zeros((0, 2)),
    )
    with pytest.raises(QuoinError, match="No SfM point lies in this block"):
        start(own_run)


def test_points_that_all_lie_in_one_spot_are_told(own_run):
    points = posed_images.read_posed(own_run).points_world
    spoil(own_run, points_world=np.tile(points[:1], (len(points), 1)))
    with pytest.raises(QuoinError, match="in one spot"):
        start(own_run)


def test_points_that_no_photo_of_the_block_sees_are_told(own_run):
    partition = read_partition(own_run)
    block = dataclasses.replace(
        partition.blocks[0], photo_index=np.array([0]), photo_weight=np.ones(1), photo_level=np.array([0])
    )
    spoil(own_run, track_photo=np.maximum(posed_images.read_posed(own_run).track_photo, 1))
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(block.outer))
    with pytest.raises(QuoinError, match="No photo of this block sees a point of it"):
        build_trainer(own_run, TINY, block, frame, "cpu")


@pytest.mark.parametrize("high", [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, np.nan, 1.0]])
def test_a_box_without_extent_is_told(high):
    with pytest.raises(QuoinError, match="no volume to train in"):
        BlockFrame.from_bounds(np.zeros(3), np.array(high))


# -- checkpoints of others -------------------------------------------------------------------------------------------


OTHERS = {
    "of another size: model.surface.encoding.table": {
        "encoding": HashEncodingConfig(levels=5, max_resolution=48, log2_table=10)
    },
    "of another method, without": {"encoding": FrequencyEncodingConfig()},
    "of another size: model.surface.initial_sdf": {"sdf_cache": SdfCacheConfig(resolution=40)},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_a_checkpoint_of_another_method_or_size_is_told_and_nothing_of_it_taken_over(run, reason):
    other, made = start(run, TINY.model_copy(update=OTHERS[reason])), start(run)
    other.train_step()
    before = weights(made)
    with pytest.raises(QuoinError, match=f"does not fit.*{reason}"):
        made.load_state_dict(other.state_dict())
    assert same(before, weights(made))
    assert made.step == 0


def test_a_checkpoint_that_lacks_or_adds_something_is_told(run):
    made = start(run)
    made.train_step()
    whole = made.state_dict()
    for name in ("generator", "batch_size", "optimizer.0.exp_avg"):
        with pytest.raises(QuoinError, match=f"without {name}"):
            start(run).load_state_dict({k: v for k, v in whole.items() if k != name})
    with pytest.raises(QuoinError, match="with strange"):
        start(run).load_state_dict({**whole, "strange": torch.zeros(1)})


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_told(run, tmp_path, share):
    block_training.save_checkpoint(tmp_path, start(run).state_dict(), "key")
    path = tmp_path / block_training.CHECKPOINT_FILE
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    told = []
    assert block_training.load_checkpoint(tmp_path, "key", told.append) is None
    assert "damaged" in told[0]


def test_a_file_of_another_program_is_told(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, tmp_path / block_training.CHECKPOINT_FILE)
    told = []
    assert block_training.load_checkpoint(tmp_path, "key", told.append) is None
    assert "not a checkpoint of quoin" in told[0]
    assert not list(tmp_path.iterdir())
