"""The model of one block: its parts, and how they render a ray."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.field.background import Outside, contract
from quoin.fields.field.color import Appearance, ColourHead
from quoin.fields.field.sdf import SurfaceField, SurfaceSample
from quoin.fields.field.semantic import LayoutHead
from quoin.fields.renderer.volume import density_alpha, weights
from quoin.fields.sampler.base import Renderer, Sampler
from quoin.fields.sampler.sections import points_along


class BlockModel(nn.Module):
    """All that is learnt of a block. The state dict is its checkpoint."""

    def __init__(
        self,
        surface: SurfaceField,
        colour: ColourHead,
        appearance: Appearance,
        outside: Outside,
        renderer: Renderer,
        sampler: Sampler,
        layout: LayoutHead | None = None,
    ) -> None:
        super().__init__()
        self.surface, self.colour, self.appearance, self.outside = surface, colour, appearance, outside
        self.renderer, self.sampler, self.layout = renderer, sampler, layout

    def render(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        photo: Tensor,
        distance: Float[Tensor, "rays samples"],
        length: Float[Tensor, "rays samples"],
        hits: Tensor,
        outside_distance: Float[Tensor, "rays outside"],
        anneal: Float[Tensor, ""],
        more_points: Float[Tensor, "extra 3"],
    ) -> dict[str, Tensor]:
        """Colour of rays; and SDF and gradient at their samples and at ``more_points``, from one forward pass.

        "inside" is the part of the colour that comes from within the block; "normal" is weighted as the colour is;
        "curvature" of all points is there if the field gives it, "kinds" if there is a layout. ``directions`` are unit;
        ``hits`` bool [rays]: whether the ray meets the block at all.
        """
        n_rays, n_samples = distance.shape
        flat = points_along(origins, directions, distance).reshape(-1, 3)
        everything = self.surface(torch.cat([flat, more_points]))
        n_flat = n_rays * n_samples
        sdf = everything.sdf[:n_flat].view(n_rays, n_samples)
        gradient = everything.gradient[:n_flat].view(n_rays, n_samples, 3)
        cosine = (gradient * directions[:, None]).sum(dim=2)
        alpha = self.renderer.alpha(sdf, cosine, length, anneal) * hits[:, None]

        gain, code = self.appearance(photo)
        spread = directions[:, None].expand(-1, n_samples, -1).reshape(-1, 3)
        codes = code[:, None].expand(-1, n_samples, -1).reshape(n_flat, -1)
        here = SurfaceSample(sdf.reshape(-1), gradient.reshape(-1, 3), everything.feature[:n_flat])
        flat, seen = self.renderer.shown(self.surface, spread, flat, here)
        normals = nn.functional.normalize(seen.gradient, dim=1, eps=1e-6)
        colour = self.colour(seen.feature, flat, normals, spread, codes).view(n_rays, n_samples, 3)

        n_out = outside_distance.shape[1]
        behind = points_along(origins, directions, outside_distance).reshape(-1, 3)
        squeezed = contract(behind).view(n_rays, n_out, 3)
        step = (squeezed[:, 1:] - squeezed[:, :-1]).norm(dim=2)
        density, out_colour = self.outside(
            behind,
            directions[:, None].expand(-1, n_out, -1).reshape(-1, 3),
            code[:, None].expand(-1, n_out, -1).reshape(n_rays * n_out, -1),
        )
        out_alpha = density_alpha(density.view(n_rays, n_out)[:, :-1], step * 20.0)
        out_alpha = torch.cat([out_alpha, torch.ones_like(out_alpha[:, :1])], dim=1)  # the last one is the sky

        weight = weights(torch.cat([alpha, out_alpha], dim=1))
        colours = torch.cat([colour, out_colour.view(n_rays, n_out, 3)], dim=1)
        out = {
            "colour": (weight[..., None] * colours).sum(dim=1) * gain,
            "inside": (weight[:, :n_samples, None] * colour).sum(dim=1) * gain,
            "opacity": weight[:, :n_samples].sum(dim=1),
            "depth": (weight[:, :n_samples] * distance).sum(dim=1),
            "normal": (weight[:, :n_samples, None] * normals.view(n_rays, n_samples, 3)).sum(dim=1),
            "sdf": sdf,
            "gradient": gradient,
            "more_sdf": everything.sdf[n_flat:],
            "more_gradient": everything.gradient[n_flat:],
        }
        if self.layout is not None:
            kinds = self.layout(here.feature, flat).view(n_rays, n_samples, -1)
            out["kinds"] = (weight[:, :n_samples, None].detach() * kinds).sum(dim=1)
        if everything.curvature is not None:
            out["curvature"] = everything.curvature
        return out
