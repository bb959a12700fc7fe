"""Check that losses and gradients are finite: other steps are skipped, many in a row end the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.train.step import LOSS_STATS

MAX_NON_FINITE_STEPS = 20  # steps in a row without a finite loss and gradient before giving up


class FiniteCheck:
    """Counts steps that are not finite on the device, without waiting for it; the host reads the counts now and then.

    ``parameters``: all but the large tables. What is not finite in the gradient of a table came through the network,
    and the gradient of each weight of the network is a sum over all points.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], device: str) -> None:
        self._parameters, self._warned = parameters, False
        self._bad, self._skipped = torch.zeros(2, dtype=torch.int64, device=device).unbind()
        self._is_non_finite = torch.zeros(len(LOSS_STATS) + 1, dtype=torch.bool, device=device)

    def check_gradients(self, loss: Tensor, terms: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimizer skip its next step if the loss or its gradient is not finite."""
        norms = torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None])
        gradient = torch.stack(norms).sum()
        good = torch.isfinite(loss + gradient)
        self._is_non_finite = torch.where(
            good, self._is_non_finite, ~torch.isfinite(torch.cat([terms, gradient[None]]))
        )
        self._bad = torch.where(good, 0, self._bad + 1)
        self._skipped = self._skipped + ~good
        optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it

    def check_last_step(self, step: int, warn: Callable[[str], None]) -> bool:
        """True if the last step was finite; QuoinError after many in a row that were not. Warns of the first."""
        bad, skipped = int(self._bad), int(self._skipped)
        if bad >= MAX_NON_FINITE_STEPS:
            raise QuoinError(
                f"Training diverged at step {step}: {self._non_finite_terms()} is not a finite number",
                hint="lower train.lr.grid, then quoin resume (the last checkpoint is intact)",
            )
        if skipped and not self._warned:
            warn(f"{self._non_finite_terms()} was not a finite number before step {step}: such steps are skipped")
            self._warned = True
        return bad == 0

    def _non_finite_terms(self) -> str:
        """Names of the loss terms that were not finite in the last such step, or else the gradient."""
        *terms, gradient = self._is_non_finite.tolist()
        names = [name for name, is_wrong in zip(LOSS_STATS, terms, strict=True) if is_wrong]
        return ", ".join(names or ["the gradient" if gradient else "the loss"])
