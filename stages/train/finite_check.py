"""Whether losses and gradients are finite: a step that is not changes nothing, many in a row end the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.train.step import LOSS_STATS

MAX_NON_FINITE_STEPS = 20  # steps in a row without a finite loss and gradient before giving up


class FiniteCheck:
    """Counts on the device which steps are not finite, so that it need not be waited for; the host reads now and then.

    ``small``: all parameters but the large tables. The tables' gradients are not read: what is not finite in them has
    come through the network, and a sum over all points is in the gradient of each of its weights.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], device: str) -> None:
        self._parameters, self._warned = parameters, False
        self._bad, self._skipped = torch.zeros(2, dtype=torch.int64, device=device).unbind()
        self._is_non_finite = torch.zeros(len(LOSS_STATS) + 1, dtype=torch.bool, device=device)

    def check_gradients(self, loss: Tensor, terms: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Have the optimiser leave out its next step where the loss or its gradient is not finite."""
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
        """Whether the last step was finite; QuoinError where many in a row were not. Warns of the first."""
        bad, skipped = int(self._bad), int(self._skipped)
        if bad >= MAX_NON_FINITE_STEPS:
            raise QuoinError(
                f"Training diverged at step {step}: {self._non_finite_terms()} is not a finite number",
                hint="lower train.rates.grid, then quoin resume (the last checkpoint is intact)",
            )
        if skipped and not self._warned:
            warn(f"{self._non_finite_terms()} was not a finite number before step {step}: such steps are skipped")
            self._warned = True
        return bad == 0

    def _non_finite_terms(self) -> str:
        """Names of the loss terms that were not finite when it last happened, or else the gradient."""
        *terms, gradient = self._is_non_finite.tolist()
        names = [name for name, is_wrong in zip(LOSS_STATS, terms, strict=True) if is_wrong]
        return ", ".join(names or ["the gradient" if gradient else "the loss"])
