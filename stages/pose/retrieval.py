"""Which photos look alike, offline: VLAD (Jégou et al. 2010) over a codebook learnt from the collection's own SIFT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8

Array = np.ndarray

WORDS = 64
SAMPLE = 60_000  # descriptors the codebook is learnt from
PER_PHOTO = 4_000  # descriptors of a photo that are looked at
ROUNDS = 15


def codebook(descriptors: Float[Array, "n d"], words: int, seed: int) -> Float[Array, "w d"]:
    """Centres of k-means (Lloyd's rounds from random descriptors); an empty cluster starts anew at a random one."""
    rng = np.random.default_rng(seed)
    words = min(words, len(descriptors))
    centers = descriptors[rng.choice(len(descriptors), words, replace=False)].copy()
    for _ in range(ROUNDS):
        nearest = assign(descriptors, centers)
        order = np.argsort(nearest, kind="stable")
        counts = np.bincount(nearest, minlength=words)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        filled = counts > 0
        centers[filled] = np.add.reduceat(descriptors[order], starts[filled], axis=0) / counts[filled, None]
        centers[~filled] = descriptors[rng.choice(len(descriptors), int((~filled).sum()))]
    return centers


def assign(descriptors: Float[Array, "n d"], centers: Float[Array, "w d"]) -> Int[Array, "n"]:
    """Index of each descriptor's nearest centre."""
    return np.argmin((centers**2).sum(axis=1) - 2.0 * (descriptors @ centers.T), axis=1)


def vlad(descriptors: Float[Array, "n d"], centers: Float[Array, "w d"]) -> Float[Array, "wd"]:
    """Residuals to the nearest centres, summed per centre and normalised there, square-rooted, of unit length.

    Normalising per centre keeps a repeated pattern from outweighing the rest (Arandjelović and Zisserman 2013).
    """
    sums = np.zeros_like(centers)
    if len(descriptors):
        nearest = assign(descriptors, centers)
        np.add.at(sums, nearest, descriptors - centers[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    flat = (np.sign(sums) * np.sqrt(np.abs(sums))).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-12)


def look_alikes(
    descriptors_of: Callable[[int], UInt8[Array, "_ d"]],
    count: int,
    neighbours: int,
    seed: int,
    advance: Callable[[float], None] = lambda done: None,
) -> Int[Array, "m 2"]:
    """Pairs of each photo with those that look most like it; ``descriptors_of(i)`` reads one photo at a time."""
    rng = np.random.default_rng(seed)

    def some(photo: int, limit: int) -> Float[Array, "_ d"]:
        all_of_them = descriptors_of(photo)
        pick = np.sort(rng.choice(len(all_of_them), min(limit, len(all_of_them)), replace=False))
        return all_of_them[pick].astype(np.float32)

    looked_at = rng.choice(count, min(count, 1000), replace=False)
    sample = np.concatenate([some(int(i), max(1, SAMPLE // len(looked_at))) for i in looked_at])
    if not len(sample):
        return np.zeros((0, 2), np.int64)
    centers = codebook(sample, WORDS, seed)
    signatures = np.zeros((count, centers.size), np.float32)
    for photo in range(count):
        signatures[photo] = vlad(some(photo, PER_PHOTO), centers)
        advance(photo + 1)
    pairs = []
    for start in range(0, count, 512):  # a slice of the similarity matrix at a time
        alike = signatures[start : start + 512] @ signatures.T
        alike[np.arange(len(alike)), start + np.arange(len(alike))] = -np.inf
        best = np.argsort(-alike, axis=1)[:, : min(neighbours, count - 1)]
        pairs.append(np.stack([np.repeat(start + np.arange(len(alike)), best.shape[1]), best.ravel()], axis=1))
    return np.concatenate(pairs)
