"""Colour of surface points, and what differs from photo to photo."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

APPEARANCE_CODE = 8


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
