"""Numbers, times and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.core.formatting import (
    escape_invisible,
    format_bytes,
    format_duration,
    format_quantity,
    timecode,
    timespans,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.3, "42 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (3 << 40, "3 TiB")])
def test_sizes(count: int, text: str):
    assert format_bytes(count) == text


def test_times_in_a_clip():
    assert [timecode(t) for t in (7.9, 750, 3723)] == ["0:07", "12:30", "1:02:03"]
    assert timespans([(7, 9), (30, 30.5)]) == "0:07–0:09, 0:30"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("n_points", 1234567, "1,234,567"),
        ("median_reprojection_px", 0.4449, "0.445 px"),
        ("heldout_psnr_db", 27.04, "27 dB"),
        ("peak_memory_bytes", 1153433600, "1.07 GiB"),
        ("seconds", 125.2, "2 min 05 s"),
        ("total_seconds", 3599.9, "1 h 00 min"),
        ("rays_per_s", 9250.0, "9,250"),
        ("covered_share", 0.125, "12.5 %"),
        ("voxel_size_m", 0.0625, "0.0625 m"),
        ("georeferenced", False, "no"),
        ("gain_range", [0.5, 2.0], "0.5, 2"),
        ("heldout_psnr_db", None, "not measured"),
        ("heldout_psnr_db", float("nan"), "not measured"),
    ],
)
def test_numbers_are_written_with_the_unit_of_their_key(key: str, value: object, text: str):
    assert format_quantity(key, value) == text


def test_lengths_without_scale_are_not_called_meters():
    assert format_quantity("voxel_size_m", 0.5, "units") == "0.5 units"
    assert format_quantity("area_m2", 3.0, "units") == "3 units²"


@given(st.text())
def test_no_name_disguises_itself(name: str):
    shown = escape_invisible(name)
    assert not any(c in shown for c in "\n\r\t\x00\u202e\u2066\u2028")
    assert escape_invisible("Überblick 城.jpg") == "Überblick 城.jpg"
