"""What a field depends on beside the point: the seam through which moving scenes and learned shapes enter."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


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
