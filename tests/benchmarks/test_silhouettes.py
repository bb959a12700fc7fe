"""Outlines: how much of two of them is common, and a mask looked at through a lens."""

import numpy as np
import pytest

from benchmarks.silhouettes import sample_mask, silhouette_iou


def test_overlap_counts_what_both_cover_and_inside_the_box_only_what_is_there():
    ours, theirs = np.zeros((2, 20, 30), bool)
    theirs[5:15, 10:20] = True
    assert silhouette_iou(theirs, theirs) == (1.0, 1.0)
    ours[5:15, 15:25] = True  # half of it, and as much beside
    assert silhouette_iou(ours, theirs) == (pytest.approx(50 / 150), pytest.approx(50 / 100))
    assert silhouette_iou(np.zeros_like(theirs), theirs) == (0.0, 0.0)


def test_places_find_their_pixels_and_nothing_beside_the_picture():
    picture = np.zeros((4, 8), bool)
    picture[3, 0] = True
    places = np.array([[0.01, 0.99], [0.2, 0.99], [0.01, 1.0], [-0.01, 0.99], [np.nan, 0.9]])
    assert sample_mask(picture, places).tolist() == [True, False, False, False, False]
