"""Heads on the features of surface points: color, with what differs between photos, and semantic class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.conditioning import Conditioning
from quoin.fields.encoding.fourier import FrequencyEncoding
from quoin.pipeline.core.config import StageConfig
from quoin.pipeline.imaging.labels import SURFACE_LABELS

HIDDEN_WIDTH = 64


class ColorConfig(StageConfig):
    """The color network, and what differs between photos."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"gain": "exposure", "code": "appearance"}
    layers: int = Field(2, ge=1, le=8)
    """Hidden layers."""
    width: int = Field(64, ge=8)
    """Neurons of a layer."""
    frequencies: int = Field(0, ge=0, le=8)
    """Of the view direction."""
    exposure: bool = True
    """A factor per photo and channel."""
    appearance: int = Field(8, ge=0)
    """Numbers per photo that the network gets."""


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


class SemanticHead(nn.Module):
    """Logits of SURFACE_LABELS from feature and position, and the error of a normal for each class.

    ``up`` is the scene's vertical, ``wall_normals`` the horizontal directions that its walls face. The walls turn about
    the vertical by one learned angle theta, as the first estimate is not exact (ManhattanSDF, joint optimization).
    """

    up: Tensor  # [3] unit
    wall_normals: Tensor  # [k, 3] unit, horizontal

    def __init__(self, n_feature: int, up: Float[np.ndarray, "3"], wall_normals: Float[np.ndarray, "k 3"]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_feature + 3, HIDDEN_WIDTH), nn.ReLU(), nn.Linear(HIDDEN_WIDTH, len(SURFACE_LABELS))
        )
        self.theta = nn.Parameter(torch.zeros(()))  # radians
        self.register_buffer("up", torch.tensor(up, dtype=torch.float32))
        self.register_buffer("wall_normals", torch.tensor(wall_normals, dtype=torch.float32))

    def forward(self, feature: Float[Tensor, "n f"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n kinds"]:
        """Logits."""
        return self.layers(torch.cat([feature, points], dim=1))

    def manhattan_error(self, normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n kinds"]:
        """Error of unit normals for each class: 0 for a floor's up, a ceiling's down, a wall's along its direction.

        0 for OTHER, 1 − n·up for the floor, 1 + n·up for the ceiling, |n·up| + min over walls of 1 − |n·wall|.
        """
        perpendicular = torch.linalg.cross(self.up.expand_as(self.wall_normals), self.wall_normals)
        walls = torch.cos(self.theta) * self.wall_normals + torch.sin(self.theta) * perpendicular
        upward = normal @ self.up
        along = (normal @ walls.T).abs().amax(dim=1)
        return torch.stack([torch.zeros_like(upward), 1.0 - upward, 1.0 + upward, upward.abs() + 1.0 - along], dim=1)


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
