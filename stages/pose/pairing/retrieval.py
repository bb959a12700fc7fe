"""Which photos look alike, offline: the aggregated selective match kernel over words of the collection's own SIFT.

Tolias, Avrithis and Jégou, "To aggregate or not to aggregate" (ICCV 2013), with binary residuals (their ASMK*): per
photo and word the residuals of its descriptors are summed, turned and reduced to 128 signs. Two photos are as alike as
the signs that they have for the words they share, rare words first. An inverted index finds who shares a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8, UInt64
from scipy.sparse import csc_array, csr_array

from quoin.pipeline.core.parallel import thread_map

Array = np.ndarray
FeatureReader = Callable[[int], tuple[UInt8[Array, "n d"], Float[Array, "n"]]]
ProgressCallback = Callable[[float], None]

MAX_FEATURES_PER_PHOTO = (
    1000  # features of a photo that are looked at: those of the largest scale, which others find again most often
)
WORDS_PER_PHOTO = 8  # so that about 120 photos share a word, however many there are,
VOCABULARY_SIDE_RANGE = (64, 256)  # between 64² and 256² words
DESCRIPTORS_PER_WORD = 24
MAX_VOCABULARY_PHOTOS = 2000
SIGNATURE_BITS = 128
SELECTIVITY_EXPONENT = 3  # similarities of residuals count by this power
PHOTOS_PER_BATCH = 64  # photos whose descriptors are in memory at once
MAX_KMEANS_ROUNDS = 8  # of Lloyd's algorithm
COARSE_SAMPLE_SIZE = 100_000  # descriptors that the first level is learnt from
DESCRIPTORS_PER_SLICE = 32_768  # descriptors whose distances to all centres are held at once


@dataclass(frozen=True)
class Signatures:
    """Every photo's words, one row each, by photo: ``offsets`` [n + 1] bound a photo's rows."""

    offsets: Int[Array, "_"]
    words: Int[Array, "e"]
    signs: UInt64[Array, "e b"]
    n_words: int

    @property
    def photos(self) -> Int[Array, "e"]:
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), np.diff(self.offsets))


def photo_similarity(
    features_of: FeatureReader,
    count: int,
    keep: int,
    seed: int,
    threads: int = 1,
    advance: ProgressCallback = lambda done: None,
) -> csr_array:
    """Likeness [count, count] of each photo to the ``keep`` photos most like it, and theirs to it; at most 1.

    ``features_of(i)`` gives a photo's descriptors and their scales, and is asked twice. Symmetric, its diagonal empty.
    """
    vocabulary = learn_vocabulary(features_of, count, seed)
    if vocabulary is None:
        return csr_array((count, count), dtype=np.float32)
    signatures = compute_signatures(features_of, count, vocabulary, seed, lambda done: advance(0.5 * done))
    return signature_similarity(signatures, keep, threads, lambda done: advance(0.5 * (count + done)))


def select_largest_features(descriptors: UInt8[Array, "n d"], scales: Float[Array, "n"]) -> UInt8[Array, "m d"]:
    """Descriptors of the features of the largest scale."""
    return descriptors[np.argsort(-scales, kind="stable")[:MAX_FEATURES_PER_PHOTO]]


def learn_vocabulary(features_of: FeatureReader, count: int, seed: int) -> Vocabulary | None:
    """Words of the collection, more for more photos; None where there are no descriptors."""
    side = int(np.clip(np.sqrt(WORDS_PER_PHOTO * count), *VOCABULARY_SIDE_RANGE))
    rng = np.random.default_rng(seed)
    sampled_photos = np.sort(rng.choice(count, min(count, MAX_VOCABULARY_PHOTOS), replace=False))
    samples_per_photo = -(-DESCRIPTORS_PER_WORD * side**2 // max(1, len(sampled_photos)))
    parts = []
    for photo in sampled_photos.tolist():
        descriptors = select_largest_features(*features_of(photo))
        parts.append(descriptors[rng.permutation(len(descriptors))[:samples_per_photo]])
    sample = np.concatenate(parts) if parts else np.zeros((0, 1), np.uint8)
    return build_vocabulary(sample, side, seed) if len(sample) else None


def compute_signatures(
    features_of: FeatureReader,
    count: int,
    vocabulary: Vocabulary,
    seed: int,
    advance: ProgressCallback = lambda done: None,
) -> Signatures:
    """Signatures of all photos, read in batches."""
    n_dims = vocabulary.coarse.shape[1]
    # random directions, in as many rotations as it takes
    rng = np.random.default_rng(seed)
    rotations = [np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0] for _ in range(-(-SIGNATURE_BITS // n_dims))]
    projection = np.concatenate(rotations, axis=1)[:, :SIGNATURE_BITS].astype(np.float32)
    all_words, all_signs, sizes = [], [], []
    for start in range(0, count, PHOTOS_PER_BATCH):
        batch = [
            select_largest_features(*features_of(photo)) for photo in range(start, min(start + PHOTOS_PER_BATCH, count))
        ]
        owner = np.repeat(np.arange(len(batch)), [len(part) for part in batch])
        descriptors = np.concatenate(batch).reshape(len(owner), n_dims).astype(np.float32)
        word_ids = vocabulary.quantize(descriptors)
        key = owner * vocabulary.count + word_ids
        order = np.argsort(key, kind="stable")
        distinct, first = np.unique(key[order], return_index=True)
        if len(distinct):
            residuals = (descriptors - vocabulary.centers_of(word_ids))[order]
            bits = np.add.reduceat(residuals, first, axis=0) @ projection > 0
            all_signs.append(np.packbits(bits, axis=1).view(np.uint64))
        all_words.append(distinct % vocabulary.count)
        sizes.append(np.bincount(distinct // vocabulary.count, minlength=len(batch)))
        advance(start + len(batch))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return Signatures(offsets, np.concatenate(all_words), np.concatenate(all_signs), vocabulary.count)


def signature_similarity(
    signatures: Signatures, keep: int, threads: int = 1, advance: ProgressCallback = lambda done: None
) -> csr_array:
    """Likeness of each photo to the ``keep`` most like it, made symmetric.

    k(X, Y) = g(X) g(Y) sum_w idf_w² s(h_w), over words w that both have; h_w is how many of the B signs differ,
    s = (1 - 2 h / B)³ where that is above zero (equations 9 and 12 there), and g makes k(X, X) = 1.
    """
    offsets, words, photos = signatures.offsets, signatures.words, signatures.photos
    count = len(offsets) - 1
    by_word = np.argsort(words, kind="stable")
    posting_photos, posting_signs = photos[by_word], signatures.signs[by_word]
    lengths = np.bincount(words, minlength=signatures.n_words)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    idf = np.log(count / np.maximum(lengths, 1)) ** 2
    norm = np.sqrt(np.bincount(photos, idf[words], count))
    bit_similarity = np.maximum(1.0 - 2.0 * np.arange(SIGNATURE_BITS + 1) / SIGNATURE_BITS, 0.0) ** SELECTIVITY_EXPONENT

    def partners_of(photo: int) -> tuple[Int[Array, "_"], Float[Array, "_"]]:
        own_rows = slice(offsets[photo], offsets[photo + 1])
        sizes = lengths[words[own_rows]]
        ends = np.cumsum(sizes)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts[words[own_rows]] - ends + sizes, sizes)
        hamming = np.bitwise_count(posting_signs[rows] ^ np.repeat(signatures.signs[own_rows], sizes, axis=0)).sum(
            axis=1
        )
        scores = bit_similarity[hamming] * np.repeat(idf[words[own_rows]], sizes)
        similarity = np.bincount(posting_photos[rows], scores, count) / np.maximum(norm[photo] * norm, 1e-12)
        similarity[photo] = 0.0
        best = np.argpartition(-similarity, min(keep, count - 1))[:keep]
        best = best[similarity[best] > 0]
        return best.astype(np.int32), similarity[best].astype(np.float32)

    partners = thread_map(partners_of, count, threads, advance)
    pointers = np.concatenate([[0], np.cumsum([len(best) for best, _ in partners])])
    columns, values = (np.concatenate([pair[part] for pair in partners]) for part in (0, 1))
    similarity = csr_array((values, columns, pointers), shape=(count, count))
    return similarity.maximum(similarity.T)


# -- visual words: a codebook of two levels of k-means over the collection's descriptors (Nistér and Stewénius 2006) ---


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
