"""The surface: a signed distance and its gradient in one forward pass.

Points are in the block's frame, the cube [-1, 1]³; distances are in its unit.

The analytic gradient of a grid at a point is that of one cell, and the eikonal loss changes that cell only. Differences
over a cell reach into the neighbors: they smooth, and many cells learn from one point (Neuralangelo sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.conditioning import UNCONDITIONED, Conditioning
from quoin.fields.encoding.encoding import Encoding
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.sdf_grids import SparseSdf
from quoin.pipeline.core.config import StageConfig


class SurfaceConfig(StageConfig):
    """The signed distance, or another value of that sign: what it starts as, and the network that corrects it."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"start": "init", "distance": "is_distance"}
    init: Literal["sfm", "sphere", "inside sphere", "empty"] = "sfm"
    """Sfm: the SDF fused from SfM points and depth maps; empty: nothing anywhere, for densities."""
    layers: int = Field(1, ge=1, le=12)
    """Hidden layers."""
    width: int = Field(64, ge=8)
    """Neurons of a layer."""
    skip: int | None = Field(None, ge=1)
    """Hidden layer, from 0, that gets the encoding again."""
    weight_norm: bool = False
    """Whether weights are normalized."""
    features: int = Field(15, ge=1)
    """Input of the color network."""
    gradient: Literal["analytic", "numerical"] = "analytic"
    """By position: of the network itself, or central differences over a cell of the finest active level
    (Neuralangelo)."""
    is_distance: bool = True
    """False (density, occupancy): the value is meshed by its sign alone."""


class FieldOutput(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the color head [n, f]; curvature [n]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor
    curvature: Tensor | None = None  # change of the slope over a cell; of numerical gradients only


class SurfaceField(nn.Module):
    """sdf(x) = initial_sdf(x) + network(x, encoding(x)); without an initial SDF the network starts as a sphere.

    ``use_numerical_gradient``: central differences over a cell of the encoding (Neuralangelo sec. 3.1).
    """

    def __init__(
        self,
        encoding: Encoding,
        network: ScalarMLP,
        initial_sdf: SparseSdf | None,
        n_feature: int,
        *,
        use_numerical_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.encoding, self.network, self.initial_sdf = encoding, network, initial_sdf
        self.use_numerical_gradient = use_numerical_gradient
        self.feature_head = nn.Linear(network.output_layer.in_features, n_feature)

    def forward(self, points: Float[Tensor, "n 3"], condition: Conditioning = UNCONDITIONED) -> FieldOutput:
        """Value, gradient and feature in one pass; numerical gradients take seven, and give the curvature too.

        This field is the same in every ``condition``.
        """
        if self.use_numerical_gradient:
            hidden = self.network.hidden(self._inputs(points))
            value = self._add_initial(self.network.output_layer(hidden)[:, 0], points)
            cell = self.encoding.cell()
            gradient, laplacian = central_differences(self.sdf, points, value, cell)
            return FieldOutput(value, gradient, self.feature_head(hidden), laplacian * cell)
        features, pull_back = self.encoding.linearize(points)
        value, slope, hidden = self.network.linearize(torch.cat([points, features], dim=1))
        gradient = slope[:, :3] + pull_back(slope[:, 3:])
        if self.initial_sdf is not None:
            initial, initial_gradient = self.initial_sdf.with_gradient(points)
            value, gradient = value + initial, gradient + initial_gradient
        return FieldOutput(value, gradient, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone."""
        return self._add_initial(self.network(self._inputs(points)), points)

    def _inputs(self, points: Tensor) -> Tensor:
        return torch.cat([points, self.encoding(points)], dim=1)

    def _add_initial(self, value: Tensor, points: Tensor) -> Tensor:
        return value if self.initial_sdf is None else value + self.initial_sdf(points)


def central_differences(
    value: Callable[[Tensor], Tensor],
    points: Float[Tensor, "n 3"],
    center_value: Float[Tensor, "n"],
    step: Float[Tensor, ""],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Gradient and Laplacian of ``value`` at points, from six values around each and ``center_value`` at the point.

    ∂f/∂xᵢ = (f(x + ε eᵢ) − f(x − ε eᵢ)) / 2ε and ∇²f = Σᵢ (f(x + ε eᵢ) − 2f(x) + f(x − ε eᵢ)) / ε², ε = ``step``
    (Neuralangelo eq. 3 and its supplement). Exact for quadratic f.
    """
    shift = step * torch.eye(3, device=points.device, dtype=points.dtype)[:, None]
    around = torch.cat([points + shift, points - shift]).reshape(-1, 3)
    ahead, behind = value(around).view(2, 3, -1).unbind(0)
    gradient = (ahead - behind).T / (2.0 * step)
    return gradient, (ahead + behind - 2.0 * center_value).sum(dim=0) / (step * step)
