"""Which photos look alike, offline: the aggregated selective match kernel over words of the collection's own SIFT.

Tolias, Avrithis and Jégou, "To aggregate or not to aggregate" (ICCV 2013), with binary residuals (their ASMK*): per
photo and word the residuals of its descriptors are summed, turned and reduced to 128 signs. Two photos are as alike as
the signs that they have for the words they share, rare words first. An inverted index finds who shares a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64
from scipy.sparse import csr_array

from quoin.pipeline.core.parallel import each
from quoin.stages.pose.pairing.vocabulary import Words, learn

Array = np.ndarray
Features = Callable[[int], tuple[UInt8[Array, "n d"], Float[Array, "n"]]]
Advance = Callable[[float], None]

LARGEST = 1000  # features of a photo that are looked at: those of the largest scale, which others find again most often
WORDS_PER_PHOTO = 8  # so that about 120 photos share a word, however many there are,
SIDES = (64, 256)  # between 64² and 256² words
SAMPLE_PER_WORD = 24
SAMPLED_PHOTOS = 2000
BITS = 128
SELECTIVITY = 3  # similarities of residuals count by this power
BATCH = 64  # photos whose descriptors are in memory at once


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


def look_alikes(
    features_of: Features, count: int, keep: int, seed: int, threads: int = 1, advance: Advance = lambda done: None
) -> csr_array:
    """Likeness [count, count] of each photo to the ``keep`` photos most like it, and theirs to it; at most 1.

    ``features_of(i)`` gives a photo's descriptors and their scales, and is asked twice. Symmetric, its diagonal empty.
    """
    words = learn_words(features_of, count, seed)
    if words is None:
        return csr_array((count, count), dtype=np.float32)
    signatures = sign(features_of, count, words, seed, lambda done: advance(0.5 * done))
    return neighbours(signatures, keep, threads, lambda done: advance(0.5 * (count + done)))


def largest(descriptors: UInt8[Array, "n d"], scales: Float[Array, "n"]) -> UInt8[Array, "m d"]:
    """Descriptors of the features of the largest scale."""
    return descriptors[np.argsort(-scales, kind="stable")[:LARGEST]]


def learn_words(features_of: Features, count: int, seed: int) -> Words | None:
    """Words of the collection, more for more photos; None where there are no descriptors."""
    side = int(np.clip(np.sqrt(WORDS_PER_PHOTO * count), *SIDES))
    rng = np.random.default_rng(seed)
    looked_at = np.sort(rng.choice(count, min(count, SAMPLED_PHOTOS), replace=False))
    each_gives = -(-SAMPLE_PER_WORD * side**2 // max(1, len(looked_at)))
    parts = []
    for photo in looked_at.tolist():
        found = largest(*features_of(photo))
        parts.append(found[rng.permutation(len(found))[:each_gives]])
    sample = np.concatenate(parts) if parts else np.zeros((0, 1), np.uint8)
    return learn(sample, side, seed) if len(sample) else None


def sign(
    features_of: Features, count: int, words: Words, seed: int, advance: Advance = lambda done: None
) -> Signatures:
    """Signatures of all photos, read in batches."""
    n_dims = words.rough.shape[1]
    # random directions, in as many rotations as it takes
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0] for _ in range(-(-BITS // n_dims))]
    turn = np.concatenate(turns, axis=1)[:, :BITS].astype(np.float32)
    all_words, all_signs, sizes = [], [], []
    for start in range(0, count, BATCH):
        batch = [largest(*features_of(photo)) for photo in range(start, min(start + BATCH, count))]
        owner = np.repeat(np.arange(len(batch)), [len(part) for part in batch])
        descriptors = np.concatenate(batch).reshape(len(owner), n_dims).astype(np.float32)
        found = words.of(descriptors)
        key = owner * words.count + found
        order = np.argsort(key, kind="stable")
        distinct, first = np.unique(key[order], return_index=True)
        if len(distinct):
            residuals = (descriptors - words.centers_of(found))[order]
            bits = np.add.reduceat(residuals, first, axis=0) @ turn > 0
            all_signs.append(np.packbits(bits, axis=1).view(np.uint64))
        all_words.append(distinct % words.count)
        sizes.append(np.bincount(distinct // words.count, minlength=len(batch)))
        advance(start + len(batch))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return Signatures(offsets, np.concatenate(all_words), np.concatenate(all_signs), words.count)


def neighbours(signatures: Signatures, keep: int, threads: int = 1, advance: Advance = lambda done: None) -> csr_array:
    """Likeness of each photo to the ``keep`` most like it, made symmetric.

    k(X, Y) = g(X) g(Y) sum_w idf_w² s(h_w), over words w that both have; h_w is how many of the B signs differ,
    s = (1 - 2 h / B)³ where that is above zero (equations 9 and 12 there), and g makes k(X, X) = 1.
    """
    offsets, words, photos = signatures.offsets, signatures.words, signatures.photos
    count = len(offsets) - 1
    by_word = np.argsort(words, kind="stable")
    listed, listed_signs = photos[by_word], signatures.signs[by_word]
    lengths = np.bincount(words, minlength=signatures.n_words)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rarity = np.log(count / np.maximum(lengths, 1)) ** 2
    norm = np.sqrt(np.bincount(photos, rarity[words], count))
    close = np.maximum(1.0 - 2.0 * np.arange(BITS + 1) / BITS, 0.0) ** SELECTIVITY

    def partners_of(photo: int) -> tuple[Int[Array, "_"], Float[Array, "_"]]:
        mine = slice(offsets[photo], offsets[photo + 1])
        sizes = lengths[words[mine]]
        ends = np.cumsum(sizes)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts[words[mine]] - ends + sizes, sizes)
        differ = np.bitwise_count(listed_signs[rows] ^ np.repeat(signatures.signs[mine], sizes, axis=0)).sum(axis=1)
        votes = close[differ] * np.repeat(rarity[words[mine]], sizes)
        alike = np.bincount(listed[rows], votes, count) / np.maximum(norm[photo] * norm, 1e-12)
        alike[photo] = 0.0
        best = np.argpartition(-alike, min(keep, count - 1))[:keep]
        best = best[alike[best] > 0]
        return best.astype(np.int32), alike[best].astype(np.float32)

    found = each(partners_of, count, threads, advance)
    pointers = np.concatenate([[0], np.cumsum([len(best) for best, _ in found])])
    columns, values = (np.concatenate([pair[part] for pair in found]) for part in (0, 1))
    alike = csr_array((values, columns, pointers), shape=(count, count))
    return alike.maximum(alike.T)
