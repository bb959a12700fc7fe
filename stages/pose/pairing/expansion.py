"""Pairs in rounds: match the likeliest, see which are verified, and let those say where more are.

Query expansion by geometric verification (Chum et al., "Total Recall", ICCV 2007; for building scenes from photos,
Agarwal et al., "Building Rome in a Day", ICCV 2009): what is like a photo's verified partners is likely to match the
photo, and so are its partners' partners. A photo whose pairs no longer verify asks for no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array, diags_array

from quoin.stages.pose.pairing.pairs import unique_pairs

Array = np.ndarray

FIRST = 5  # partners asked for in the first round,
STEP = 3  # and in each that follows
AT_LEAST = 10  # pairs of a photo that are tried whatever comes of them
GOES_ON = 0.5  # of the last round's pairs of a photo verified: it asks for more
OF_PARTNERS = 0.5  # weight of likeness to the verified partners, beside that to the photo itself,
IN_COMMON = 0.1  # and of verified partners in common, times the likeness of a verified pair
FEW = 0.03  # of all verified pairs; a round that adds a smaller share is the last
MOST_ROUNDS = 20
SLICE = 1024  # photos whose expectations are held at once


@dataclass(frozen=True)
class Tried:
    """Pairs matched so far (smaller photo first, each once), which of them were verified, and the last round's."""

    pairs: Int[Array, "m 2"]
    verified: Bool[Array, "m"]
    last: Bool[Array, "m"]

    def and_then(self, pairs: Int[Array, "k 2"], verified: Bool[Array, "k"]) -> Tried:
        """One round more."""
        last = np.concatenate([np.zeros(len(self.pairs), bool), np.ones(len(pairs), bool)])
        return Tried(np.concatenate([self.pairs, pairs]), np.concatenate([self.verified, verified]), last)

    @property
    def worthwhile(self) -> bool:
        """Whether the last round found more than a few."""
        return int((self.verified & self.last).sum()) > FEW * int(self.verified.sum())


NOTHING = Tried(np.zeros((0, 2), np.int64), np.zeros(0, bool), np.zeros(0, bool))


def in_rounds(alike: csr_array, pairs: Int[Array, "m 2"], most: int, verify: Callable[[Array, int], Array]) -> Tried:
    """What came of ``pairs`` and of the rounds that follow from them.

    ``verify(pairs, number)`` matches the pairs [k, 2] of a round and says of each whether it is verified.
    """
    tried = NOTHING
    for number in range(1, MOST_ROUNDS + 1):
        tried = tried.and_then(pairs, verify(pairs, number))
        if not tried.worthwhile:
            break
        pairs = next_pairs(alike, tried, most)
        if not len(pairs):
            break
    return tried


def first_pairs(alike: csr_array) -> Int[Array, "m 2"]:
    """Each photo with those most like it, each pair once."""
    asked = [(photo, other) for photo, row in enumerate(_rows(alike)) for other, _ in _best(*row, FIRST)]
    return unique_pairs(np.array(asked, np.int64).reshape(-1, 2))


def next_pairs(alike: csr_array, tried: Tried, most: int) -> Int[Array, "m 2"]:
    """The likeliest pairs not tried yet of every photo that goes on; no photo gets into more than ``most`` pairs."""
    count = alike.shape[0]
    partner = _symmetric(tried.pairs[tried.verified], count)
    known = _symmetric(tried.pairs, count) + diags_array(np.ones(count), format="csr")
    n_tried = np.bincount(tried.pairs.ravel(), minlength=count)
    asking = np.flatnonzero((_goes_on(tried, count) | (n_tried < AT_LEAST)) & (n_tried < most))
    asked: list[tuple[float, int, int]] = []
    for start in range(0, len(asking), SLICE):
        photos = asking[start : start + SLICE]
        hopes = expectations(alike, partner, photos)
        hopes = hopes - hopes.multiply(known[photos] > 0)
        for photo, row in zip(photos.tolist(), _rows(csr_array(hopes)), strict=True):
            asked += [(hope, min(photo, other), max(photo, other)) for other, hope in _best(*row, STEP)]
    chosen = []
    for _, one, other in sorted(set(asked), key=lambda pair: (-pair[0], pair[1:])):
        if n_tried[one] < most and n_tried[other] < most:
            chosen.append((one, other))
            n_tried[[one, other]] += 1
    return np.unique(np.array(chosen, np.int64).reshape(-1, 2), axis=0)


def expectations(alike: csr_array, partner: csr_array, photos: Int[Array, "k"]) -> csr_array:
    """How likely these photos match each other one, [k, n]: likeness, that of verified partners, partners in common.

    With S the likeness, V the verified pairs and P = V with rows that sum to 1, of S + a (P S + S Pᵀ) / 2 + b D V V D
    the photos' rows; D V V D is the cosine between two photos' lists of partners.
    """
    degree = np.maximum(partner.sum(axis=1), 1.0)
    mean_of = diags_array(1.0 / degree) @ partner
    root = diags_array(1.0 / np.sqrt(degree))
    of_verified = alike.multiply(partner)
    usual = float(of_verified.sum()) / max(of_verified.nnz, 1)
    expanded = mean_of[photos] @ alike + alike[photos] @ mean_of.T
    common = (root @ partner)[photos] @ (partner @ root)
    return csr_array(alike[photos] + 0.5 * OF_PARTNERS * expanded + IN_COMMON * usual * common)


def _symmetric(pairs: Int[Array, "m 2"], count: int) -> csr_array:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()


def _goes_on(tried: Tried, count: int) -> Bool[Array, "n"]:
    asked = np.bincount(tried.pairs[tried.last].ravel(), minlength=count)
    got = np.bincount(tried.pairs[tried.last & tried.verified].ravel(), minlength=count)
    return got >= GOES_ON * np.maximum(asked, 1)


def _rows(matrix: csr_array) -> list[tuple[Int[Array, "_"], Float[Array, "_"]]]:
    bounds = matrix.indptr
    return [
        (matrix.indices[a:b], matrix.data[a:b]) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _best(columns: Int[Array, "m"], values: Float[Array, "m"], number: int) -> list[tuple[int, float]]:
    """The ``number`` columns of the largest values above zero, ties by column."""
    order = np.lexsort((columns, -values))[:number]
    return [(int(columns[at]), float(values[at])) for at in order if values[at] > 0]
