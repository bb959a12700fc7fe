"""Whether photos that show the same look alike."""

import numpy as np

from quoin.stages.pose.pairing.retrieval import (
    RETRIEVAL,
    Vocabulary,
    build_vocabulary,
    compute_signatures,
    kmeans,
    nearest_centers,
    photo_similarity,
    signature_similarity,
)


def test_codebook_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 255, (5, 16)).astype(np.float32)
    data = (truth[rng.integers(0, 5, 2000)] + rng.normal(0, 1, (2000, 16))).astype(np.float32)
    centers = kmeans(data, 12, seed=1)
    distance = np.linalg.norm(truth[:, None] - centers[None], axis=2).min(axis=1)
    assert distance.max() < 2.0
    assert nearest_centers(centers, centers).tolist() == list(range(12))


def test_two_levels_tell_apart_what_lies_apart() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 255, (30, 16)).astype(np.float32)
    of = rng.integers(0, 30, 3000)
    data = (truth[of] + rng.normal(0, 1, (3000, 16))).astype(np.float32)
    words = build_vocabulary(data, 16, seed=1)
    found = words.quantize(data)
    assert words.count == 256
    assert all(len(np.unique(of[found == word])) == 1 for word in np.unique(found))
    assert np.linalg.norm(words.centers_of(found) - data, axis=1).max() < 12


def places(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Forty photos of eight places that share most of their descriptors; the last has none."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 120, (8, 300, 32))
    photos = []
    for i in range(39):
        seen = points[i % 8][rng.choice(300, 200, replace=False)]
        both = np.concatenate([seen, rng.integers(0, 120, (100, 32))]) + rng.integers(-6, 7, (300, 32))
        photos.append((np.clip(both, 0, 255).astype(np.uint8), np.ones(300, np.float32)))
    return [*photos, (np.zeros((0, 32), np.uint8), np.zeros(0, np.float32))]


def test_photos_of_one_place_are_alike_and_one_without_features_is_like_none() -> None:
    alike = photo_similarity(places().__getitem__, 40, keep=4, seed=1).toarray()
    np.testing.assert_array_equal(alike, alike.T)
    assert not alike.diagonal().any()
    assert not alike[39].any()
    assert alike.max() <= 1 + 1e-6
    for photo in range(39):
        best = np.argsort(-alike[photo])[:3]
        assert (best % 8 == photo % 8).all()


def test_threads_change_nothing() -> None:
    one, two = (photo_similarity(places().__getitem__, 40, keep=4, seed=1, threads=n).toarray() for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_a_copy_is_wholly_alike() -> None:
    photos = places()
    photos[20] = photos[3]
    alike = photo_similarity(photos.__getitem__, 40, keep=4, seed=1).toarray()
    np.testing.assert_allclose(alike[3, 20], 1, atol=1e-5)
    assert alike[3].argmax() == 20


def test_few_photos_and_none_with_features() -> None:
    photo = places()[0]
    nothing = np.zeros((0, 32), np.uint8), np.zeros(0, np.float32)
    assert photo_similarity(lambda i: photo, 1, keep=5, seed=0).toarray().tolist() == [[0]]
    assert photo_similarity(lambda i: nothing, 3, keep=5, seed=0).nnz == 0


def test_likeness_is_the_kernel_of_the_paper() -> None:
    """Against the sum over common words written out."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 200, (4, 32)).astype(np.float32)
    words = Vocabulary(coarse, (coarse[:, None] + rng.normal(0, 20, (4, 4, 32))).astype(np.float32))
    photos = [(rng.integers(0, 200, (9, 32)).astype(np.uint8), np.ones(9, np.float32)) for _ in range(6)]
    signatures = compute_signatures(photos.__getitem__, 6, words, seed=0)
    bits = np.unpackbits(signatures.signs.view(np.uint8), axis=1)
    rows = [
        {int(signatures.words[at]): bits[at] for at in range(signatures.offsets[i], signatures.offsets[i + 1])}
        for i in range(6)
    ]
    rarity = {w: np.log(6 / sum(w in row for row in rows)) ** 2 for row in rows for w in row}

    def kernel(one: dict, other: dict) -> float:
        return sum(
            rarity[w] * max(1 - 2 * int((one[w] != other[w]).sum()) / RETRIEVAL.signature_bits, 0) ** 3
            for w in one.keys() & other.keys()
        )

    alike = signature_similarity(signatures, keep=6).toarray()
    for i in range(6):
        for j in range(i):
            expected = kernel(rows[i], rows[j]) / np.sqrt(kernel(rows[i], rows[i]) * kernel(rows[j], rows[j]))
            np.testing.assert_allclose(alike[i, j], expected, rtol=1e-4)
