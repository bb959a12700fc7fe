"""Image retrieval: similarity of photos by the aggregated selective match kernel over their own SIFT words.

Tolias, Avrithis and Jégou, "To aggregate or not to aggregate" (ICCV 2013), with binary residuals (their ASMK*): per
photo and word the residuals of its descriptors are summed, rotated and reduced to 128 signs. The similarity of two
photos is that of their signs over the words they share, rare words first. An inverted index finds shared words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8, UInt64
from scipy.sparse import csc_array, csr_array

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.workers import thread_map

Array = np.ndarray
FeatureReader = Callable[[int], tuple[UInt8[Array, "n d"], Float[Array, "n"]]]


@dataclass(frozen=True)
class RetrievalParams:
    """Sizes of the vocabulary and of the signatures; recall and time by benchmarks/pairs.py."""

    max_features_per_photo: int = 1000  # of the largest scale, which other photos show most often
    words_per_photo: int = 8  # visual words per photo, so that about 120 photos share a word, however many there are
    vocabulary_side_range: tuple[int, int] = (64, 256)  # words of each level; the vocabulary has the square of it
    descriptors_per_word: int = 24  # descriptors that a word is learnt from
    max_vocabulary_photos: int = 2000  # photos that the vocabulary is learnt from
    signature_bits: int = 128  # bits of a signature (Tolias et al. 2013)
    selectivity_exponent: int = 3  # alpha of the selectivity function (Tolias et al. 2013, equation 9)
    photos_per_batch: int = 64  # photos whose descriptors are in memory at once
    max_kmeans_rounds: int = 8  # rounds of Lloyd's algorithm
    coarse_sample_size: int = 100_000  # descriptors that the first level is learnt from
    descriptors_per_slice: int = 32_768  # descriptors whose distances to all centers are held in memory at once


RETRIEVAL = RetrievalParams()


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
    advance: Advance = lambda done: None,
) -> csr_array:
    """Similarity [count, count] of each photo to the ``keep`` photos most like it, and theirs to it; at most 1.

    ``features_of(i)`` gives a photo's descriptors and their scales, and is asked twice. Symmetric, its diagonal empty.
    """
    vocabulary = learn_vocabulary(features_of, count, seed)
    if vocabulary is None:
        return csr_array((count, count), dtype=np.float32)
    signatures = compute_signatures(features_of, count, vocabulary, seed, lambda done: advance(0.5 * done))
    return signature_similarity(signatures, keep, threads, lambda done: advance(0.5 * (count + done)))


def select_largest_features(descriptors: UInt8[Array, "n d"], scales: Float[Array, "n"]) -> UInt8[Array, "m d"]:
    """Descriptors of the features of the largest scale."""
    return descriptors[np.argsort(-scales, kind="stable")[: RETRIEVAL.max_features_per_photo]]


def learn_vocabulary(features_of: FeatureReader, count: int, seed: int) -> Vocabulary | None:
    """Vocabulary learnt from the collection, larger for more photos; None where there are no descriptors."""
    side = int(np.clip(np.sqrt(RETRIEVAL.words_per_photo * count), *RETRIEVAL.vocabulary_side_range))
    rng = np.random.default_rng(seed)
    sampled_photos = np.sort(rng.choice(count, min(count, RETRIEVAL.max_vocabulary_photos), replace=False))
    samples_per_photo = -(-RETRIEVAL.descriptors_per_word * side**2 // max(1, len(sampled_photos)))
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
    advance: Advance = lambda done: None,
) -> Signatures:
    """Signatures of all photos, read in batches."""
    n_dims = vocabulary.coarse.shape[1]
    # random directions, in as many rotations as it takes
    rng = np.random.default_rng(seed)
    rotations = [
        np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0] for _ in range(-(-RETRIEVAL.signature_bits // n_dims))
    ]
    projection = np.concatenate(rotations, axis=1)[:, : RETRIEVAL.signature_bits].astype(np.float32)
    all_words, all_signs, sizes = [], [], []
    for start in range(0, count, RETRIEVAL.photos_per_batch):
        batch = [
            select_largest_features(*features_of(photo))
            for photo in range(start, min(start + RETRIEVAL.photos_per_batch, count))
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
    signatures: Signatures, keep: int, threads: int = 1, advance: Advance = lambda done: None
) -> csr_array:
    """Similarity of each photo to the ``keep`` most like it, made symmetric.

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
    bit_similarity = (
        np.maximum(1.0 - 2.0 * np.arange(RETRIEVAL.signature_bits + 1) / RETRIEVAL.signature_bits, 0.0)
        ** RETRIEVAL.selectivity_exponent
    )

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
    sample = np.random.default_rng(seed).permutation(len(descriptors))[: RETRIEVAL.coarse_sample_size]
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
    for _ in range(RETRIEVAL.max_kmeans_rounds if words < len(descriptors) else 0):
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
    for start in range(0, len(descriptors), RETRIEVAL.descriptors_per_slice):
        part = slice(start, start + RETRIEVAL.descriptors_per_slice)
        nearest[part] = np.argmin(
            lengths - 2.0 * (descriptors[part].astype(np.float32, copy=False) @ centers.T), axis=1
        )
    return nearest


def rows_by_label(labels: Int[Array, "n"], count: int) -> list[Int[Array, "_"]]:
    """Rows of each label 0 to ``count`` - 1."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))[:-1])
