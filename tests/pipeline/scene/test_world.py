"""Unit, up and origin of the world are told as far as they are known, and no further."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quoin.pipeline.scene.world import EarthOrigin, World, read_world, write_world

ORIGIN = EarthOrigin(48.77, 9.18, 245.0, residual_m=1.5, n_photos=12)


@pytest.mark.parametrize(
    ("world", "text"),
    [
        (World(), "unit of unknown length (photos alone do not tell the scale); z may not be up (confidence 0.00)"),
        (World("m", np.array([0, 0, 1.0]), 0.28), "meters; z may not be up (confidence 0.28)"),
        (World("m", np.array([0, 0, 1.0]), 0.9), "meters; z up"),
        (World("m", np.array([0, -1.0, 0]), 0.9), "meters; up is 0.00 -1.00 0.00"),
    ],
)
def test_it_says_what_is_known(world, text):
    assert str(world) == f"world frame; {text}"


def test_a_length_has_the_unit_that_is_known():
    assert World("m").length(0.034471) == "0.03447 m"
    assert World().length(0.034471) == "0.03447 units"


def test_it_is_read_back_as_it_was_written(run):
    assert read_world(run) == World(), "of a run without poses nothing is known"
    world = World("m", np.array([0.0, 0.6, 0.8]), 0.7, ORIGIN)
    write_world(run, world)
    back = read_world(run)
    np.testing.assert_array_equal(back.up, world.up)
    assert (back.unit, back.up_confidence, back.origin) == ("m", 0.7, ORIGIN)
    write_world(run, World())
    assert read_world(run) == World(), "nothing of an earlier world stays"


def test_the_origin_on_earth_lies_beside_the_mesh():
    told = json.loads(ORIGIN.as_json())
    assert told["origin"]["latitude_deg"] == 48.77
    assert told["crs"] == "EPSG:4979"
