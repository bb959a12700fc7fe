"""The model of one block: its parts, and how they render rays."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.conditioning import Conditioning
from quoin.fields.field.background import BackgroundField, contract
from quoin.fields.field.color import AppearanceEmbedding, ColorHead
from quoin.fields.field.sdf import FieldOutput, SurfaceField
from quoin.fields.field.semantic import SemanticHead
from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.rays import RaySamples, RaySegments, RenderOutput
from quoin.fields.renderer.renderer import Renderer, alpha_from_density, weights_from_alpha
from quoin.fields.sampler.sampler import Sampler, SurfaceQuery
from quoin.fields.warp.identity import IdentityWarp, Warp, pull_back_gradient


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
