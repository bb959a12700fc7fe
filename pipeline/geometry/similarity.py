"""Similarity transforms between frames, with where they came from; robust alignment of point sets, by medians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.core.errors import QuoinError

Array = np.ndarray

MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, of normally distributed values
MAX_INLIER_SIGMAS = 3.0  # residuals within so many robust standard deviations are inliers
MIN_INLIER_RESIDUAL = 1e-9  # smallest limit, for fits that are exact up to rounding


def robust_sigma(deviations: Float[Array, "n"]) -> float:
    """Standard deviation of most values, from their ``deviations`` from the center: 1.4826 · median(|deviation|)."""
    return MAD_TO_SIGMA * float(np.median(np.abs(deviations)))


def inlier_limit(residuals: Float[Array, "n"]) -> float:
    """Largest residual (>= 0) of an inlier: MAX_INLIER_SIGMAS robust standard deviations of ``residuals``."""
    return max(MAX_INLIER_SIGMAS * MAD_TO_SIGMA * float(np.median(residuals)), MIN_INLIER_RESIDUAL)


@dataclass(frozen=True)
class Similarity:
    """``x_target = scale * rotation @ x_source + translation`` (float64).

    ``provenance`` says in a few words how it was found. One immutable Similarity per hop between frames;
    name the variable after both frames: ``world_from_sfm``.
    """

    scale: float
    rotation: Float[Array, "3 3"]
    translation: Float[Array, "3"]
    provenance: str = ""

    @classmethod
    def identity(cls, provenance: str = "identity") -> Similarity:
        return cls(1.0, np.eye(3), np.zeros(3), provenance)

    def apply(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
        """Points of the source frame in the target frame."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.translation

    def inverse(self) -> Similarity:
        rotation = self.rotation.T
        return Similarity(
            1.0 / self.scale, rotation, -(rotation @ self.translation) / self.scale, f"inverse of {self.provenance}"
        )

    def apply_to_poses(self, cam_from_source: Float[Array, "n 3 4"]) -> Float[Array, "n 3 4"]:
        """``cam_from_target`` for the same cameras; camera axes stay metric in the target's unit."""
        rotation = cam_from_source[:, :, :3] @ self.rotation.T
        translation = self.scale * cam_from_source[:, :, 3] - rotation @ self.translation
        return np.concatenate([rotation, translation[:, :, None]], axis=2)

    def matrix(self) -> Float[Array, "4 4"]:
        out = np.eye(4)
        out[:3, :3] = self.scale * self.rotation
        out[:3, 3] = self.translation
        return out

    def to_json(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "rotation": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Similarity:
        return cls(data["scale"], np.array(data["rotation"]), np.array(data["translation"]), data["provenance"])


def fit_similarity(
    source: Float[Array, "n 3"], target: Float[Array, "n 3"], *, with_scale: bool = True, provenance: str = "umeyama"
) -> Similarity:
    """Least-squares similarity with ``target ≈ T(source)`` (Umeyama 1991, eq. 40–42); needs 3 points not on a line."""
    if len(source) < 3:
        raise QuoinError(f"An alignment needs 3 matched points, there are {len(source)}", hint="give more cameras")
    mean_s, mean_t = source.mean(0), target.mean(0)
    ds, dt = source - mean_s, target - mean_t
    u, d, vt = np.linalg.svd(dt.T @ ds / len(source))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * sign) @ vt
    variance = (ds**2).sum(1).mean()
    scale = float((d * sign).sum() / variance) if with_scale and variance > 0 else 1.0
    return Similarity(scale, rotation, mean_t - scale * rotation @ mean_s, provenance)


def fit_similarity_robust(
    source: Float[Array, "n 3"],
    target: Float[Array, "n 3"],
    *,
    seed: int = 0,
    n_iterations: int = 500,
    provenance: str = "robust umeyama",
) -> tuple[Similarity, Bool[Array, "n"]]:
    """Similarity by least median of squares over random triples, then refitted on the inliers.

    Returns the transform and which points are inliers. A few wild points (a camera 37,000 units away) do not move it.
    """
    n = len(source)
    if n < 4:
        return fit_similarity(source, target, provenance=provenance), np.ones(n, bool)
    rng = np.random.default_rng(seed)
    best, best_score = None, np.inf
    for _ in range(n_iterations):
        sample = rng.choice(n, 3, replace=False)
        edges = source[sample][1:] - source[sample][0]
        if np.linalg.norm(np.cross(*edges)) < 1e-9 * max(float((edges**2).sum()), 1e-300):
            continue
        candidate = fit_similarity(source[sample], target[sample])
        score = float(np.median(np.linalg.norm(candidate.apply(source) - target, axis=1)))
        if score < best_score:
            best, best_score = candidate, score
    if best is None:
        return fit_similarity(source, target, provenance=provenance), np.ones(n, bool)
    inliers = np.ones(n, bool)
    for _ in range(5):
        residual = np.linalg.norm(best.apply(source) - target, axis=1)
        inliers = residual <= inlier_limit(residual)
        if inliers.sum() < 3:
            break
        best = fit_similarity(source[inliers], target[inliers], provenance=provenance)
    return best, inliers
