"""Visual words: a codebook of two levels, learnt from the collection's own descriptors (Nistér and Stewénius 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.sparse import csc_array

Array = np.ndarray

MAX_KMEANS_ROUNDS = 8  # of Lloyd's algorithm
COARSE_SAMPLE_SIZE = 100_000  # descriptors that the first level is learnt from
DESCRIPTORS_PER_SLICE = 32_768  # descriptors whose distances to all centres are held at once


@dataclass(frozen=True)
class Vocabulary:
    """``side`` rough centres, and ``side`` finer ones around each: word ``a * side + b``."""

    coarse: Float[Array, "s d"]
    fine: Float[Array, "s s d"]

    @property
    def count(self) -> int:
        return self.fine.shape[0] * self.fine.shape[1]

    def centers_of(self, words: Int[Array, "n"]) -> Float[Array, "n d"]:
        """The centre of each word."""
        return self.fine.reshape(self.count, -1)[words]

    def quantize(self, descriptors: Float[Array, "n d"]) -> Int[Array, "n"]:
        """Each descriptor's word: the nearest rough centre, then the nearest finer one around it."""
        side = len(self.coarse)
        coarse = nearest_centers(descriptors, self.coarse)
        words = np.zeros(len(descriptors), np.int64)
        for a, rows in enumerate(rows_by_label(coarse, side)):
            words[rows] = a * side + nearest_centers(descriptors[rows], self.fine[a])
        return words


def build_vocabulary(descriptors: Shaped[Array, "n d"], side: int, seed: int) -> Vocabulary:
    """Words from a sample of descriptors (bytes are welcome), by k-means of the sample, then of each cluster."""
    sample = np.random.default_rng(seed).permutation(len(descriptors))[:COARSE_SAMPLE_SIZE]
    coarse = kmeans(descriptors[sample].astype(np.float32), side, seed)
    coarse = np.concatenate([coarse, np.repeat(coarse[-1:], side - len(coarse), axis=0)])
    fine = np.repeat(coarse[:, None], side, axis=1)  # a cluster with fewer descriptors has fewer words: never nearest
    for a, rows in enumerate(rows_by_label(nearest_centers(descriptors, coarse), side)):
        if len(rows):
            centers = kmeans(descriptors[rows].astype(np.float32), side, seed)
            fine[a, : len(centers)] = centers
            fine[a, len(centers) :] = centers[-1]
    return Vocabulary(coarse, fine)


def kmeans(descriptors: Float[Array, "n d"], words: int, seed: int) -> Float[Array, "w d"]:
    """Centres of k-means (Lloyd's rounds from random descriptors); an empty cluster starts anew at a random one."""
    rng = np.random.default_rng(seed)
    words = min(words, len(descriptors))
    centers = descriptors[rng.choice(len(descriptors), words, replace=False)].copy()
    for _ in range(MAX_KMEANS_ROUNDS if words < len(descriptors) else 0):
        nearest = nearest_centers(descriptors, centers)
        counts = np.bincount(nearest, minlength=words)
        filled = counts > 0
        ones = np.ones(len(nearest), np.float32)
        member = csc_array((ones, nearest, np.arange(len(nearest) + 1)), shape=(words, len(nearest)))
        centers[filled] = (member @ descriptors)[filled] / counts[filled, None]
        centers[~filled] = descriptors[rng.choice(len(descriptors), int((~filled).sum()))]
    return centers


def nearest_centers(descriptors: Shaped[Array, "n d"], centers: Float[Array, "w d"]) -> Int[Array, "n"]:
    """Index of each descriptor's nearest centre, the first of several."""
    lengths = (centers**2).sum(axis=1)
    nearest = np.zeros(len(descriptors), np.int64)
    for start in range(0, len(descriptors), DESCRIPTORS_PER_SLICE):
        part = slice(start, start + DESCRIPTORS_PER_SLICE)
        nearest[part] = np.argmin(
            lengths - 2.0 * (descriptors[part].astype(np.float32, copy=False) @ centers.T), axis=1
        )
    return nearest


def rows_by_label(labels: Int[Array, "n"], count: int) -> list[Int[Array, "_"]]:
    """Rows of each label 0 to ``count`` - 1."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))[:-1])
