"""Groups of photos that hang together by a thread are parted; whatever shares enough is not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from quoin.stages.pose.checks import weak_links
from quoin.stages.pose.checks.weak_links import leading_eigenvectors, split_at_weak_cuts, weakest_cut
from quoin.stages.pose.colmap.sparse_model import SparseModel
from tests.stages.pose.room import CAMERA


def model_of(tracks: list[np.ndarray], n_photos: int) -> SparseModel:
    """A model in which point i is seen by the photos ``tracks[i]``; where things are does not matter here."""
    photo = np.concatenate(tracks)
    return SparseModel(
        photo_ids=np.arange(n_photos) + 7,
        cam_from_sfm=np.tile(np.eye(3, 4), (n_photos, 1, 1)),
        camera_index=np.zeros(n_photos, np.int64),
        cameras=[CAMERA],
        points_sfm=np.zeros((len(tracks), 3)),
        point_colors=np.zeros((len(tracks), 3), np.uint8),
        track_offsets=np.concatenate([[0], np.cumsum([len(t) for t in tracks])]),
        track_photo=photo,
        track_xy=np.zeros((len(photo), 2)),
    )


def chain(photos: np.ndarray, n_points: int, rng: np.random.Generator, reach: int = 3) -> list[np.ndarray]:
    """Points that neighbours in a row of photos see."""
    tracks = []
    for _ in range(n_points):
        first = rng.integers(0, len(photos) - 1)
        tracks.append(rng.permutation(photos[first : first + int(rng.integers(2, reach + 1))]))
    return tracks


@given(st.integers(0, 2**32 - 1), st.integers(4, 20), st.integers(4, 20), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_two_groups_and_a_thread(seed: int, n_one: int, n_other: int, n_shared: int) -> None:
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n_one + n_other)
    one, other = shuffled[:n_one], shuffled[n_one:]
    tracks = chain(one, 1500, rng, 4) + chain(other, 1500, rng, 4)
    tracks += [np.array([rng.choice(one), rng.choice(other)]) for _ in range(n_shared)]
    model = model_of([tracks[i] for i in rng.permutation(len(tracks))], n_one + n_other)
    cut = weakest_cut(model)
    assert cut is not None and cut.is_weak
    assert cut.n_shared == n_shared
    parts, cuts = split_at_weak_cuts(model)
    assert len(cuts) == 1
    assert {frozenset(p.photo_ids.tolist()) for p in parts} == {frozenset(one + 7), frozenset(other + 7)}
    assert len(parts[0].photo_ids) >= len(parts[1].photo_ids)


@pytest.mark.parametrize("n_photos", [6, 60, 400])
def test_a_long_walk_is_whole(n_photos: int) -> None:
    tracks = chain(np.arange(n_photos), 150 * n_photos, np.random.default_rng(0))
    assert len(split_at_weak_cuts(model_of(tracks, n_photos))[0]) == 1


def test_few_points_that_are_a_large_part_hold() -> None:
    """A small collection of bad photos: everything it has in common is little."""
    rng = np.random.default_rng(1)
    tracks = chain(np.arange(5), 150, rng) + chain(np.arange(5, 9), 150, rng)
    tracks += [np.array([rng.integers(0, 5), rng.integers(5, 9)]) for _ in range(30)]
    assert split_at_weak_cuts(model_of(tracks, 9))[1] == []


def test_too_few_photos_to_part() -> None:
    assert weakest_cut(model_of([np.arange(5)] * 50, 5)) is None


def test_leading_vectors_of_a_large_matrix_are_those_of_a_small_one(monkeypatch) -> None:
    """A ring of photos that share points with few neighbours, parted by Lanczos as by the whole matrix."""
    n, rng = 120, np.random.default_rng(0)
    near = np.abs(np.arange(n)[:, None] - np.arange(n))
    matrix = csr_array(np.where((near > 0) & (near < 4), rng.uniform(0.5, 1.0, (n, n)), 0.0))
    matrix = csr_array(matrix + matrix.T)
    whole = leading_eigenvectors(matrix, 3)
    monkeypatch.setattr(weak_links, "WEAK_LINKS", replace(weak_links.WEAK_LINKS, max_dense_photos=10))
    iterated = leading_eigenvectors(matrix, 3)
    np.testing.assert_allclose(np.abs((whole * iterated).sum(axis=0)), 1.0, atol=1e-5)
    np.testing.assert_array_equal(leading_eigenvectors(matrix, 3), iterated)  # and the same every time
