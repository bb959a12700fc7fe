"""Pairs found in rounds, on a walk whose overlaps are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from benchmarks.walk import SimulatedWalk, simulate_walk
from quoin.stages.pose.colmap.database import DescriptorReader
from quoin.stages.pose.pairing.expansion import (
    EXPANSION,
    NO_PAIRS_TRIED,
    expected_similarity,
    first_round_pairs,
    match_in_rounds,
    next_round_pairs,
)
from quoin.stages.pose.pairing.retrieval import photo_similarity

COUNT, MOST = 80, 60


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatedWalk, csr_array]:
    database: Path = tmp_path_factory.mktemp("walk") / "database.db"
    made = simulate_walk(COUNT, database, seed=1)
    reader = DescriptorReader(database)
    alike = photo_similarity(reader, COUNT, 40, seed=0)
    reader.close()
    return made, alike


def as_set(pairs: np.ndarray) -> set:
    return {tuple(sorted(pair)) for pair in pairs.tolist()}


def test_rounds_find_a_walk_in_few_pairs(walk: tuple[SimulatedWalk, csr_array]) -> None:
    made, alike = walk
    truth = as_set(made.all_verified())
    tried = match_in_rounds(alike, first_round_pairs(alike), MOST, lambda pairs, number: made.verified(pairs))
    found = as_set(tried.pairs)
    assert len(found) == len(tried.pairs)
    assert len(truth & found) / len(truth) > 0.9
    assert len(found) < 0.4 * COUNT * (COUNT - 1) / 2
    np.testing.assert_array_equal(tried.verified, made.verified(tried.pairs))
    one_round = as_set(first_round_pairs(alike))
    assert len(truth & one_round) / len(truth) < 0.6


def test_no_photo_is_in_more_pairs_than_allowed(walk: tuple[SimulatedWalk, csr_array]) -> None:
    made, alike = walk
    tried = match_in_rounds(alike, first_round_pairs(alike)[:0], 6, lambda pairs, number: made.verified(pairs))
    assert len(tried.pairs) == 0  # nothing to begin with: nothing learnt, and no round follows
    begin = np.array([[0, 1]])
    tried = match_in_rounds(alike, begin, 6, lambda pairs, number: np.ones(len(pairs), bool))
    assert np.bincount(tried.pairs.ravel()).max() == 6


def matrix(count: int, entries: dict[tuple[int, int], float]) -> csr_array:
    dense = np.zeros((count, count), np.float32)
    for (a, b), value in entries.items():
        dense[a, b] = dense[b, a] = value
    return csr_array(dense)


def test_a_partners_partner_is_found_though_it_looks_unlike() -> None:
    """0 and 2 have nothing in common that can be seen, but both match 1."""
    alike = matrix(4, {(0, 1): 0.3, (1, 2): 0.3, (2, 3): 0.01})
    tried = NO_PAIRS_TRIED.with_round(np.array([[0, 1], [1, 2]]), np.array([True, True]))
    assert (0, 2) in as_set(next_round_pairs(alike, tried, MOST))
    refuted = NO_PAIRS_TRIED.with_round(np.array([[0, 1], [1, 2]]), np.array([False, False]))
    assert (0, 2) not in as_set(next_round_pairs(alike, refuted, MOST))


def test_expectations_are_what_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    dense = np.triu(rng.uniform(0, 1, (7, 7)), 1)
    dense += dense.T
    partner = np.triu(rng.random((7, 7)) < 0.4, 1).astype(float)
    partner += partner.T
    degree = np.maximum(partner.sum(axis=1), 1)
    mean_of, usual = partner / degree[:, None], dense[partner > 0].mean()
    common = partner @ partner / np.sqrt(np.outer(degree, degree))
    expected = dense + 0.25 * (mean_of @ dense + dense @ mean_of.T) + 0.1 * usual * common
    found = expected_similarity(csr_array(dense), csr_array(partner), np.array([1, 4]))
    np.testing.assert_allclose(found.toarray(), expected[[1, 4]])


def test_photos_whose_pairs_fail_ask_for_no_more() -> None:
    """Thirteen photos that all look alike; each was tried with the five before and after it."""
    count = EXPANSION.min_tried_pairs + 3
    alike = matrix(count, {(a, b): 0.5 for a in range(count) for b in range(a + 1, count)})
    pairs = np.array(
        [sorted((a, (a + gap) % count)) for a in range(count) for gap in range(1, EXPANSION.min_tried_pairs // 2 + 1)]
    )
    assert len(next_round_pairs(alike, NO_PAIRS_TRIED.with_round(pairs, np.zeros(len(pairs), bool)), MOST)) == 0
    more = next_round_pairs(alike, NO_PAIRS_TRIED.with_round(pairs, np.ones(len(pairs), bool)), MOST)
    assert len(as_set(more)) == count
    assert not as_set(more) & as_set(pairs)


def test_first_pairs_are_the_most_alike() -> None:
    alike = matrix(
        EXPANSION.first_round_partners + 2, {(0, b): 0.1 * b for b in range(1, EXPANSION.first_round_partners + 2)}
    )
    asked = first_round_pairs(alike[[0]])  # the first photo alone
    assert as_set(asked) == {(0, b) for b in range(2, EXPANSION.first_round_partners + 2)}
    assert as_set(first_round_pairs(alike)) == {
        (0, b) for b in range(1, EXPANSION.first_round_partners + 2)
    }  # 1 has no other
    assert len(first_round_pairs(matrix(1, {}))) == 0
    assert len(next_round_pairs(matrix(1, {}), NO_PAIRS_TRIED, MOST)) == 0
