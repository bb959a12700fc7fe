"""A photo that is held out is nowhere used after the poses: garbage in its place changes nothing."""

import dataclasses
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import held_out_key, read_block_model, read_brick_index, read_held_out, read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.stage import FUSE
from quoin.stages.partition.block_photos import select_held_out
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.partition.stage import PARTITION
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stage import PRIORS
from quoin.stages.priors.stereo import depth_maps, patchmatch
from quoin.stages.priors.stereo.patchmatch import PatchMatchParams
from quoin.stages.train import trainer
from quoin.stages.train.block_training import train_block
from quoin.stages.train.config import SdfCacheConfig, TrainConfig
from quoin.stages.train.trained_block import load_ray_renderer
from quoin.tools.evaluate.evaluation import evaluate_views
from quoin.tools.render.films import render_held_out
from tests.fixtures import ball_scene
from tests.fixtures.synthetic import commit, pyramid

WIDTH, HEIGHT, HELD_OUT = 64, 48, [0, 4]  # of 0.jpg, 1.jpg, 10.jpg, 11.jpg, 2.jpg, 3.jpg, 4.jpg ...
TRAIN = TrainConfig(
    steps=12,
    rays=128,
    points=128,
    patches=48,
    sampler=GuidedSamplerConfig(samples=12),
    sdf_cache=SdfCacheConfig(resolution=48),
    encoding=HashEncodingConfig(levels=4, max_resolution=64, log2_table=12),
)


def work(run):
    """Everything after the poses, on one small block."""
    quiet = Reporter()
    PARTITION(run, PartitionConfig(resolution=64, brick_size=16, hold_out_every=6), quiet)
    PRIORS(run, PriorsConfig(stereo_edge_px=64, sources=4), quiet)
    [block] = read_partition(run).blocks
    run.commit(f"train/{block.id}", "key", train_block(run, TRAIN, quiet, block.id, "cpu"), 1.0)
    commit(run, "train")
    FUSE(run, FuseConfig(min_support=2, island_diameter=0.0), quiet)
    return run, block


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and the same with noise in place of the photos it holds out, and with tracks of theirs all over."""
    folder = tmp_path_factory.mktemp("held out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_function", lambda function, device: function)
        patch.setattr(
            depth_maps,
            "PATCHMATCH_PASSES",
            (depth_maps.PatchMatchPass(0, 1, 1.0), depth_maps.PatchMatchPass(0, 1, 0.5)),
        )
        patch.setattr(depth_maps, "STEREO_STEPS", depth_maps.STEREO_STEPS[:4])
        patch.setattr(patchmatch, "PATCHMATCH_PARAMS", PatchMatchParams(chunk_pixels_cpu=1 << 10, n_sweep_planes=8))
        made = ball_scene.make_run(folder, n_photos=12, width=WIDTH, height=HEIGHT, n_points=150)
        made.invalidate("partition")
        shutil.copytree(made.path, folder / "other")
        other = Run.open(folder / "other")
        rng = np.random.default_rng(1)
        for index in HELD_OUT:
            noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            posed_images.write_photo(other, index, pyramid(noise), np.full((HEIGHT, WIDTH), 255, np.uint8))
        posed = posed_images.read_posed(other)
        theirs = np.isin(posed.track_photo, HELD_OUT)
        xy = np.where(theirs[:, None], rng.uniform(0, [WIDTH, HEIGHT], posed.track_xy.shape), posed.track_xy)
        posed_images.write_posed(other, dataclasses.replace(posed, track_xy=xy))
        return work(made), work(other)


def test_photos_are_held_out_in_the_order_of_names():
    assert select_held_out(["c", "a", "e", "b", "d"], 2).tolist() == [0, 1, 2]  # a, c, e
    assert select_held_out(["c", "a", "b"], 0).tolist() == []


def test_garbage_in_a_held_out_photo_changes_nothing(runs):
    (run, block), (other, same) = runs
    assert read_held_out(run).tolist() == HELD_OUT
    assert sorted(block.photo_index) == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert read_partition(other).region_low_world.tolist() == read_partition(run).region_low_world.tolist()
    known = [index for index in range(12) if priors.read_depth(run, index) is not None]
    assert known
    assert not set(known) & set(HELD_OUT)
    for index in range(12):
        mine, theirs = priors.read_depth(run, index), priors.read_depth(other, index)
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            np.testing.assert_array_equal(mine[0], theirs[0])
    model, changed = (read_block_model(r, block.id)[0] for r in (run, other))
    for name, values in model.items():
        np.testing.assert_array_equal(values, changed[name], err_msg=name)
    np.testing.assert_array_equal(read_brick_index(run, block.id), read_brick_index(other, same.id))
    assert (run.path / "mesh.ply").read_bytes() == (other.path / "mesh.ply").read_bytes()


def test_the_photos_held_out_are_scored(runs):
    (run, _), _ = runs
    render_held_out(run, lambda block_id: load_ray_renderer(run, block_id, "cpu", fast=False), Reporter())
    result = evaluate_views(run, Reporter())
    names = posed_images.read_posed(run).names
    assert [score.photo for score in result.photos] == [names[i] for i in HELD_OUT]
    assert result.psnr_corrected_db >= result.psnr_db - 0.01
    assert 12 < result.psnr_corrected_db < 60
    assert 0 < result.ssim < 1
    assert pq.read_table(run.table("evaluation_views")).num_rows == 2


def test_another_choice_of_photos_redoes_the_depths_and_only_that_choice_does(runs):
    (run, _), _ = runs
    assert run.key("priors", PriorsConfig(), ("pose",), 1, held_out_key(run)) != run.key(
        "priors", PriorsConfig(), ("pose",), 1
    )
