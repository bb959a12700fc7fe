"""Whether the surface still moves: by the network, at samples of the cached volume near the surface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.grids.dense_sdf import Volume

LOOK = 0.025  # share of the training between two looks
IN_A_ROW = 3  # looks that must find it still
LAST_STRETCH = 0.9  # share of the schedules to go on from then: what is left of them evens out the noise of the steps
DRAWN, LOOKED_AT = 1 << 20, 1 << 13

Sdf = Callable[[Tensor], Tensor]


def near_surface(volume: Volume, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Positions of up to LOOKED_AT random samples of the volume that lie within one spacing of the surface."""
    values = volume.values.view(-1)
    drawn = torch.randint(len(values), (DRAWN,), generator=generator).to(values.device)
    near = drawn[values[drawn].abs() < volume.spacing][:LOOKED_AT]
    _, ny, nz = volume.values.shape
    cell = torch.stack([near // (ny * nz), near // nz % ny, near % nz], dim=1)
    return cell * volume.spacing + volume.low


class Movement:
    """Compares the SDF with what it was a look ago; ``voxel`` is the lattice's, in the volume's unit."""

    def __init__(self, voxel: float) -> None:
        self.voxel, self.still = voxel, 0
        self._generator = torch.Generator().manual_seed(0)  # of its own: looking changes nothing
        self._points: Tensor | None = None
        self._before: Tensor | None = None

    def look(self, volume: Volume, sdf: Sdf, threshold: float) -> float | None:
        """95th percentile of |Δf| in voxels since the last look, or None at the first; counts looks below threshold."""
        moved = None
        if self._points is not None and self._before is not None and len(self._points):
            change = (sdf(self._points) - self._before).abs()
            moved = float(torch.quantile(change, 0.95)) / self.voxel
            self.still = self.still + 1 if moved < threshold else 0
        self._points = near_surface(volume, self._generator)
        self._before = sdf(self._points)
        return moved
