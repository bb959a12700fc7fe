"""Fields: signed distance with its gradient in one forward pass, view-dependent colour, what lies outside the block.

All live in the block's own frame, the cube [-1, 1]³ (``block_from_world`` maps into it); distances are in that unit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from stages.train.encoding import HashGrid
from stages.train.volume import Volume

SOFTPLUS_BETA = 100.0  # NeuS models/fields.py
APPEARANCE_CODE = 8


class SurfaceSample(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the colour head [n, f]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor


class SurfaceField(nn.Module):
    """sdf(x) = base(x) + one-hidden-layer MLP of (x, hash features); the tangents ride along (forward mode)."""

    def __init__(self, encoding: HashGrid, base: Volume, hidden: int = 64, n_feature: int = 15) -> None:
        super().__init__()
        self.encoding, self.base = encoding, base
        width = 3 + encoding.width
        self.first = nn.Linear(width, hidden)
        self.sdf_head = nn.Linear(hidden, 1)
        self.feature_head = nn.Linear(hidden, n_feature)
        with torch.no_grad():
            self.first.weight.normal_(0.0, math.sqrt(2.0 / hidden))
            self.first.bias.zero_()
            self.sdf_head.weight.normal_(0.0, 1e-3)
            self.sdf_head.bias.zero_()

    def forward(self, points: Float[Tensor, "n 3"]) -> SurfaceSample:
        """Value, gradient and feature in one pass."""
        rows = torch.cat([_identity_rows(points), self.encoding.with_tangents(points)], dim=2)
        pre = functional.linear(rows, self.first.weight)
        value = pre[0] + self.first.bias
        hidden = functional.softplus(value, beta=SOFTPLUS_BETA)
        slope = torch.sigmoid(SOFTPLUS_BETA * value)
        base = self.base.with_tangents(points)
        sdf = self.sdf_head(hidden)[:, 0] + base[0]
        gradient = functional.linear(pre[1:] * slope, self.sdf_head.weight)[:, :, 0] + base[1:]
        return SurfaceSample(sdf, gradient.T, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone, about four times cheaper."""
        hidden = functional.softplus(self.first(torch.cat([points, self.encoding(points)], dim=1)), beta=SOFTPLUS_BETA)
        return self.sdf_head(hidden)[:, 0] + self.base.with_tangents(points)[0]


def _identity_rows(points: Tensor) -> Float[Tensor, "4 n 3"]:
    eye = torch.eye(3, device=points.device, dtype=points.dtype)
    return torch.cat([points[None], eye[:, None, :].expand(3, len(points), 3)])


class ColourHead(nn.Module):
    """Colour of a surface point from feature, position, normal, view direction and the photo's appearance code."""

    def __init__(self, n_feature: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_feature + 9 + APPEARANCE_CODE, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3),
        )

    def forward(self, feature: Tensor, points: Tensor, normals: Tensor, directions: Tensor, code: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(torch.cat([feature, points, normals, directions, code], dim=1)))


class Appearance(nn.Module):
    """What differs from photo to photo: a gain per channel (exposure, tint) and a small code (NeRF-W sec. 4.1)."""

    def __init__(self, n_photos: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_photos, 3 + APPEARANCE_CODE))

    def forward(self, photo: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n c"]]:
        row = self.table[photo]
        return torch.exp(row[:, :3]), row[:, 3:]


class Outside(nn.Module):
    """Density and colour of all that lies outside the block, in contracted space (mip-NeRF 360 eq. 10, max norm)."""

    def __init__(self, log2_table: int = 17, hidden: int = 32) -> None:
        super().__init__()
        self.encoding = HashGrid(6, 16, 256, log2_table)
        self.trunk = nn.Sequential(nn.Linear(self.encoding.width + 3, hidden), nn.ReLU(), nn.Linear(hidden, 16))
        self.colour = nn.Sequential(nn.Linear(16 + 3 + APPEARANCE_CODE, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(
        self, points: Tensor, directions: Tensor, code: Tensor
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density per unit length of contracted space [n] and colour [n, 3]."""
        contracted = contract(points)
        out = self.trunk(torch.cat([contracted, self.encoding(contracted)], dim=1))
        colour = torch.sigmoid(self.colour(torch.cat([out, directions, code], dim=1)))
        return functional.softplus(out[:, 0] - 1.0), colour


def contract(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """All of space into [-1, 1]³: the block's cube fills the inner half, infinity is the surface."""
    norm = points.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    return 0.5 * torch.where(norm <= 1.0, points, (2.0 - 1.0 / norm) * points / norm)
