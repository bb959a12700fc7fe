"""From a configuration to the parts of a method."""

from __future__ import annotations

import torch

from quoin.fields.encoding.dense_grid import DenseGrid
from quoin.fields.encoding.fourier import RandomFourier
from quoin.fields.encoding.frequency import Frequency
from quoin.fields.encoding.hash_grid import HashGrid
from quoin.fields.field.background import Outside
from quoin.fields.field.color import Appearance, ColourHead
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import Encoding, SurfaceField
from quoin.fields.field.semantic import LayoutHead
from quoin.fields.grids.sparse_sdf import FineVolume
from quoin.fields.model import BlockModel
from quoin.fields.renderer.density import Density
from quoin.fields.renderer.neus import Neus
from quoin.fields.renderer.surface_rendering import Surface
from quoin.fields.renderer.volsdf import Laplace
from quoin.fields.sampler.base import (
    Bounded,
    Guided,
    Hierarchical,
    Importance,
    March,
    Renderer,
    Sampler,
    Trace,
    Window,
)
from quoin.pipeline.scene.manhattan import WallFrame
from quoin.stages.train.config import (
    BoundedSampler,
    FourierEncoding,
    FrequencyEncoding,
    GridEncoding,
    GuidedSampler,
    HashEncoding,
    HierarchicalSampler,
    ImportanceSampler,
    LaplaceRenderer,
    MarchSampler,
    NeusRenderer,
    SurfaceRenderer,
    TraceSampler,
    TrainConfig,
)

EMPTY = 3.0  # value of a density field that starts with nothing in it
START_RADIUS = 0.5  # of the sphere that a field without a seed starts as (NeuS)


def build_model(config: TrainConfig, seed: FineVolume, n_photos: int, walls: WallFrame | None = None) -> BlockModel:
    """The model of a block, its surface starting from ``seed``, as a sphere, or with nothing.

    With ``walls`` it learns which surface is one of them, a floor or a ceiling.
    """
    encoding, want = build_encoding(config), config.surface
    seeded = want.start == "seed"
    network = ScalarMLP(
        3 + encoding.width,
        want.width,
        want.layers,
        skip=want.skip,
        weight_norm=want.weight_norm,
        sphere=START_RADIUS if want.start.endswith("sphere") else None,
        inside_out=want.start == "inside sphere",
    )
    if want.start == "empty":
        torch.nn.init.constant_(network.last.bias, EMPTY)
    look = config.colour
    return BlockModel(
        SurfaceField(
            encoding, network, seed if seeded else None, want.features, differences=want.gradient == "differences"
        ),
        ColourHead(want.features, look.code, layers=look.layers, width=look.width, frequencies=look.frequencies),
        Appearance(n_photos, gain=look.gain, n_code=look.code),
        Outside(look.code),
        build_renderer(config),
        build_sampler(config),
        None if walls is None else LayoutHead(want.features, walls.up_world, walls.normals_world),
    )


def build_encoding(config: TrainConfig) -> Encoding:
    """The encoding; it does not hold the point itself, which the network gets beside it."""
    match config.encoding:
        case HashEncoding() as e:
            return HashGrid(e.levels, e.coarsest, e.finest, e.log2_table, e.features)
        case FrequencyEncoding() as e:
            return Frequency(e.frequencies, include_input=False)
        case FourierEncoding() as e:
            return RandomFourier(e.waves, e.scale, seed=0)
        case GridEncoding() as e:
            return DenseGrid(e.resolution, e.features)


def build_renderer(config: TrainConfig) -> Renderer:
    """The renderer."""
    match config.renderer:
        case NeusRenderer() as r:
            return Neus(r.sharpness)
        case LaplaceRenderer() as r:
            return Laplace(r.beta)
        case SurfaceRenderer():
            return Surface()
        case r:
            return Density(r.scale)


def build_sampler(config: TrainConfig) -> Sampler:
    """The sampler."""
    match config.sampler:
        case GuidedSampler() as s:
            return Guided(s.samples)
        case ImportanceSampler() as s:
            return Importance(s.coarse, s.rounds, s.per_round)
        case HierarchicalSampler() as s:
            return Hierarchical(s.coarse, s.fine)
        case BoundedSampler() as s:
            return Bounded(s.samples, s.search, s.rounds, s.error)
        case TraceSampler() as s:
            return Trace(s.iterations, s.march, s.secants)
        case MarchSampler() as s:
            return March(s.steps, s.secants)
        case s:
            return Window(s.window, s.beside, s.rounds, s.per_round, s.half_width)
