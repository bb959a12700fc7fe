"""Color of surface points, and what differs between photos: exposure and appearance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.conditioning import Conditioning
from quoin.fields.encoding.frequency import FrequencyEncoding
from quoin.pipeline.core.config import StageConfig


class ColorConfig(StageConfig):
    """The color network, and what differs between photos."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"gain": "exposure", "code": "appearance"}
    layers: int = Field(2, ge=1, le=8)
    width: int = Field(64, ge=8)
    frequencies: int = Field(0, ge=0, le=8)  # of the view direction
    exposure: bool = True  # a factor per photo and channel
    appearance: int = Field(8, ge=0)  # numbers per photo that the network gets


class ColorHead(nn.Module):
    """Color of a surface point from feature, position, normal, view direction and the photo's appearance."""

    def __init__(self, n_feature: int, config: ColorConfig) -> None:
        super().__init__()
        self.direction_encoding = FrequencyEncoding(config.frequencies)
        n_in = n_feature + 6 + self.direction_encoding.width + config.appearance
        pairs = itertools.pairwise([n_in, *[config.width] * config.layers])
        hidden = [part for i, o in pairs for part in (nn.Linear(i, o), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(config.width, 3))

    def forward(
        self,
        feature: Float[Tensor, "n f"],
        points: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        condition: Conditioning,
    ) -> Float[Tensor, "n 3"]:
        """Color in [0, 1]."""
        inputs = [feature, points, normals, self.direction_encoding(directions), condition.appearance]
        return torch.sigmoid(self.layers(torch.cat(inputs, dim=1)))


class AppearanceEmbedding(nn.Module):
    """Exposure factor per channel and appearance embedding of each photo (NeRF-W sec. 4.1).

    The factor starts as the photo's exposure in the whole scene, exp(``log_exposure``), so that blocks agree on it.
    """

    log_exposure: Tensor  # [photos, 3]

    def __init__(self, n_photos: int, *, has_exposure: bool, n_appearance: int) -> None:
        super().__init__()
        self.has_exposure = has_exposure
        self.table = nn.Parameter(torch.zeros(n_photos, 3 + n_appearance))
        self.register_buffer("log_exposure", torch.zeros(n_photos, 3))

    def forward(self, photo: Int[Tensor, "n"]) -> Conditioning:
        """Appearance and exposure of photos."""
        rows = torch.cat([self.table[:, :3] + self.log_exposure, self.table[:, 3:]], dim=1)
        # a product instead of a look-up: its backward pass adds in the same order every time
        row = (photo[:, None] == torch.arange(len(rows), device=photo.device)).to(rows) @ rows
        exposure = torch.exp(row[:, :3]) if self.has_exposure else torch.ones_like(row[:, :3])
        return Conditioning(appearance=row[:, 3:], exposure=exposure)
