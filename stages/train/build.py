"""From a configuration to the parts of a method."""

from __future__ import annotations

import torch

from quoin.fields.encoding.dense_grid import DenseGrid
from quoin.fields.encoding.fourier import RandomFourierEncoding
from quoin.fields.encoding.frequency import FrequencyEncoding
from quoin.fields.encoding.hash_grid import HashGrid
from quoin.fields.field.background import BackgroundField
from quoin.fields.field.color import AppearanceEmbedding, ColorHead
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import Encoding, SurfaceField
from quoin.fields.field.semantic import SemanticHead
from quoin.fields.grids.sparse_sdf import SparseSdf
from quoin.fields.model import BlockModel
from quoin.fields.renderer.density import DensityRenderer
from quoin.fields.renderer.neus import NeusRenderer
from quoin.fields.renderer.surface_rendering import SurfaceRenderer
from quoin.fields.renderer.volsdf import LaplaceRenderer
from quoin.fields.sampler.base import (
    ErrorBoundedSampler,
    GuidedSampler,
    HierarchicalSampler,
    ImportanceSampler,
    RayMarchingSampler,
    Renderer,
    Sampler,
    SphereTracingSampler,
    WindowSampler,
)
from quoin.pipeline.scene.manhattan import ManhattanFrame
from quoin.stages.train.config import (
    BoundedSamplerConfig,
    FourierEncodingConfig,
    FrequencyEncodingConfig,
    GridEncodingConfig,
    GuidedSamplerConfig,
    HashEncodingConfig,
    HierarchicalSamplerConfig,
    ImportanceSamplerConfig,
    LaplaceRendererConfig,
    MarchSamplerConfig,
    NeusRendererConfig,
    SurfaceRendererConfig,
    TraceSamplerConfig,
    TrainConfig,
)

EMPTY_FIELD_VALUE = 3.0  # value of a density field that starts with nothing in it
INITIAL_SPHERE_RADIUS = 0.5  # of the sphere that a field without a seed starts as (NeuS)


def build_model(
    config: TrainConfig, initial_sdf: SparseSdf, n_photos: int, walls: ManhattanFrame | None = None
) -> BlockModel:
    """The model of a block, its surface starting from ``seed``, as a sphere, or with nothing.

    With ``walls`` it learns which surface is one of them, a floor or a ceiling.
    """
    encoding, surface_config = build_encoding(config), config.surface
    from_initial_sdf = surface_config.start == "seed"
    network = ScalarMLP(
        3 + encoding.width,
        surface_config.width,
        surface_config.layers,
        skip=surface_config.skip,
        weight_norm=surface_config.weight_norm,
        sphere_radius=INITIAL_SPHERE_RADIUS if surface_config.start.endswith("sphere") else None,
        inside_out=surface_config.start == "inside sphere",
    )
    if surface_config.start == "empty":
        torch.nn.init.constant_(network.last.bias, EMPTY_FIELD_VALUE)
    color_config = config.colour
    return BlockModel(
        SurfaceField(
            encoding,
            network,
            initial_sdf if from_initial_sdf else None,
            surface_config.features,
            use_numerical_gradient=surface_config.gradient == "differences",
        ),
        ColorHead(
            surface_config.features,
            color_config.code,
            layers=color_config.layers,
            width=color_config.width,
            frequencies=color_config.frequencies,
        ),
        AppearanceEmbedding(n_photos, has_exposure=color_config.gain, n_appearance=color_config.code),
        BackgroundField(color_config.code),
        build_renderer(config),
        build_sampler(config),
        None if walls is None else SemanticHead(surface_config.features, walls.up_world, walls.normals_world),
    )


def build_encoding(config: TrainConfig) -> Encoding:
    """The encoding; it does not hold the point itself, which the network gets beside it."""
    match config.encoding:
        case HashEncodingConfig() as e:
            return HashGrid(e.levels, e.coarsest, e.finest, e.log2_table, e.features)
        case FrequencyEncodingConfig() as e:
            return FrequencyEncoding(e.frequencies, include_input=False)
        case FourierEncodingConfig() as e:
            return RandomFourierEncoding(e.waves, e.scale, seed=0)
        case GridEncodingConfig() as e:
            return DenseGrid(e.resolution, e.features)


def build_renderer(config: TrainConfig) -> Renderer:
    """The renderer."""
    match config.renderer:
        case NeusRendererConfig() as r:
            return NeusRenderer(r.sharpness)
        case LaplaceRendererConfig() as r:
            return LaplaceRenderer(r.beta)
        case SurfaceRendererConfig():
            return SurfaceRenderer()
        case r:
            return DensityRenderer(r.scale)


def build_sampler(config: TrainConfig) -> Sampler:
    """The sampler."""
    match config.sampler:
        case GuidedSamplerConfig() as s:
            return GuidedSampler(s.samples)
        case ImportanceSamplerConfig() as s:
            return ImportanceSampler(s.coarse, s.rounds, s.per_round)
        case HierarchicalSamplerConfig() as s:
            return HierarchicalSampler(s.coarse, s.fine)
        case BoundedSamplerConfig() as s:
            return ErrorBoundedSampler(s.samples, s.search, s.rounds, s.error)
        case TraceSamplerConfig() as s:
            return SphereTracingSampler(s.iterations, s.march, s.secants)
        case MarchSamplerConfig() as s:
            return RayMarchingSampler(s.steps, s.secants)
        case s:
            return WindowSampler(s.window, s.beside, s.rounds, s.per_round, s.half_width)
