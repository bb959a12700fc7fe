"""Floor, ceiling, wall or other: what each point of a surface is part of, learnt with the surface (ManhattanSDF)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.pipeline.imaging.labels import SURFACE_LABELS

HIDDEN_WIDTH = 64


class SemanticHead(nn.Module):
    """Logits of SURFACE_LABELS from feature and position, and how far a normal is from what each kind asks for.

    ``up`` is the scene's vertical, ``walls`` the directions that its walls face, either way; all turn about the
    vertical by one learnt angle, as a first guess of them is not exact (ManhattanSDF, joint optimisation).
    """

    up: Tensor  # [3] unit
    walls: Tensor  # [k, 3] unit, level

    def __init__(self, n_feature: int, up: Float[np.ndarray, "3"], walls: Float[np.ndarray, "k 3"]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_feature + 3, HIDDEN_WIDTH), nn.ReLU(), nn.Linear(HIDDEN_WIDTH, len(SURFACE_LABELS))
        )
        self.turn = nn.Parameter(torch.zeros(()))  # radians
        self.register_buffer("up", torch.tensor(up, dtype=torch.float32))
        self.register_buffer("walls", torch.tensor(walls, dtype=torch.float32))

    def forward(self, feature: Float[Tensor, "n f"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n kinds"]:
        return self.layers(torch.cat([feature, points], dim=1))

    def manhattan_error(self, normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n kinds"]:
        """0 where a unit normal is as its kind asks: up, down, level along a wall's direction; none of OTHER.

        1 − n·up for the floor, 1 + n·up for the ceiling, |n·up| + min over walls of 1 − |n·wall|.
        """
        perpendicular = torch.linalg.cross(self.up.expand_as(self.walls), self.walls)
        walls = torch.cos(self.turn) * self.walls + torch.sin(self.turn) * perpendicular
        upward = normal @ self.up
        along = (normal @ walls.T).abs().amax(dim=1)
        return torch.stack([torch.zeros_like(upward), 1.0 - upward, 1.0 + upward, upward.abs() + 1.0 - along], dim=1)
