"""The model of one block: its parts, and how they render a ray."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.field.background import BackgroundField, contract
from quoin.fields.field.color import AppearanceEmbedding, ColorHead
from quoin.fields.field.sdf import FieldOutput, SurfaceField
from quoin.fields.field.semantic import SemanticHead
from quoin.fields.renderer.volume import alpha_from_density, weights_from_alpha
from quoin.fields.sampler.base import Renderer, Sampler
from quoin.fields.sampler.sections import points_along


class BlockModel(nn.Module):
    """All that is learnt of a block. The state dict is its checkpoint."""

    def __init__(
        self,
        surface: SurfaceField,
        color: ColorHead,
        appearance: AppearanceEmbedding,
        outside: BackgroundField,
        renderer: Renderer,
        sampler: Sampler,
        layout: SemanticHead | None = None,
    ) -> None:
        super().__init__()
        self.surface, self.colour, self.appearance, self.outside = surface, color, appearance, outside
        self.renderer, self.sampler, self.layout = renderer, sampler, layout

    def render(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        photo: Tensor,
        t: Float[Tensor, "rays samples"],
        deltas: Float[Tensor, "rays samples"],
        hits: Tensor,
        background_t: Float[Tensor, "rays outside"],
        anneal: Float[Tensor, ""],
        extra_points: Float[Tensor, "extra 3"],
    ) -> dict[str, Tensor]:
        """Colour of rays; and SDF and gradient at their samples and at ``extra_points``, from one forward pass.

        "inside" is the part of the colour that comes from within the block; "normal" is weighted as the colour is;
        "curvature" of all points is there if the field gives it, "kinds" if there is a layout. ``directions`` are unit;
        ``hits`` bool [rays]: whether the ray meets the block at all.
        """
        n_rays, n_samples = t.shape
        flat = points_along(origins, directions, t).reshape(-1, 3)
        field_output = self.surface(torch.cat([flat, extra_points]))
        n_flat = n_rays * n_samples
        sdf = field_output.sdf[:n_flat].view(n_rays, n_samples)
        gradient = field_output.gradient[:n_flat].view(n_rays, n_samples, 3)
        cosine = (gradient * directions[:, None]).sum(dim=2)
        alpha = self.renderer.alpha(sdf, cosine, deltas, anneal) * hits[:, None]

        exposure, appearance = self.appearance(photo)
        sample_directions = directions[:, None].expand(-1, n_samples, -1).reshape(-1, 3)
        appearances = appearance[:, None].expand(-1, n_samples, -1).reshape(n_flat, -1)
        sample_output = FieldOutput(sdf.reshape(-1), gradient.reshape(-1, 3), field_output.feature[:n_flat])
        flat, shaded_output = self.renderer.shading_points(self.surface, sample_directions, flat, sample_output)
        normals = nn.functional.normalize(shaded_output.gradient, dim=1, eps=1e-6)
        color = self.colour(shaded_output.feature, flat, normals, sample_directions, appearances).view(
            n_rays, n_samples, 3
        )

        n_background = background_t.shape[1]
        background_points = points_along(origins, directions, background_t).reshape(-1, 3)
        contracted = contract(background_points).view(n_rays, n_background, 3)
        step = (contracted[:, 1:] - contracted[:, :-1]).norm(dim=2)
        density, background_color = self.outside(
            background_points,
            directions[:, None].expand(-1, n_background, -1).reshape(-1, 3),
            appearance[:, None].expand(-1, n_background, -1).reshape(n_rays * n_background, -1),
        )
        background_alpha = alpha_from_density(density.view(n_rays, n_background)[:, :-1], step * 20.0)
        background_alpha = torch.cat(
            [background_alpha, torch.ones_like(background_alpha[:, :1])], dim=1
        )  # the last one is the sky

        weight = weights_from_alpha(torch.cat([alpha, background_alpha], dim=1))
        colors = torch.cat([color, background_color.view(n_rays, n_background, 3)], dim=1)
        out = {
            "color": (weight[..., None] * colors).sum(dim=1) * exposure,
            "inside": (weight[:, :n_samples, None] * color).sum(dim=1) * exposure,
            "opacity": weight[:, :n_samples].sum(dim=1),
            "depth": (weight[:, :n_samples] * t).sum(dim=1),
            "normal": (weight[:, :n_samples, None] * normals.view(n_rays, n_samples, 3)).sum(dim=1),
            "sdf": sdf,
            "gradient": gradient,
            "extra_sdf": field_output.sdf[n_flat:],
            "extra_gradient": field_output.gradient[n_flat:],
        }
        if self.layout is not None:
            semantic_logits = self.layout(sample_output.feature, flat).view(n_rays, n_samples, -1)
            out["semantic_logits"] = (weight[:, :n_samples, None].detach() * semantic_logits).sum(dim=1)
        if field_output.curvature is not None:
            out["curvature"] = field_output.curvature
        return out
