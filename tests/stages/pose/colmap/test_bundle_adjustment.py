"""When a principal point's shift is believed."""

import numpy as np
import pytest

from quoin.stages.pose.colmap.bundle_adjustment import PrincipalPointShift


@pytest.mark.parametrize(
    ("one", "other", "believed"),
    [
        ((9.0, 10.0), (9.0, 8.7), True),  # the fountain of Strecha et al.: both halves say the same
        ((39.0, 46.0), (65.0, 37.0), False),  # they say the same, roughly, but no camera is built so
        ((2.0, 8.5), (9.0, 6.6), False),  # they disagree
        ((0.0, 0.0), (0.0, 0.0), False),  # nothing to move
        ((5.0, 0.0), (-5.0, 0.0), False),
    ],
)
def test_halves_must_agree_on_a_small_shift(one: tuple, other: tuple, believed: bool) -> None:
    assert PrincipalPointShift(np.array(one), np.array(other)).is_consistent(1600) is believed
