"""A mixture of Gaussians over colours, small enough to need no library."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray

FLOOR = 2e-4  # variance that no Gaussian falls below, colours in [0, 1]: JPEG and gradients
ROUNDS = 8


class Mixture(NamedTuple):
    """``share`` [k], ``mean`` [k, 3], and ``whiten`` [k, 3, 3]: the inverse Cholesky factors of the covariances."""

    share: Array
    mean: Array
    whiten: Array

    def log_density(self, colours: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """ln Σₖ shareₖ N(colour; meanₖ, covarianceₖ)."""
        return np.logaddexp.reduce(self._parts(colours), axis=0)

    def _parts(self, colours: Float[Array, "n 3"]) -> Float[Array, "k n"]:
        away = np.einsum("kij,knj->kni", self.whiten, colours[None] - self.mean[:, None])
        level = np.log(self.share) + np.log(np.linalg.det(self.whiten)) - 1.5 * np.log(2 * np.pi)
        return level[:, None] - 0.5 * (away**2).sum(axis=2)


def fit_mixture(colours: Float[Array, "n 3"], k: int) -> Mixture:
    """Expectation maximisation from ``k`` equal parts of the colours in the order of their brightness."""
    order = np.argsort(colours.sum(axis=1), kind="stable")
    part = np.zeros(len(colours), int)
    part[order] = np.arange(len(colours)) * k // len(colours)
    weight = (part == np.arange(k)[:, None]).astype(float)
    for _ in range(ROUNDS):
        total = weight.sum(axis=1) + 1e-6
        mean = weight @ colours / total[:, None]
        away = colours[None] - mean[:, None]
        covariance = np.einsum("kn,kni,knj->kij", weight, away, away) / total[:, None, None] + FLOOR * np.eye(3)
        found = Mixture(total / total.sum(), mean, np.linalg.inv(np.linalg.cholesky(covariance)))
        parts = found._parts(colours)
        weight = np.exp(parts - np.logaddexp.reduce(parts, axis=0))
    return found
