"""Every method that comes with quoin trains: a few steps at a small size, on the ball scene."""

import pytest
import torch

from flows.settings import load_settings, method_names, read_method
from pipeline import scene
from pipeline.config import StageResult
from stages.train import trainer
from stages.train.gather import build_trainer
from stages.train.photos import BlockFrame
from tests import ball_scene

SMALL = {
    "quoin": ["encoding.levels=6", "encoding.finest=96", "encoding.log2_table=12"],
    "neus": ["surface.width=48", "sampler.coarse=24", "sampler.rounds=2", "sampler.per_round=8"],
    "volsdf": ["surface.width=48", "sampler.samples=24", "sampler.search=24", "sampler.rounds=2"],
    "neuralrecon-w": ["surface.width=48"],
    "nerf": ["surface.width=48", "encoding.frequencies=4", "sampler.coarse=24", "sampler.fine=24"],
    "nerf-hash": ["encoding.levels=6", "encoding.finest=96", "encoding.log2_table=12"],
}
ALL = ["steps=40", "rays=96", "points=64", "patches=32", "cache.resolution=32", "outside.samples=4", "colour.width=24"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("methods"), n_photos=6, width=80, height=60)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, method):
    values = [f"train.{value}" for value in (f"method={method}", *ALL, *SMALL[method])]
    partition = scene.read_partition(run)
    block = partition.blocks[0]
    frame = BlockFrame.around(*partition.lattice.box_world(block.outer))
    return build_trainer(run, load_settings(overrides=values).train, block, frame, "cpu")


def test_every_method_is_tried():
    assert set(SMALL) == set(method_names())


@pytest.mark.parametrize("method", SMALL)
def test_a_method_names_all_its_parts(method):
    assert set(read_method(method)) == set(read_method("quoin"))


@pytest.mark.parametrize("method", SMALL)
def test_a_method_trains(method, run, monkeypatch):
    monkeypatch.setattr(trainer, "compiled", lambda function, device: function)
    made = start(run, method)
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    dark = made.held_out_psnr()
    for _ in range(40):
        made.advance()
    still = [name for name, value in made.model.named_parameters() if torch.equal(value, before[name])]
    unused = {"appearance.table"} if method in ("neus", "volsdf", "nerf") else set()
    assert set(still) <= unused
    assert made.held_out_psnr() > dark
