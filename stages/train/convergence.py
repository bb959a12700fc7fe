"""Convergence test: drift of the network's SDF at samples near the surface between two checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.grids.dense_sdf import DenseSdf

CHECK_INTERVAL_SHARE = 0.025  # share of the training between two checks
MIN_STABLE_CHECKS = 3  # checks in a row below the threshold
FINAL_PHASE_START = 0.9  # share of the schedules to skip to after convergence: small rates even out the noise of steps
N_CANDIDATES, MAX_CHECK_POINTS = 1 << 20, 1 << 13

SdfFunction = Callable[[Tensor], Tensor]


def sample_near_surface(volume: DenseSdf, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Positions of up to MAX_CHECK_POINTS random samples of the volume within one spacing of the surface."""
    values = volume.values.view(-1)
    candidates = torch.randint(len(values), (N_CANDIDATES,), generator=generator).to(values.device)
    near = candidates[values[candidates].abs() < volume.spacing][:MAX_CHECK_POINTS]
    _, ny, nz = volume.values.shape
    cell = torch.stack([near // (ny * nz), near // nz % ny, near % nz], dim=1)
    return cell * volume.spacing + volume.low


class SurfaceDrift:
    """Compares the SDF with that of the check before; ``voxel_size`` is the lattice's, in the volume's unit."""

    def __init__(self, voxel_size: float) -> None:
        self.voxel_size, self.n_stable = voxel_size, 0
        self._generator = torch.Generator().manual_seed(0)  # its own, so that checks change nothing
        self._points: Tensor | None = None
        self._previous_sdf: Tensor | None = None

    def update(self, volume: DenseSdf, sdf: SdfFunction, threshold: float) -> float | None:
        """95th percentile of |Δsdf| in voxels since the last check, or None; counts checks below threshold."""
        drift = None
        if self._points is not None and self._previous_sdf is not None and len(self._points):
            change = (sdf(self._points) - self._previous_sdf).abs()
            drift = float(torch.quantile(change, 0.95)) / self.voxel_size
            self.n_stable = self.n_stable + 1 if drift < threshold else 0
        self._points = sample_near_surface(volume, self._generator)
        self._previous_sdf = sdf(self._points)
        return drift
