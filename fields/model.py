"""The model of one block: its configuration, its parts, and how they render rays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from quoin.fields.conditioning import Conditioning, IdentityWarp, Warp, pull_back_gradient
from quoin.fields.encoding.encoding import EncodingConfig
from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.field.background import BackgroundConfig, BackgroundField, contract
from quoin.fields.field.heads import AppearanceEmbedding, ColorConfig, ColorHead, SemanticHead
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import FieldOutput, SurfaceConfig, SurfaceField
from quoin.fields.parts import any_kind_of
from quoin.fields.rays import RaySamples, RaySegments, RenderOutput
from quoin.fields.renderer.neus import NeusRendererConfig
from quoin.fields.renderer.renderer import Renderer, RendererConfig, alpha_from_density, weights_from_alpha
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.fields.sampler.sampler import Sampler, SamplerConfig, SurfaceQuery
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
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
    """Features of a point, the input of the surface network."""
    surface: SurfaceConfig = SurfaceConfig()
    """The field of signed distances."""
    color: ColorConfig = ColorConfig()
    """The field of colors."""
    background: BackgroundConfig = BackgroundConfig()
    """What lies outside the block."""
    renderer: AnyRenderer = NeusRendererConfig()
    """How samples along a ray become opacities."""
    sampler: AnySampler = GuidedSamplerConfig()
    """Where along its ray each sample lies."""

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


class BlockModel(nn.Module):
    """All that is learned of a block. The state dict is its checkpoint."""

    def __init__(
        self,
        surface: SurfaceField,
        color: ColorHead,
        appearance: AppearanceEmbedding,
        background: BackgroundField,
        renderer: Renderer,
        sampler: Sampler,
        semantic: SemanticHead | None = None,
    ) -> None:
        super().__init__()
        self.surface, self.color, self.appearance, self.background = surface, color, appearance, background
        self.renderer, self.sampler, self.semantic = renderer, sampler, semantic
        self.warp: Warp = IdentityWarp()

    def sample(self, rays: RaySegments, cache: DenseSdf, jitter: Float[Tensor, "rays jitter"]) -> RaySamples:
        """Samples of rays inside the block."""
        return self.sampler(rays, SurfaceQuery(self.surface.sdf, self.renderer, cache), jitter)

    def render(
        self,
        samples: RaySamples,
        background_t: Float[Tensor, "rays background"],
        condition: Conditioning,
        anneal: Float[Tensor, ""],
        extra_points: Float[Tensor, "extra 3"],
    ) -> RenderOutput:
        """Color of rays; SDF and gradient at their samples and at ``extra_points``, from one forward pass.

        ``background_t``: distances of samples behind the block. ``condition`` has a row a ray. ``extra_points`` belong
        to no photo: they are in the field's own space.
        """
        rays, t, (n_rays, n_samples) = samples.rays, samples.t, samples.t.shape
        n_flat, directions = n_rays * n_samples, rays.directions
        geometry = condition.geometry().repeat(n_samples)
        flat, jacobian = self.warp(samples.points().reshape(-1, 3), geometry)
        at_points = self.surface(torch.cat([flat, extra_points]), geometry.pad(len(extra_points)))
        sdf = at_points.sdf[:n_flat].view(n_rays, n_samples)
        gradient = pull_back_gradient(at_points.gradient[:n_flat], jacobian).view(n_rays, n_samples, 3)
        cosine = (gradient * directions[:, None]).sum(dim=2)
        alpha = self.renderer.alpha(sdf, cosine, samples.deltas, anneal) * rays.hits[:, None]

        sample_directions = directions[:, None].expand(-1, n_samples, -1).reshape(-1, 3)
        at_samples = FieldOutput(sdf.reshape(-1), gradient.reshape(-1, 3), at_points.feature[:n_flat])
        flat, shaded = self.renderer.shading_points(
            lambda points: self.surface(points, geometry), sample_directions, flat, at_samples
        )
        normals = nn.functional.normalize(shaded.gradient, dim=1, eps=1e-6)
        color = self.color(shaded.feature, flat, normals, sample_directions, condition.repeat(n_samples))
        color = color.view(n_rays, n_samples, 3)
        background_alpha, background_color = self._render_background(rays, background_t, condition)

        weight = weights_from_alpha(torch.cat([alpha, background_alpha], dim=1))
        colors = torch.cat([color, background_color], dim=1)
        block_weight, semantic_logits = weight[:, :n_samples], None
        if self.semantic is not None:
            logits = self.semantic(at_samples.feature, flat).view(n_rays, n_samples, -1)
            semantic_logits = (block_weight[..., None].detach() * logits).sum(dim=1)
        return RenderOutput(
            color=(weight[..., None] * colors).sum(dim=1) * condition.exposure,
            block_color=(block_weight[..., None] * color).sum(dim=1) * condition.exposure,
            opacity=block_weight.sum(dim=1),
            depth=(block_weight * t).sum(dim=1),
            normal=(block_weight[..., None] * normals.view(n_rays, n_samples, 3)).sum(dim=1),
            sdf=sdf,
            gradient=gradient,
            extra_sdf=at_points.sdf[n_flat:],
            extra_gradient=at_points.gradient[n_flat:],
            semantic_logits=semantic_logits,
            curvature=at_points.curvature,
        )

    def _render_background(
        self, rays: RaySegments, t: Float[Tensor, "rays samples"], condition: Conditioning
    ) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
        """Opacity and color of samples behind the block; the last one, the sky, is opaque."""
        n_rays, n_samples = t.shape
        points = rays.points(t).reshape(-1, 3)
        contracted = contract(points).view(n_rays, n_samples, 3)
        step = (contracted[:, 1:] - contracted[:, :-1]).norm(dim=2)
        directions = rays.directions[:, None].expand(-1, n_samples, -1).reshape(-1, 3)
        density, color = self.background(points, directions, condition.repeat(n_samples))
        alpha = alpha_from_density(density.view(n_rays, n_samples)[:, :-1], step * 20.0)
        return torch.cat([alpha, torch.ones_like(alpha[:, :1])], dim=1), color.view(n_rays, n_samples, 3)


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
