"""What a field depends on beside the point, and where the point lies in the space of the field.

This is the seam through which moving scenes and learned shapes enter. A moving scene has one field, and a warp that
takes the points of each moment to it (Nerfies, HyperNeRF): ``warp(points, condition) -> points, jacobian``. Samples of
rays are warped before the field is evaluated; SfM points and other points without a photo are in its space already.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Conditioning:
    """Inputs of a field beside the point, one row for each ray or point; None where the field has no such input.

    ``exposure`` is no input of a field: it multiplies the color that was rendered.
    """

    appearance: Float[Tensor, "n a"] | None = None  # embedding of the photo; changes color only (NeRF-W)
    exposure: Float[Tensor, "n 3"] | None = None  # factor by channel
    time: Float[Tensor, "n"] | None = None
    latent: Float[Tensor, "n z"] | None = None  # code of a shape
    pose: Float[Tensor, "n p"] | None = None  # of an articulated body

    def geometry(self) -> Conditioning:
        """The part that shape and warp may depend on: all but what differs between photos of the same moment."""
        return Conditioning(time=self.time, latent=self.latent, pose=self.pose)

    def repeat(self, n_samples: int) -> Conditioning:
        """The rows of rays as rows of their samples [rays · n_samples], ray by ray."""
        return self._map(lambda rows: rows[:, None].expand(-1, n_samples, *rows.shape[1:]).flatten(0, 1))

    def pad(self, n_rows: int) -> Conditioning:
        """The rows, and ``n_rows`` zero ones after them, for points that belong to no ray."""
        return self._map(lambda rows: torch.cat([rows, rows.new_zeros(n_rows, *rows.shape[1:])]))

    def _map(self, function) -> Conditioning:
        rows = {field.name: getattr(self, field.name) for field in fields(self)}
        return Conditioning(**{name: None if value is None else function(value) for name, value in rows.items()})


UNCONDITIONED = Conditioning()


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
