"""Fits and the picture of how a run's cost grows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import scale


def town(n_blocks: int, **seconds: float) -> dict:
    return {"n_blocks": n_blocks, "seconds": seconds, "fuse_peak_memory_bytes": 1 << 30}


TOWNS = {n: town(n, priors=3.0 + 10.0 * n, fuse=0.5 * n**2, partition=0.2) for n in (4, 16, 64)}


def test_a_line_is_found_with_what_it_begins_with() -> None:
    start, slope = scale.fit_line([4, 16, 64], [43.0, 163.0, 643.0])
    assert (start, slope) == pytest.approx((3.0, 10.0))
    assert scale.fit_line([16], [160.0]) == (0.0, 10.0)


def test_what_is_quadratic_has_exponent_two() -> None:
    found = scale.fit_stage_costs(TOWNS)
    assert found["fuse"]["exponent"] == pytest.approx(2.0)
    assert found["priors"]["s_per_block"] == pytest.approx(10.0)
    assert found["partition"]["exponent"] == pytest.approx(0.0, abs=1e-9)
    assert "train" not in found


def test_facts_are_those_of_the_manifests() -> None:
    blocks = {f"train/b00{i}": {"seconds": 5.0 + i} for i in range(2)}
    found = scale.town_metrics(
        {
            "pose": {"seconds": 9.0, "n_registered": 88, "n_pairs": 700},
            "partition": {"seconds": 1.0, "n_blocks": 2},
            "train": {"seconds": 11.0},
            **blocks,
        }
    )
    assert found["n_photos"] == 88
    assert found["seconds"] == {"pose": 9.0, "partition": 1.0, "train": 11.0}
    assert found["train_blocks_seconds"] == [5.0, 6.0]


def test_the_picture_is_svg_with_a_line_for_each_stage() -> None:
    picture = ElementTree.fromstring(scale.draw_scale_plot(TOWNS))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3
    assert ElementTree.fromstring(scale.draw_scale_plot({4: TOWNS[4]})) is not None
