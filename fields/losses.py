"""Loss terms: what each is a function of, its weight, and the one list of them. Lengths are in the block's unit.

A new loss is a function, a line in LOSS_TERMS, and where it needs another input, a field of LossInputs. Its weight is
configured as ``train.losses.<name>``; its value is logged under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, create_model
from torch import Tensor
from torch.nn import functional

from quoin.fields.field.heads import SemanticHead
from quoin.fields.rays import RaySamples, RenderOutput
from quoin.fields.sampler.sections import first_surface
from quoin.pipeline.core.config import StageConfig


class TrainBatch(NamedTuple):
    """Inputs of a step, tensors of fixed shapes. None is what a method has no use for."""

    pixels: Int[Tensor, "rays 3"]  # photo, x, y
    color: Float[Tensor, "rays 3"]  # of the pixels
    color_weight: Float[Tensor, "rays"]  # 0 where masked
    jitter: Float[Tensor, "rays samples"]
    background_jitter: Float[Tensor, "rays background"]
    points: Float[Tensor, "points 3"]  # on the surface, by SfM, stereo or planes
    point_weight: Float[Tensor, "points"]
    point_normal: Float[Tensor, "points 3"]  # 0 where not known
    free_points: Float[Tensor, "points 3"]  # between a camera and a point that it saw
    free_margin: Float[Tensor, "points"]
    uniform: Float[Tensor, "points 3"]  # anywhere in the block
    source_priority: Float[Tensor, "patches s"]  # random order of source photos
    interior_points: Float[Tensor, "behind 3"] | None  # just behind points on the surface
    interior_weight: Float[Tensor, "behind"] | None
    sky: Float[Tensor, "rays"] | None = None  # 1 where a pixel shows sky
    semantic: Float[Tensor, "rays kinds"] | None = None  # 1 for the class of a pixel, where that is known

    def extra_points(self) -> Float[Tensor, "extra 3"]:
        """The points that belong to no ray: on the surface, free, uniform, interior."""
        parts = [self.points, self.free_points, self.uniform]
        return torch.cat(parts if self.interior_points is None else [*parts, self.interior_points])


@dataclass(frozen=True)
class LossInputs:
    """What loss terms are functions of."""

    outputs: RenderOutput
    samples: RaySamples
    batch: TrainBatch
    semantic: SemanticHead | None
    photoconsistency: Float[Tensor, ""] | None  # of the batch's patches

    @property
    def surface_sdf(self) -> Float[Tensor, "points"]:
        """SDF at the batch's points on the surface."""
        return self.outputs.extra_sdf[: len(self.batch.points)]

    @property
    def surface_gradient(self) -> Float[Tensor, "points 3"]:
        """Gradient at the batch's points on the surface."""
        return self.outputs.extra_gradient[: len(self.batch.points)]

    @property
    def free_sdf(self) -> Float[Tensor, "points"]:
        """SDF at the batch's free points."""
        n = len(self.batch.points)
        return self.outputs.extra_sdf[n : 2 * n]


@dataclass(frozen=True)
class LossTerm:
    """A term of the loss: its name, default weight, and value; the value is None where the method lacks an input."""

    name: str
    weight: float
    fn: Callable[[LossInputs], Float[Tensor, ""] | None]
    warm_up: float = 0.0  # share of the training over which the weight rises from 0

    def ramp(self, progress: float) -> float:
        """Factor of the weight at ``progress`` 0..1 of the training."""
        return min(1.0, progress / self.warm_up) if self.warm_up else 1.0


def color_loss(
    rendered: Float[Tensor, "rays 3"], photo: Float[Tensor, "rays 3"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Mean absolute difference over channels and rays, weighted (NeuS eq. 15)."""
    return ((rendered - photo).abs().mean(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def color_squared_loss(
    rendered: Float[Tensor, "rays 3"], photo: Float[Tensor, "rays 3"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Mean squared difference over channels and rays, weighted (NeRF eq. 6): what PSNR measures."""
    return (((rendered - photo) ** 2).mean(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def eikonal_loss(gradient: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean of (|∇f| − 1)² (Gropp et al. 2020, eq. 2)."""
    return ((torch.sqrt((gradient * gradient).sum(dim=1) + 1e-8) - 1.0) ** 2).mean()


def curvature_loss(curvature: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean |ε ∇²f|: the change of the slope over a cell of side ε of the finest active level.

    Neuralangelo (eq. 6) has mean |∇²f| and divides its weight by a level's growth for each level that becomes active:
    the same, with ε at the coarsest level as part of the weight.
    """
    return curvature.abs().mean()


def surface_points_loss(sdf: Float[Tensor, "n"], weight: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """SfM points lie on the surface: mean |f|, weighted by the accuracy of each (Geo-NeuS eq. 10)."""
    return (sdf.abs() * weight).sum() / weight.sum().clamp(min=1e-6)


def normals_loss(
    gradient: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"], weight: Float[Tensor, "n"]
) -> Float[Tensor, ""]:
    """Gradients point along the normals of points on planes: mean 1 − cos. A normal of 0 is not known and left out."""
    known_weight = (normal != 0).any(dim=1) * weight
    cosine = (torch.nn.functional.normalize(gradient, dim=1, eps=1e-6) * normal).sum(dim=1)
    return ((1.0 - cosine) * known_weight).sum() / known_weight.sum().clamp(min=1e-6)


def free_space_loss(sdf: Float[Tensor, "n"], margin: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Space between a camera and a point that it saw is empty: hinge loss of f ≥ ``margin``."""
    return torch.relu(margin - sdf).mean()


def sky_loss(
    opacity: Float[Tensor, "rays"], sky: Float[Tensor, "rays"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Rays of sky pixels are transparent: −ln(1 − opacity), mean over all rays (NeuralRecon-W: cross-entropy to 0).

    Opacities are reduced by 0.1 %, so that fully opaque rays have a gradient too.
    """
    return (-torch.log1p(-0.999 * opacity) * sky * weight).mean()


def semantic_loss(
    logits: Float[Tensor, "rays kinds"], target: Float[Tensor, "rays kinds"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Cross-entropy of rendered logits to labels, one-hot or all 0 where there is none (ManhattanSDF)."""
    return -((target * torch.log_softmax(logits, dim=1)).sum(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def manhattan_loss(
    logits: Float[Tensor, "rays kinds"], manhattan_error: Float[Tensor, "rays kinds"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Floors are level, walls upright: error of the normal by class, weighted by its probability (ManhattanSDF)."""
    return ((torch.softmax(logits, dim=1) * manhattan_error).sum(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def opacity_entropy_loss(opacity: Float[Tensor, "rays"]) -> Float[Tensor, ""]:
    """Mean entropy of the rays' opacity: each is opaque or transparent, so there is no fog."""
    opacity = opacity.clamp(1e-3, 1.0 - 1e-3)
    return -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean()


def occupancy_loss(
    logits: Float[Tensor, "n"], occupied: Bool[Tensor, "n"], weight: Float[Tensor, "n"]
) -> Float[Tensor, ""]:
    """Weighted mean binary cross-entropy (Occupancy Networks eq. 3); σ(``logits``) is the probability of being inside.

    A weight of 0 leaves a point out at a fixed shape.
    """
    cost = functional.binary_cross_entropy_with_logits(logits, occupied.to(logits.dtype), reduction="none")
    return (cost * weight).sum() / weight.sum().clamp(min=1.0)


def _color(x: LossInputs) -> Tensor:
    return color_loss(x.outputs.color, x.batch.color, x.batch.color_weight)


def _color_squared(x: LossInputs) -> Tensor:
    return color_squared_loss(x.outputs.color, x.batch.color, x.batch.color_weight)


def _eikonal(x: LossInputs) -> Tensor:
    return eikonal_loss(torch.cat([x.outputs.gradient.reshape(-1, 3), x.outputs.extra_gradient]))


def _sfm_points(x: LossInputs) -> Tensor:
    return surface_points_loss(x.surface_sdf, x.batch.point_weight)


def _normals(x: LossInputs) -> Tensor:
    return normals_loss(x.surface_gradient, x.batch.point_normal, x.batch.point_weight)


def _sky(x: LossInputs) -> Tensor | None:
    return None if x.batch.sky is None else sky_loss(x.outputs.opacity, x.batch.sky, x.batch.color_weight)


def _semantic(x: LossInputs) -> Tensor | None:
    if x.batch.semantic is None or x.outputs.semantic_logits is None:
        return None
    return semantic_loss(x.outputs.semantic_logits, x.batch.semantic, x.batch.color_weight)


def _manhattan(x: LossInputs) -> Tensor | None:
    if x.batch.semantic is None or x.semantic is None or x.outputs.semantic_logits is None:
        return None
    _, normal, has_surface = first_surface(x.outputs.sdf, x.samples.t, x.outputs.gradient)
    weight = x.batch.color_weight * (has_surface & x.samples.rays.hits)
    return manhattan_loss(x.outputs.semantic_logits, x.semantic.manhattan_error(normal), weight)


def _occupancy(x: LossInputs) -> Tensor | None:
    """The field as the logit of being empty: free points are empty, interior points are not."""
    if x.batch.interior_points is None or x.batch.interior_weight is None:
        return None
    free, interior = x.free_sdf, x.outputs.extra_sdf[-len(x.batch.interior_points) :]
    occupied = torch.arange(len(free) + len(interior), device=free.device) >= len(free)
    weight = torch.cat([torch.ones_like(free), x.batch.interior_weight])
    return occupancy_loss(-torch.cat([free, interior]), occupied, weight)


LOSS_TERMS = (  # default weights: those of the method quoin
    LossTerm("photoconsistency", 0.15, lambda x: x.photoconsistency),  # patches look alike in all photos
    LossTerm("color", 2.0, _color),
    LossTerm("color_squared", 0.0, _color_squared),
    LossTerm("eikonal", 0.1, _eikonal),
    LossTerm("sfm_points", 2.0, _sfm_points),
    LossTerm("normals", 0.3, _normals),
    LossTerm("free_space", 2.0, lambda x: free_space_loss(x.free_sdf, x.batch.free_margin)),
    LossTerm("opacity", 0.0, lambda x: opacity_entropy_loss(x.outputs.opacity)),
    LossTerm("sky", 0.1, _sky),
    LossTerm("semantic", 0.5, _semantic),
    LossTerm("manhattan", 0.05, _manhattan),
    LossTerm(  # Neuralangelo: over 5,000 of 500,000 steps
        "curvature", 0.0, lambda x: None if x.outputs.curvature is None else curvature_loss(x.outputs.curvature), 0.01
    ),
    LossTerm("occupancy", 0.0, _occupancy),
)


class _LossSettings(StageConfig):
    """Weights of the loss terms."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {
        "colour": "color",
        "colour_squared": "color_squared",
        "points": "sfm_points",
        "free": "free_space",
        "patch": "photoconsistency",
        "patch_after": "photoconsistency_start",
        "kind": "semantic",
        "layout": "manhattan",
    }
    photoconsistency_start: float = Field(0.12, ge=0, lt=1)
    """Share of the training before which its weight is 0."""

    @property
    def has_color_loss(self) -> bool:
        """True if photos supervise colors."""
        return bool(getattr(self, "color") or getattr(self, "color_squared"))  # noqa: B009  (fields made below)

    def at(self, progress: float) -> list[float]:
        """Weights of LOSS_TERMS at ``progress`` 0..1 of the training."""
        return [
            0.0
            if term.name == "photoconsistency" and progress < self.photoconsistency_start
            else getattr(self, term.name) * term.ramp(progress)
            for term in LOSS_TERMS
        ]


if TYPE_CHECKING:

    class LossWeightsConfig(_LossSettings):
        """A weight for each of LOSS_TERMS."""

        def __init__(self, **weights: float) -> None: ...

        def __getattr__(self, name: str) -> float: ...
else:
    _WEIGHTS: dict[str, Any] = {
        term.name: (float, Field(term.weight, ge=0, description=f"Weight of the loss {term.name}; 0 leaves it out."))
        for term in LOSS_TERMS
    }
    LossWeightsConfig = create_model("LossWeightsConfig", __base__=_LossSettings, __module__=__name__, **_WEIGHTS)


def weighted_loss(
    inputs: LossInputs, weights: Float[Tensor, "terms"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "terms"]]:
    """Σ weight · term, and the terms, 0 where the method has none."""
    values = [term.fn(inputs) for term in LOSS_TERMS]
    none = inputs.outputs.color.new_zeros(())
    terms = torch.stack([none if value is None else value for value in values])
    return (terms * weights).sum(), terms.detach()
