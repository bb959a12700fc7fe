"""Semantic class of surface points (floor, ceiling, wall, other), learned with the surface (ManhattanSDF)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.pipeline.imaging.labels import SURFACE_LABELS

HIDDEN_WIDTH = 64


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
