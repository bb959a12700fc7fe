"""Photos of a block: their shares, and which few cover it."""

from __future__ import annotations

import numpy as np

from quoin.stages.partition.block_photos import (
    SELECTION_PARAMS,
    photo_cells,
    pyramid_levels,
    select_photos,
    visible_shares,
)


def test_cells_number_photos_and_places() -> None:
    sizes = np.array([[240, 120], [120, 240]])
    places = np.array([[0.0, 0], [239, 119], [5, 235], [9, 9]])
    cell, cell_photo = photo_cells(places, np.array([0, 0, 1, 0]), sizes)
    assert cell.tolist() == [0, 1, 2, 0]
    assert cell_photo.tolist() == [0, 0, 1]


def test_a_share_counts_picture_area_not_points() -> None:
    # photo 0: a corner full of points outside the block, three sparse cells inside it
    cell, cell_photo = np.array([0] * 50 + [1, 2, 3, 4]), np.array([0, 0, 0, 0, 1])
    np.testing.assert_allclose(visible_shares(cell[50:53], cell_photo, np.array([4]), np.array([0])), [0.75])
    np.testing.assert_allclose(
        visible_shares(cell[[0, 53]], cell_photo, np.array([4, 1]), np.array([0, 1])), [0.25, 1.0]
    )


def observations(sees: dict[int, range]) -> tuple[np.ndarray, np.ndarray]:
    photo = np.concatenate([np.full(len(points), p) for p, points in sees.items()])
    return photo, np.concatenate([np.array(points) for points in sees.values()])


def test_few_photos_are_chosen_so_that_all_of_the_block_is_covered() -> None:
    # eleven near copies of one view, and two photos that alone show the other half
    sees = {p: range(100) for p in range(11)} | {11: range(100, 150), 12: range(100, 150)}
    photo, point = observations(sees)
    share = np.full(13, 0.8)
    share[11:] = 0.3
    chosen = select_photos(photo, point, np.ones(len(photo)), share, max_photos=8, seed=0)
    assert len(chosen) == 8
    assert {11, 12} <= set(chosen.tolist())
    everything = select_photos(photo, point, np.ones(len(photo)), share, max_photos=100, seed=0)
    assert sorted(everything.tolist()) == list(range(13))


def test_sharper_photos_come_first() -> None:
    photo, point = observations({p: range(40) for p in range(10)})
    footprint = np.array([0.01, 0.05])[(photo % 2 == 0).astype(int)]
    chosen = select_photos(photo, point, footprint, np.ones(10), max_photos=5, seed=0)
    assert set(chosen.tolist()) == {1, 3, 5, 7, 9}


def test_a_glimpse_does_not_count_unless_there_is_nothing_else() -> None:
    photo, point = observations({0: range(150), 1: range(150), 2: range(SELECTION_PARAMS.min_tracks - 1)})
    assert 2 not in select_photos(photo, point, np.ones(len(photo)), np.ones(3), max_photos=9, seed=0)
    photo, point = observations({2: range(2)})
    assert select_photos(photo, point, np.ones(2), np.ones(3), max_photos=9, seed=0).tolist() == [2]
    none = np.zeros(0, np.int64)
    assert len(select_photos(none, none, np.zeros(0), np.ones(3), max_photos=9, seed=0)) == 0


def test_a_photo_is_halved_until_its_nearest_pixels_are_as_fine_as_needed() -> None:
    photo = np.repeat([0, 1, 3], 100)
    size = SELECTION_PARAMS.min_footprint_voxels * np.repeat(
        [1.0, 0.24, 0.01], 100
    )  # photo 1: twice halved it is just fine enough
    size[5], size[105] = 0.0001, 10.0  # one point right before a camera says nothing
    assert pyramid_levels(photo, size, 1.0, 2, 4).tolist() == [0, 2, 0, 2]
    assert pyramid_levels(photo, size, 0.24, 2, 4).tolist() == [0, 0, 0, 2]
