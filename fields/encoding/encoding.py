"""What all encodings of points share, and the base of their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.parts import PartConfig

PullBack = Callable[[Tensor], Tensor]  # from ∂f/∂features [n, width] to ∂f/∂points [n, 3]


class Encoding(nn.Module):
    """Features [n, width] of points [n, 3] in [-1, 1]³.

    Grids also have ``cell() -> []``, the side of a cell of the finest active level; encodings of several levels have
    ``set_progress(active_levels)`` for training from coarse to fine.
    """

    width: int

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]."""
        raise NotImplementedError


class EncodingConfig(PartConfig):
    """Base of the configurations of encodings."""

    is_grid: ClassVar[bool] = False  # has cells: its gradient jumps between them, and has no derivative by position

    def build(self) -> Encoding:
        """The encoding, without the point itself: the network gets that beside it."""
        raise NotImplementedError

    def active_levels(self, progress: float) -> float | None:
        """Levels that count at ``progress`` 0..1 of the training; None where all always do."""
        return None

    @property
    def schedule_share(self) -> float:
        """Share of the training after which the levels change no more."""
        return 0.0
