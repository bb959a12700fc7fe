"""Colour of surface points, and what differs from photo to photo."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quoin.fields.encoding.frequency import FrequencyEncoding


class ColorHead(nn.Module):
    """Colour of a surface point from feature, position, normal, view direction and the photo's appearance code."""

    def __init__(
        self, n_feature: int, n_appearance: int, *, layers: int = 2, width: int = 64, frequencies: int = 0
    ) -> None:
        super().__init__()
        self.look = FrequencyEncoding(frequencies)
        n_in = n_feature + 6 + self.look.width + n_appearance
        pairs = itertools.pairwise([n_in, *[width] * layers])
        hidden = [part for i, o in pairs for part in (nn.Linear(i, o), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 3))

    def forward(
        self, feature: Tensor, points: Tensor, normals: Tensor, directions: Tensor, appearance: Tensor
    ) -> Tensor:
        return torch.sigmoid(
            self.layers(torch.cat([feature, points, normals, self.look(directions), appearance], dim=1))
        )


class AppearanceEmbedding(nn.Module):
    """What differs from photo to photo: a gain per channel (exposure, tint) and a small code (NeRF-W sec. 4.1).

    The gain starts as the photo's exposure in the whole scene, ``known`` (in logarithms), so that blocks agree on it.
    """

    known: Tensor  # [photos, 3]

    def __init__(self, n_photos: int, *, has_exposure: bool, n_appearance: int) -> None:
        super().__init__()
        self.has_exposure = has_exposure
        self.table = nn.Parameter(torch.zeros(n_photos, 3 + n_appearance))
        self.register_buffer("known", torch.zeros(n_photos, 3))

    def forward(self, photo: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n c"]]:
        rows = torch.cat([self.table[:, :3] + self.known, self.table[:, 3:]], dim=1)
        # a product, not a reading: its backward pass adds up in the same order every time
        row = (photo[:, None] == torch.arange(len(rows), device=photo.device)).to(rows) @ rows
        return torch.exp(row[:, :3]) if self.has_exposure else torch.ones_like(row[:, :3]), row[:, 3:]
