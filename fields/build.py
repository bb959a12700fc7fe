"""The configuration of a block's model, and the model built from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from pydantic import model_validator

from quoin.fields.encoding.encoding import EncodingConfig
from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.field.background import BackgroundConfig, BackgroundField
from quoin.fields.field.color import AppearanceEmbedding, ColorConfig, ColorHead
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import SurfaceConfig, SurfaceField
from quoin.fields.field.semantic import SemanticHead
from quoin.fields.grids.sparse_sdf import SparseSdf
from quoin.fields.model import BlockModel
from quoin.fields.parts import any_kind_of
from quoin.fields.renderer.neus import NeusRendererConfig
from quoin.fields.renderer.renderer import RendererConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.fields.sampler.sampler import SamplerConfig
from quoin.pipeline.core.config import StageConfig
from quoin.pipeline.core.errors import QuoinError

EMPTY_FIELD_VALUE = 3.0  # initial value of a density field with nothing in it
INITIAL_SPHERE_RADIUS = 0.5  # of a field that starts as a sphere (NeuS)

if TYPE_CHECKING:
    AnyEncoding = EncodingConfig
    AnyRenderer = RendererConfig
    AnySampler = SamplerConfig
else:
    AnyEncoding = any_kind_of(EncodingConfig, "quoin.fields.encoding")
    AnyRenderer = any_kind_of(RendererConfig, "quoin.fields.renderer")
    AnySampler = any_kind_of(SamplerConfig, "quoin.fields.sampler")


class ModelConfig(StageConfig):
    """The parts of a model. The defaults are those of the method ``quoin``."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"colour": "color", "outside": "background"}
    encoding: AnyEncoding = HashEncodingConfig()
    surface: SurfaceConfig = SurfaceConfig()
    color: ColorConfig = ColorConfig()
    background: BackgroundConfig = BackgroundConfig()
    renderer: AnyRenderer = NeusRendererConfig()
    sampler: AnySampler = GuidedSamplerConfig()

    @model_validator(mode="after")
    def check_parts(self) -> ModelConfig:
        """Raise QuoinError where two parts do not go together."""
        on_surface, grid = self.renderer.needs_surface, self.encoding.is_grid
        self.refuse(
            on_surface != self.sampler.finds_surface,
            "Renderer surface and samplers that find the surface (trace, march) need each other",
            "choose both, or neither",
        )
        self.refuse(
            on_surface and grid,
            "Surface rendering needs an encoding with derivatives by position, which grids do not have",
            "choose encoding frequency or fourier",
        )
        self.refuse(
            self.surface.gradient == "numerical" and not grid,
            "Numerical gradients are differences over a cell of a grid",
            "choose encoding hash or grid, or surface.gradient analytic",
        )
        self.refuse(
            self.surface.skip is not None and self.surface.skip >= self.surface.layers,
            f"surface.skip is {self.surface.skip}, but there are only {self.surface.layers} hidden layers, from 0",
            "set surface.skip below surface.layers",
        )
        return self

    def refuse(self, wrong: bool, what: str, hint: str) -> None:
        """Raise QuoinError(what, hint) with the kinds of the parts if ``wrong``."""
        if wrong:
            kinds = f"renderer {self.renderer.kind}, sampler {self.sampler.kind}, encoding {self.encoding.kind}"
            raise QuoinError(what, where=f"train: {kinds}", hint=hint)


def build_model(
    config: ModelConfig, initial_sdf: SparseSdf, n_photos: int, walls: tuple[np.ndarray, np.ndarray] | None = None
) -> BlockModel:
    """The model of a block; its surface starts as ``initial_sdf``, as a sphere, or with nothing.

    ``walls``: up [3] and normals of walls [k, 3]. With them the model has a semantic head: floor, ceiling, wall, other.
    """
    encoding, surface = config.encoding.build(), config.surface
    network = ScalarMLP(
        3 + encoding.width,
        surface.width,
        surface.layers,
        skip=surface.skip,
        weight_norm=surface.weight_norm,
        sphere_radius=INITIAL_SPHERE_RADIUS if surface.init.endswith("sphere") else None,
        inside_out=surface.init == "inside sphere",
    )
    if surface.init == "empty":
        torch.nn.init.constant_(network.output_layer.bias, EMPTY_FIELD_VALUE)
    n_appearance = config.color.appearance
    return BlockModel(
        SurfaceField(
            encoding,
            network,
            initial_sdf if surface.init == "sfm" else None,
            surface.features,
            use_numerical_gradient=surface.gradient == "numerical",
        ),
        ColorHead(surface.features, config.color),
        AppearanceEmbedding(n_photos, has_exposure=config.color.exposure, n_appearance=n_appearance),
        BackgroundField(n_appearance),
        config.renderer.build(),
        config.sampler.build(),
        None if walls is None else SemanticHead(surface.features, *walls),
    )
