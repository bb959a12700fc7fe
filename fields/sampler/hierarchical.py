"""Hierarchical sampling (NeRF sec. 5.2)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.importance import merge_sorted, sample_pdf, sdf_along
from quoin.fields.sampler.sampler import SamplerConfig, SurfaceQuery
from quoin.fields.sampler.sections import section_lengths
from quoin.fields.sampler.stratified import stratified_samples


class HierarchicalSamplerConfig(SamplerConfig):
    """Stratified samples, then more by their weights (NeRF)."""

    kind: Literal["hierarchical"] = "hierarchical"
    coarse: int = Field(64, ge=4)
    fine: int = Field(128, ge=4)

    def build(self) -> HierarchicalSampler:
        return HierarchicalSampler(self.coarse, self.fine)


class HierarchicalSampler:
    """Stratified samples, and more by the weights that the field gives them; one field for both, NeRF has two."""

    def __init__(self, coarse: int, fine: int) -> None:
        self.n_jitter, self.coarse = coarse + fine, coarse

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays jitter"]) -> RaySamples:
        """Samples, ascending, coarse and fine ones together."""
        coarse, _ = stratified_samples(rays.near, rays.far, jitter[:, : self.coarse])
        value = sdf_along(surface.sdf, rays, coarse)
        deltas = (rays.far - rays.near)[:, None] / self.coarse
        weight = weights_from_alpha(surface.renderer.proposal_alpha(value, deltas, deltas.new_zeros(())))
        t = merge_sorted(coarse, sample_pdf(coarse, weight, jitter[:, self.coarse :]))
        return RaySamples(rays, t, section_lengths(t))
