"""Every method that comes with quoin trains: a few steps at a small size, on the ball scene. Parts that do not fit."""

import pytest
import torch

from quoin.flows.settings import load_settings, method_names, read_method
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.blocks import read_partition
from quoin.stages.train import trainer
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame
from tests.fixtures import ball_scene

SMALL = {
    "quoin": ["encoding.levels=6", "encoding.max_resolution=96", "encoding.log2_table=12"],
    "neus": ["surface.width=48", "sampler.coarse=24", "sampler.rounds=2", "sampler.per_round=8"],
    "volsdf": ["surface.width=48", "sampler.samples=24", "sampler.n_initial=24", "sampler.rounds=2"],
    "neuralrecon-w": ["surface.width=48"],
    "nerf": ["surface.width=48", "encoding.frequencies=4", "sampler.coarse=24", "sampler.fine=24"],
    "nerf-hash": ["encoding.levels=6", "encoding.max_resolution=96", "encoding.log2_table=12"],
    "neuralangelo": [
        "encoding.levels=6",
        "encoding.max_resolution=96",
        "encoding.log2_table=12",
        "surface.width=32",
        "sampler.coarse=12",
        "sampler.rounds=1",
    ],
    "idr": ["surface.width=48", "lr.surface=1e-3", "lr.other=3e-3"],
    "dvr": ["surface.width=48", "lr.surface=1e-3", "lr.other=3e-3"],
    "occupancy": ["surface.width=48", "lr.surface=1e-3"],
}
ALL = [
    "steps=40",
    "rays=96",
    "points=64",
    "patches=32",
    "sdf_cache.resolution=32",
    "background.samples=4",
    "color.width=24",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("methods"), n_photos=6, width=80, height=60)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, method, *more):
    values = [f"train.{value}" for value in (f"method={method}", *ALL, *SMALL[method], *more)]
    partition = read_partition(run)
    block = partition.blocks[0]
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(block.outer))
    return build_trainer(run, load_settings(overrides=values).train, block, frame, "cpu")


def test_every_method_is_tried():
    assert set(SMALL) == set(method_names())


@pytest.mark.parametrize("method", SMALL)
def test_a_method_sets_all_its_parts(method):
    def keys(values):
        """Of all sections but those that may be of several kinds."""
        return {name: keys(v) if isinstance(v, dict) and "kind" not in v else None for name, v in values.items()}

    assert keys(read_method(method)) == keys(read_method("quoin"))


def test_the_default_method_is_the_default_configuration():
    assert load_settings(overrides=["train.method=quoin"]).train == TrainConfig()


@pytest.mark.parametrize("method", SMALL)
def test_a_method_trains(method, run, monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    made = start(run, method)
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    dark = made.held_out_psnr()
    for _ in range(40):
        made.train_step()
    still = [name for name, value in made.model.named_parameters() if torch.equal(value, before[name])]
    if method == "occupancy":  # has no color
        assert {name for name in before if name.startswith("surface.network")}.isdisjoint(still)
        assert dark is None
        return
    assert set(still) <= ({"appearance.table"} if made.model.appearance.table.shape[1] == 3 else set())
    assert made.held_out_psnr() > dark


def test_a_density_is_guided_by_itself_and_everywhere(run, monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    made = start(run, "nerf-hash", "sdf_cache.refresh_every=10")
    for _ in range(2):
        own = made.sdf(made.cache.positions())
        torch.testing.assert_close(made.cache.values.view(-1), own)
        for _ in range(10):
            made.train_step()
        made.refresh(near_only=True)
        assert not torch.allclose(made.cache.values.view(-1), own)


def test_what_a_method_does_not_use_is_not_computed(run, monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    for method, patches, behind in (("quoin", True, False), ("neus", False, False), ("dvr", False, True)):
        made, seen = start(run, method), []

        def compute_loss(*given, made=made, seen=seen, inner=made._loss):
            seen.append((given[2].patches, given[2].batch))
            return inner(*given)

        made._loss = compute_loss
        made.train_step()
        assert [(p is not None, b.interior_points is not None) for p, b in seen] == [(patches, behind)]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method=idr", "sampler.kind=guided"], "need each other"),
        (["method=neus", "sampler.kind=march"], "need each other"),
        (["method=idr", "encoding.kind=hash"], "derivatives by position"),
        (["method=dvr", "losses.photoconsistency=0.1"], "Patches"),
        (["method=neuralangelo", "encoding.kind=frequency"], "a cell of a grid"),
        (["losses.curvature=0.1"], "Curvature"),
        (["surface.skip=4"], "only 1 hidden layers"),
    ],
)
def test_parts_that_do_not_go_together_are_told(overrides, told):
    with pytest.raises(QuoinError, match=told):
        load_settings(overrides=[f"train.{value}" for value in overrides])


@pytest.mark.compiled
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", ["neuralangelo", "idr", "dvr", "occupancy"])
def test_a_step_compiles_once_and_is_the_eager_one(method, run, monkeypatch):
    import torch._dynamo.utils

    made = start(run, method)
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    eager = start(run, method)
    for _ in range(10):
        a, b = made.train_step(), eager.train_step()
    assert a["loss"] == pytest.approx(b["loss"], rel=3e-2)
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(5):
        made.train_step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted
