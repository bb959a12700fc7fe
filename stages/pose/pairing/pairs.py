"""Proposed pairs: exhaustive, nearest by position, sequential by name, time and clip; and rounds of query expansion.

Query expansion by geometric verification (Chum et al., "Total Recall", ICCV 2007; for building scenes from photos,
Agarwal et al., "Building Rome in a Day", ICCV 2009): what is like a photo's verified partners is likely to match the
photo, and so are its partners' partners. A photo whose pairs no longer verify asks for no more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array, diags_array

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.frame.world_frame import enu_m, median_geodetic

Array = np.ndarray

SEQUENCE_WINDOW = 1  # photos before and after, in the order of names and of time, that a photo is first matched with
MAX_FRAME_GAP = 8  # frames of a clip that far apart, of those taken, are first matched: half a picture's width and more


def exhaustive_pairs(n: int) -> Int[Array, "m 2"]:
    """All pairs of ``n`` photos, in tiles of 10 x 10 so that a matcher's cache is used."""
    tile = 10
    tiles = range(0, n, tile)
    pairs = [
        (a, b)
        for low, high in itertools.combinations_with_replacement(tiles, 2)
        for a in range(low, min(low + tile, n))
        for b in range(high, min(high + tile, n))
        if a < b
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def unique_pairs(pairs: Int[Array, "m 2"]) -> Int[Array, "k 2"]:
    """Each unordered pair once, smaller photo first, sorted."""
    ordered = np.sort(pairs.reshape(-1, 2), axis=1)
    return np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0).astype(np.int64)


def nearest_pairs(positions: Float[Array, "n d"], n_neighbors: int) -> Int[Array, "m 2"]:
    """Pairs of every row with its nearest rows; rows with a NaN take no part."""
    from scipy.spatial import cKDTree

    finite_rows = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(finite_rows) < 2:
        return np.zeros((0, 2), np.int64)
    _, neighbor_rows = cKDTree(positions[finite_rows]).query(
        positions[finite_rows], min(n_neighbors + 1, len(finite_rows))
    )
    first = np.repeat(finite_rows, neighbor_rows.shape[1])
    return unique_pairs(np.stack([first, finite_rows[neighbor_rows].ravel()], axis=1))


def window_pairs(n: int, window: int) -> Int[Array, "m 2"]:
    """Pairs of photos at most ``window`` apart in name order, which often is the order they were taken in."""
    return np.array([(a, b) for a in range(n) for b in range(a + 1, min(a + window + 1, n))], np.int64).reshape(-1, 2)


def quadratic_overlap_pairs(n: int, max_step: int) -> Int[Array, "m 2"]:
    """Pairs of ``n`` frames in order that are 1, 2, 4, 8 … apart, up to ``max_step``."""
    steps = [2**k for k in range(max_step.bit_length()) if 2**k <= max_step]
    return np.array([(a, a + step) for step in steps for a in range(n - step)], np.int64).reshape(-1, 2)


def sequential_pairs(photos: list[PhotoRow]) -> Int[Array, "m 2"]:
    """Pairs of rows of photos that follow each other by name, in a clip, or by the time of taking within an hour."""
    times = np.array([np.datetime64(photo.taken_at or "NaT", "s") for photo in photos])
    by_time = np.argsort(times, kind="stable")  # those that tell none come last
    by_time_pairs = by_time[window_pairs(len(photos), SEQUENCE_WINDOW)]
    is_soon = times[by_time_pairs[:, 1]] - times[by_time_pairs[:, 0]] <= np.timedelta64(1, "h")
    return unique_pairs(
        np.concatenate([window_pairs(len(photos), SEQUENCE_WINDOW), by_time_pairs[is_soon], clip_pairs(photos)])
    )


def clip_pairs(photos: list[PhotoRow]) -> Int[Array, "m 2"]:
    """Pairs of rows of frames of one clip, up to MAX_FRAME_GAP frames apart by the time in it."""
    pair_table = [np.zeros((0, 2), np.int64)]
    for clip in sorted({photo.clip for photo in photos} - {""}):
        rows = [row for row, photo in enumerate(photos) if photo.clip == clip]
        by_time = np.array(sorted(rows, key=lambda row: photos[row].time_s))
        pair_table.append(by_time[quadratic_overlap_pairs(len(rows), MAX_FRAME_GAP)])
    return unique_pairs(np.concatenate(pair_table))


def gps_positions_m(photos: list[PhotoRow]) -> Float[Array, "n 2"]:
    """East and north in metres from the middle of all photos with GPS; NaN for the others."""
    geodetic = np.array([[p.latitude_deg, p.longitude_deg, 0.0] for p in photos])
    has_gps = np.isfinite(geodetic).all(axis=1)
    positions = np.full((len(photos), 2), np.nan)
    if has_gps.any():
        positions[has_gps] = enu_m(geodetic[has_gps], median_geodetic(geodetic[has_gps]))[:, :2]
    return positions


# -- query expansion ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExpansionParams:
    """How many pairs each round tries; recall by benchmarks/pairs.py."""

    first_round_partners: int = 5  # partners of each photo in the first round
    later_round_partners: int = 3  # partners of each photo in every later round
    min_tried_pairs: int = 10  # pairs of a photo that are tried whatever comes of them
    min_verified_share: float = 0.5  # of a photo's pairs in the last round, from which on it asks for more
    partner_similarity_weight: float = 0.5  # of the similarity to verified partners, beside that to the photo itself
    common_partners_weight: float = 0.1  # of verified partners in common, times the mean similarity of a verified pair
    min_new_verified_share: float = 0.03  # of all verified pairs; a round that adds fewer is the last
    max_matching_rounds: int = 20  # rounds
    photos_per_slice: int = 1024  # photos whose expected similarities are held in memory at once


EXPANSION = ExpansionParams()


@dataclass(frozen=True)
class TriedPairs:
    """Pairs matched so far (smaller photo first, each once), which of them were verified, and the last round's."""

    pairs: Int[Array, "m 2"]
    verified: Bool[Array, "m"]
    in_last_round: Bool[Array, "m"]

    def with_round(self, pairs: Int[Array, "k 2"], verified: Bool[Array, "k"]) -> TriedPairs:
        """These pairs and those of one more round."""
        in_last_round = np.concatenate([np.zeros(len(self.pairs), bool), np.ones(len(pairs), bool)])
        return TriedPairs(np.concatenate([self.pairs, pairs]), np.concatenate([self.verified, verified]), in_last_round)

    @property
    def is_worthwhile(self) -> bool:
        """Whether the last round verified enough pairs to go on."""
        return int((self.verified & self.in_last_round).sum()) > EXPANSION.min_new_verified_share * int(
            self.verified.sum()
        )


NO_PAIRS_TRIED = TriedPairs(np.zeros((0, 2), np.int64), np.zeros(0, bool), np.zeros(0, bool))


def match_in_rounds(
    similarity: csr_array, pairs: Int[Array, "m 2"], max_pairs: int, verify: Callable[[Array, int], Array]
) -> TriedPairs:
    """All pairs tried: ``pairs``, and those of the rounds that follow from them.

    ``verify(pairs, number)`` matches the pairs [k, 2] of a round and says of each whether it is verified.
    """
    tried_pairs = NO_PAIRS_TRIED
    for number in range(1, EXPANSION.max_matching_rounds + 1):
        tried_pairs = tried_pairs.with_round(pairs, verify(pairs, number))
        if not tried_pairs.is_worthwhile:
            break
        pairs = next_round_pairs(similarity, tried_pairs, max_pairs)
        if not len(pairs):
            break
    return tried_pairs


def first_round_pairs(similarity: csr_array) -> Int[Array, "m 2"]:
    """Each photo with those most like it, each pair once."""
    candidates = [
        (photo, photo_b)
        for photo, row in enumerate(_rows(similarity))
        for photo_b, _ in _best(*row, EXPANSION.first_round_partners)
    ]
    return unique_pairs(np.array(candidates, np.int64).reshape(-1, 2))


def next_round_pairs(similarity: csr_array, tried_pairs: TriedPairs, max_pairs: int) -> Int[Array, "m 2"]:
    """The likeliest pairs not tried yet of every photo that goes on; no photo gets into more than ``max_pairs``
    pairs."""
    count = similarity.shape[0]
    partner = _symmetric(tried_pairs.pairs[tried_pairs.verified], count)
    already_tried = _symmetric(tried_pairs.pairs, count) + diags_array(np.ones(count), format="csr")
    n_tried = np.bincount(tried_pairs.pairs.ravel(), minlength=count)
    active_photos = np.flatnonzero(
        (_is_productive(tried_pairs, count) | (n_tried < EXPANSION.min_tried_pairs)) & (n_tried < max_pairs)
    )
    candidates: list[tuple[float, int, int]] = []
    for start in range(0, len(active_photos), EXPANSION.photos_per_slice):
        photos = active_photos[start : start + EXPANSION.photos_per_slice]
        scores = expected_similarity(similarity, partner, photos)
        scores = scores - scores.multiply(already_tried[photos] > 0)
        for photo, row in zip(photos.tolist(), _rows(csr_array(scores)), strict=True):
            candidates += [
                (score, min(photo, photo_b), max(photo, photo_b))
                for photo_b, score in _best(*row, EXPANSION.later_round_partners)
            ]
    chosen = []
    for _, photo_a, photo_b in sorted(set(candidates), key=lambda pair: (-pair[0], pair[1:])):
        if n_tried[photo_a] < max_pairs and n_tried[photo_b] < max_pairs:
            chosen.append((photo_a, photo_b))
            n_tried[[photo_a, photo_b]] += 1
    return np.unique(np.array(chosen, np.int64).reshape(-1, 2), axis=0)


def expected_similarity(similarity: csr_array, partner: csr_array, photos: Int[Array, "k"]) -> csr_array:
    """How likely these photos match each other one, [k, n]: likeness, that of verified partners, partners in common.

    With S the likeness, V the verified pairs and P = V with rows that sum to 1, of S + a (P S + S Pᵀ) / 2 + b D V V D
    the photos' rows; D V V D is the cosine between two photos' lists of partners.
    """
    degree = np.maximum(partner.sum(axis=1), 1.0)
    mean_of = diags_array(1.0 / degree) @ partner
    root = diags_array(1.0 / np.sqrt(degree))
    of_verified = similarity.multiply(partner)
    mean_verified_similarity = float(of_verified.sum()) / max(of_verified.nnz, 1)
    expanded = mean_of[photos] @ similarity + similarity[photos] @ mean_of.T
    common = (root @ partner)[photos] @ (partner @ root)
    return csr_array(
        similarity[photos]
        + 0.5 * EXPANSION.partner_similarity_weight * expanded
        + EXPANSION.common_partners_weight * mean_verified_similarity * common
    )


def _symmetric(pairs: Int[Array, "m 2"], count: int) -> csr_array:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()


def _is_productive(tried_pairs: TriedPairs, count: int) -> Bool[Array, "n"]:
    n_asked = np.bincount(tried_pairs.pairs[tried_pairs.in_last_round].ravel(), minlength=count)
    n_verified = np.bincount(
        tried_pairs.pairs[tried_pairs.in_last_round & tried_pairs.verified].ravel(), minlength=count
    )
    return n_verified >= EXPANSION.min_verified_share * np.maximum(n_asked, 1)


def _rows(matrix: csr_array) -> list[tuple[Int[Array, "_"], Float[Array, "_"]]]:
    bounds = matrix.indptr
    return [
        (matrix.indices[a:b], matrix.data[a:b]) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _best(columns: Int[Array, "m"], values: Float[Array, "m"], number: int) -> list[tuple[int, float]]:
    """The ``number`` columns of the largest values above zero, ties by column."""
    order = np.lexsort((columns, -values))[:number]
    return [(int(columns[at]), float(values[at])) for at in order if values[at] > 0]
