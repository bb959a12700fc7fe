"""What a warp is, the warp of a scene that does not move, and how a warp changes gradients.

A moving scene has one field, and a warp that takes the points of each moment to it (Nerfies, HyperNeRF). Samples of
rays are warped before the field is evaluated; SfM points and other points without a photo are in its space already.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.conditioning import Conditioning


class Warp(Protocol):
    """Map of points from the space of a photo's moment to the field's own space."""

    def __call__(
        self, points: Float[Tensor, "n 3"], condition: Conditioning
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"] | None]:
        """Points in the field's space, and the Jacobian ∂(field's space)/∂(photo's space) there, None for 1."""
        ...


class IdentityWarp(nn.Module):
    """Leaves points where they are; its Jacobian is None, which costs nothing."""

    def forward(self, points: Float[Tensor, "n 3"], condition: Conditioning) -> tuple[Float[Tensor, "n 3"], None]:
        """The points, and None."""
        return points, None


def pull_back_gradient(gradient: Float[Tensor, "n 3"], jacobian: Float[Tensor, "n 3 3"] | None) -> Float[Tensor, "n 3"]:
    """The gradient in the photo's space: Jᵀ ∇f.

    ``gradient`` is ∇f in the field's space, ``jacobian`` that of the warp; None is the identity.
    """
    return gradient if jacobian is None else torch.einsum("nij,ni->nj", jacobian, gradient)
