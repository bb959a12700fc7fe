"""What passed by: parts of photos whose colour stays unexplained over a whole neighbourhood lose their say in it.

Without a network and without a prior on what passes: after RobustNeRF (Sabour et al. 2023), residuals decide, with
spatial support. There pixels are drawn in patches and one quantile of the batch divides them; here rays are spread over
all photos, so residuals are remembered by cells of the photos. A cell is judged against what is usual in its photo and
against its own contrast: fine texture that is not learnt yet leaves no more than that, a shirt before a wall does.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

Array = np.ndarray

CELL = 16  # pixels
MEMORY_STEPS = 400.0  # a residual counts e times less after so many steps
FEW = 3.0  # rays about a cell before it is judged
USUAL = 0.6  # quantile of a photo's cells that stands for what is explained
DOUBT, DISTRUST = 2.5, 5.0  # times that: a ray counts fully below the one, not at all above the other


class Trust(nn.Module):
    """Residuals of K photos by cell, and what they leave of a ray's weight in the colour loss.

    Cells lie in one grid [K, rows, columns] of the largest photo. All of it is state: a checkpoint carries it.
    """

    total: Tensor  # [K, rows, columns] sum of residuals
    count: Tensor  # [K, rows, columns] rays
    weight: Tensor  # [K, rows, columns] in [0, 1]
    contrast: Tensor  # [K, rows, columns]

    def __init__(self, photos: list[UInt8[Array, "_ _ 3"]]) -> None:
        super().__init__()
        rows, columns = (-(-max(photo.shape[axis] for photo in photos) // CELL) for axis in (0, 1))
        for name, value in (("total", 0.0), ("count", 0.0), ("weight", 1.0)):
            self.register_buffer(name, torch.full((len(photos), rows, columns), value))
        contrast = np.zeros((len(photos), rows, columns), np.float32)
        for out, photo in zip(contrast, photos, strict=True):
            found = contrast_of(photo)
            out[: found.shape[0], : found.shape[1]] = found
        self.register_buffer("contrast", torch.from_numpy(contrast), persistent=False)

    def cell(self, pixels: Int[Tensor, "rays 3"]) -> Int[Tensor, "rays"]:
        """Index of the cell each pixel (photo, x, y) lies in."""
        photo, x, y = pixels.unbind(1)
        _, rows, columns = self.weight.shape
        return (photo * rows + y // CELL) * columns + x // CELL

    def of(self, pixels: Int[Tensor, "rays 3"]) -> Float[Tensor, "rays"]:
        """What the colour of pixels counts for."""
        return self.weight.view(-1)[self.cell(pixels)]

    def learn(
        self, pixels: Int[Tensor, "rays 3"], residual: Float[Tensor, "rays"], seen: Float[Tensor, "rays"]
    ) -> None:
        """Take in the residuals of a step's rays, those that are ``seen`` (not masked)."""
        cell, fade = self.cell(pixels), 1.0 - 1.0 / MEMORY_STEPS
        self.total.mul_(fade).view(-1).index_add_(0, cell, residual * seen)
        self.count.mul_(fade).view(-1).index_add_(0, cell, seen)

    def judge(self) -> None:
        """Weigh every cell anew, by the mean residual over it and its eight neighbours."""
        total, count = _around(self.total), _around(self.count)
        known = count >= FEW
        mean = total / count.clamp(min=1e-6)
        usual = torch.nanquantile(torch.where(known, mean, torch.nan).flatten(1), USUAL, dim=1)[:, None, None]
        doubt = (mean / torch.maximum(usual, self.contrast).clamp(min=1e-6) - DOUBT) / (DISTRUST - DOUBT)
        self.weight.copy_(torch.where(known, 1.0 - doubt.clamp(0.0, 1.0), 1.0))


def contrast_of(photo: UInt8[Array, "h w 3"]) -> Float[Array, "rows columns"]:
    """Standard deviation, mean over channels, of the colours (0..1) in each cell; pixels over the edge repeat it."""
    height, width = photo.shape[:2]
    whole = np.pad(photo, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge").astype(np.float32) / 255.0
    cells = whole.reshape(whole.shape[0] // CELL, CELL, whole.shape[1] // CELL, CELL, 3)
    return cells.std(axis=(1, 3)).mean(axis=2)


def _around(values: Float[Tensor, "k r c"]) -> Float[Tensor, "k r c"]:
    """Sums over a cell and its neighbours."""
    return 9.0 * nn.functional.avg_pool2d(values[:, None], 3, stride=1, padding=1)[:, 0]
