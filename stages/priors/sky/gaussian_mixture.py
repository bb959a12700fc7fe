"""Gaussian mixture model of colors, fitted by expectation maximization."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray

MIN_VARIANCE = 2e-4  # of each Gaussian, colors in [0, 1]: below lie JPEG artifacts and gradients
EM_ITERATIONS = 8


class GaussianMixture(NamedTuple):
    """``weights`` [k], ``mean`` [k, 3], and ``whitening`` [k, 3, 3]: inverse Cholesky factors of the covariances."""

    weights: Array
    mean: Array
    whitening: Array

    def log_density(self, colors: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Log density of each color: ln Σₖ weightₖ N(color; meanₖ, covarianceₖ)."""
        return np.logaddexp.reduce(self._log_components(colors), axis=0)

    def _log_components(self, colors: Float[Array, "n 3"]) -> Float[Array, "k n"]:
        offsets = np.einsum("kij,knj->kni", self.whitening, colors[None] - self.mean[:, None])
        level = np.log(self.weights) + np.log(np.linalg.det(self.whitening)) - 1.5 * np.log(2 * np.pi)
        return level[:, None] - 0.5 * (offsets**2).sum(axis=2)


def fit_mixture(colors: Float[Array, "n 3"], k: int) -> GaussianMixture:
    """Mixture of ``k`` Gaussians, by EM from ``k`` equal groups of the colors in the order of their brightness."""
    order = np.argsort(colors.sum(axis=1), kind="stable")
    part = np.zeros(len(colors), int)
    part[order] = np.arange(len(colors)) * k // len(colors)
    responsibilities = (part == np.arange(k)[:, None]).astype(float)
    for _ in range(EM_ITERATIONS):
        total = responsibilities.sum(axis=1) + 1e-6
        mean = responsibilities @ colors / total[:, None]
        offsets = colors[None] - mean[:, None]
        covariance = np.einsum("kn,kni,knj->kij", responsibilities, offsets, offsets) / total[
            :, None, None
        ] + MIN_VARIANCE * np.eye(3)
        mixture = GaussianMixture(total / total.sum(), mean, np.linalg.inv(np.linalg.cholesky(covariance)))
        parts = mixture._log_components(colors)
        responsibilities = np.exp(parts - np.logaddexp.reduce(parts, axis=0))
    return mixture
