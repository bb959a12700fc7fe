"""A trained block opened again: a known ball looks as it must, and the store gives back what was put in."""

import numpy as np
import pytest
import torch

from quoin.fields.model import build_model
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.flows.settings import load_settings, method_names
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import look_at, pixel_grid, rays_world
from quoin.pipeline.scene.blocks import read_block_model, read_partition, write_block_model
from quoin.stages.train import trained_block
from quoin.stages.train.data.photo_set import BlockFrame
from tests.fixtures import ball_scene
from tests.fixtures.ball_model import CONFIG, ball_model
from tests.stages.train.test_methods import ALL, SMALL

CENTRE, RADIUS = np.array([10.2, -3.0, 1.0]), 0.9
FRAME = BlockFrame.from_bounds(np.array([8.5, -4.5, -0.5]), np.array([11.5, -1.5, 2.5]))
EYE = np.array([5.0, -3.0, 1.5])


@pytest.fixture
def rays():
    pose = look_at(EYE, CENTRE)
    _, directions = rays_world(pose, np.array([60.0, 60.0, 24.0, 18.0]), pixel_grid(48, 36))
    to = CENTRE - EYE
    along = directions @ to
    off = np.sqrt(to @ to - along**2)
    near = along - np.sqrt(np.maximum(RADIUS**2 - off**2, 0.0))
    return directions, off, near


def look(directions, ends=True, **how):
    model, cache = ball_model(FRAME, CENTRE, RADIUS)
    seen = trained_block.build_ray_renderer(model, cache, FRAME, 6, "cpu", fast=False)
    n = len(directions)
    stretch = np.full(n, how.get("enter", 2.0)), np.full(n, how.get("leave", 8.0))
    return seen(EYE, directions, *stretch, np.full(n, ends))


def test_a_ball_has_its_depth_and_normals(rays):
    directions, off, near = rays
    layer = look(directions)
    hit = off < 0.9 * RADIUS
    assert hit.sum() > 50
    assert layer.opacity[hit].min() > 0.97
    distance = layer.distance_m[hit] / layer.opacity[hit]
    np.testing.assert_allclose(distance, near[hit], atol=0.02)
    normal = layer.normal[hit] / np.linalg.norm(layer.normal[hit], axis=1, keepdims=True)
    true = (EYE + directions[hit] * near[hit, None] - CENTRE) / RADIUS
    assert (normal * true).sum(axis=1).min() > 0.995
    assert layer.opacity[off > 1.1 * RADIUS].max() < 0.01


def test_nothing_is_seen_before_the_ball_nor_where_the_ray_ends_elsewhere(rays):
    directions, off, _ = rays
    before = look(directions, ends=False, leave=3.5)
    assert before.opacity.max() < 0.01
    assert before.color.max() < 0.01
    layer = look(directions, ends=False)
    assert layer.color[off > 1.1 * RADIUS].max() < 0.01
    assert look(directions).color[off > 1.1 * RADIUS].min() > 0.05, "what lies behind is seen where the ray ends"


def test_skipping_empty_space_changes_nothing(rays, monkeypatch):
    directions, _, _ = rays
    skipped = look(directions)
    monkeypatch.setattr(trained_block, "occupied_cells", lambda model, cache: None)
    whole = look(directions)
    off = np.abs(skipped.color - whole.color).max(axis=1)
    assert np.quantile(off, 0.9) < 0.02, "but at the rim, where few samples meet the ball"
    assert np.abs(skipped.opacity - whole.opacity).mean() < 0.01


def test_cells_outside_the_shell_are_empty():
    model, cache = ball_model(FRAME, CENTRE, RADIUS)
    cells = trained_block.occupied_cells(model, cache)
    inside = (
        torch.nn.functional.interpolate(cells.float()[None, None], scale_factor=trained_block.SAMPLES_PER_SHELL_CELL)[
            0, 0
        ]
        > 0
    )
    shape = tuple(slice(0, n - 1) for n in cache.values.shape)
    assert not (cache.values[shape] < 0)[~inside[shape]].any()
    assert 0.05 < cells.float().mean() < 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ball_scene.make_run(tmp_path_factory.mktemp("trained"), n_photos=3, width=32, height=24, n_points=20)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    made.commit("train/b000", "key", StageResult(), 0.0)
    return made


@pytest.mark.parametrize("method", method_names())
def test_every_method_looks_the_same_from_the_store(method, run, rays, monkeypatch):
    monkeypatch.setattr(
        trained_block, "MIN_HALF_PRECISION_SIZE", 1 << 10
    )  # small enough that something is kept in half precision
    values = [f"train.{value}" for value in (f"method={method}", *ALL, *SMALL[method])]
    config = load_settings(overrides=values).train
    partition = read_partition(run)
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(partition.blocks[0].outer))
    half_extent = torch.tensor(frame.half_extent, dtype=torch.float32)
    cache, base = (
        DenseSdf.over_box(half_extent, config.sdf_cache.resolution),
        SparseSdf.over_box(half_extent, config.sdf_cache.resolution // 2),
    )
    base.refine(torch.arange(len(base.brick_start)) % 3 == 0)
    base.values.copy_(base.positions().norm(dim=1) - 0.4)
    cache.refresh(base)
    torch.manual_seed(1)
    model = build_model(config, base, 1)
    write_block_model(run, "b000", *trained_block.export_state(model, cache, config))
    arrays, _ = read_block_model(run, "b000")
    assert {a.dtype for a in arrays.values() if a.dtype.kind == "f"} == {np.dtype(np.float16), np.dtype(np.float32)}

    origin = np.array([4.0, 0.5, 1.0])
    _, directions = rays_world(look_at(origin, frame.center_world), np.array([40.0, 40, 16, 12]), pixel_grid(16, 12, 2))
    ask = (
        origin,
        directions,
        np.full(len(directions), 2.0),
        np.full(len(directions), 7.0),
        np.ones(len(directions), bool),
    )
    expected = trained_block.build_ray_renderer(model, cache, frame, config.background.samples, "cpu", fast=False)(*ask)
    got = trained_block.load_ray_renderer(run, "b000", "cpu", fast=False)(*ask)
    np.testing.assert_allclose(got.color, expected.color, atol=0.02)
    np.testing.assert_allclose(got.opacity, expected.opacity, atol=0.05)
    assert np.isfinite(got.normal).all()


def test_appearance_is_the_mean_of_the_photos():
    model, cache = ball_model(FRAME, CENTRE, RADIUS)
    model.appearance.table[:, :3] = torch.tensor([[0.1], [0.2], [0.6]])
    arrays, about = trained_block.export_state(model, cache, CONFIG)
    again, _ = trained_block.restore_model(arrays, CONFIG, FRAME)
    exposure = again.appearance(torch.zeros(1, dtype=torch.int64)).exposure
    torch.testing.assert_close(exposure, torch.full((1, 3), float(np.exp(0.3))))
    assert about["config"]["renderer"]["kind"] == "neus"


def test_a_block_without_a_model_is_told(run):
    del run.scene["blocks/b000/model"]
    with pytest.raises(QuoinError, match="did not keep its model"):
        trained_block.load_ray_renderer(run, "b000", "cpu")


def test_samples_in_empty_space_conclude_on_no_surface(monkeypatch):
    """Before a surface that the ray grazes, a long section around a sample in empty space would end inside it."""
    monkeypatch.setattr(trained_block, "occupied_cells", lambda model, cache: None)  # rays keep their length
    origin = CENTRE + np.array([-3.0, 0.0, 0.0])
    angle = np.linspace(0.0, 0.29, 200)
    directions = np.stack([np.cos(angle), np.sin(angle), np.zeros(200)], axis=1)
    model, cache = ball_model(FRAME, CENTRE, RADIUS)
    seen = trained_block.build_ray_renderer(model, cache, FRAME, 6, "cpu", fast=False)
    layer = seen(origin, directions, np.full(200, 1.4), np.full(200, 4.6), np.ones(200, bool))
    near = 3.0 * np.cos(angle) - np.sqrt(RADIUS**2 - (3.0 * np.sin(angle)) ** 2)
    np.testing.assert_allclose(layer.distance_m / layer.opacity, near, atol=0.005)
