"""Drawing and counting, against analytic truth."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.geometry.mesh import vertex_normals
from quoin.pipeline.scene.mesh_formats import CONFIDENCE_COLORS, confidence_colors
from quoin.stages.report import chart, maps, mesh_rendering
from quoin.stages.report.collect import build_histogram
from quoin.stages.report.mesh_rendering import (
    MeshRaycaster,
    downsample_half,
    draw_colors,
    draw_shape,
)
from quoin.stages.report.photo_views import select_spread_cameras
from quoin.stages.report.pictures import svg_tag

# -- casting ---------------------------------------------------------------------------------------------------------


def test_sphere_silhouette_depth_and_shade_are_analytic():
    """A sphere of radius r at distance d fills a disc of radius f r / sqrt(d² − r²) pixels, nearest at d − r."""
    ball = trimesh.creation.icosphere(5, radius=0.5)
    shift = np.array([4e5, -3e5, 120.0])  # far from the origin, as in a georeferenced world
    vertices, faces = ball.vertices + shift, np.asarray(ball.faces, np.int64)
    pose = look_at(shift + np.array([3.0, 0, 0]), shift)
    view = MeshRaycaster(vertices, faces).cast(pose, np.array([200.0, 200.0, 80.0, 60.0]), 160, 120)

    radius_px = 200 * 0.5 / np.sqrt(3.0**2 - 0.5**2)
    assert view.hit.sum() == pytest.approx(np.pi * radius_px**2, rel=0.01)
    ys, xs = np.nonzero(view.hit)
    assert (xs + 0.5).mean() == pytest.approx(80, abs=0.2)
    assert (ys + 0.5).mean() == pytest.approx(60, abs=0.2)
    assert view.depth_m[view.hit].min() == pytest.approx(2.5, abs=2e-3)

    normals = vertex_normals(vertices, faces)
    assert np.allclose(normals, ball.vertices / 0.5, atol=1e-2)
    shape = draw_shape(view, faces, normals)
    assert shape[60, 80, 0] > shape[60, 80 + int(radius_px) - 2, 0] + 60  # bright in the middle, dark at the rim
    assert (shape[0, 0] == (236, 237, 239)).all()


def test_vertex_colours_are_interpolated_over_a_face():
    vertices = np.array([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    faces, colors = np.array([[0, 1, 2]]), np.array([[0, 0, 0], [240, 0, 0], [0, 240, 0]], np.uint8)
    pose = look_at(np.array([0.0, 0.0, 2.0]), np.zeros(3), up=np.array([0.0, 1.0, 0.0]))
    view = MeshRaycaster(vertices, faces).cast(pose, np.array([80.0, 80.0, 50.0, 50.0]), 100, 100)
    rgb = draw_colors(view, faces, colors)
    # pixel (x, y) sees the plane at X = (x − 50) / 40, Y = −(y − 50) / 40; red grows with X, green with Y
    assert rgb[60, 40, 0] == pytest.approx(240 * ((40.5 - 50) / 40 + 1) / 2, abs=1)
    assert rgb[60, 40, 1] == pytest.approx(240 * (1 - (60.5 - 50) / 40) / 2, abs=1)


def test_halving_keeps_the_mean():
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    assert downsample_half(rgb).shape == (3, 4, 3)
    assert np.abs(downsample_half(rgb).mean((0, 1)) - rgb.mean((0, 1))).max() < 0.5


def test_spread_takes_cameras_all_around_and_leaves_poor_ones():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    centers = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    n_points = np.full(40, 100)
    n_points[7], n_points[20] = 500, 3
    chosen = select_spread_cameras(centers, -centers, n_points, 4)
    assert 7 in chosen
    assert 20 not in chosen
    gaps = np.diff([*angle[chosen], angle[chosen[0]] + 2 * np.pi])
    assert gaps.min() > 0.8 * np.pi / 2
    assert select_spread_cameras(centers[:2], -centers[:2], n_points[:2], 5) == [0, 1]
    assert select_spread_cameras(centers[:0], centers[:0], n_points[:0], 5) == []


# -- charts ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 60))
def test_thinning_keeps_mean_and_extremes(values: list[float], buckets: int):
    value = np.array(values)
    curve = chart.thin_curve("b", np.arange(len(value), dtype=float), value, buckets)
    assert len(curve.step) == min(buckets, len(value))
    assert min(curve.low) == value.min()
    assert max(curve.high) == value.max()
    sizes = [len(p) for p in np.array_split(value, len(curve.step))]
    assert np.average(curve.mean, weights=sizes) == pytest.approx(value.mean(), rel=1e-9, abs=1e-6)


def test_thinning_orders_steps_and_leaves_out_what_is_not_finite():
    curve = chart.thin_curve("b", np.array([2.0, 0.0, 1.0]), np.array([5.0, 3.0, np.nan]))
    assert curve.step == [0.0, 2.0]
    assert curve.mean == [3.0, 5.0]
    assert chart.thin_curve("b", np.array([0.0]), np.array([np.inf])).step == []


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_round_and_inside(low: float, span: float):
    marks = chart.axis_ticks(low, low + span)
    assert len(marks) <= 7
    slack = 1e-6 * span + 2 * np.spacing(abs(low))  # of numbers much larger than the span
    assert all(low - slack <= m <= low + span + slack for m in marks)


def test_a_chart_draws_each_curve_from_corner_to_corner():
    curves = [chart.Curve("b<0>", [0.0, 10.0], [1.0, 100.0], [1.0, 100.0], [1.0, 100.0])]
    svg = str(chart.line_chart(curves, x_label="step", y_label="", title="loss", log=True))
    left, right = chart.MARGIN_LEFT_PX, chart.CHART_WIDTH_PX - chart.MARGIN_RIGHT_PX
    assert f'points="{left},{chart.CHART_HEIGHT_PX - chart.MARGIN_BOTTOM_PX} {right},{chart.MARGIN_TOP_PX}"' in svg
    assert "b&lt;0&gt;" in svg
    assert chart.line_chart([], x_label="", y_label="", title="") == ""
    assert chart.histogram_chart([0, 1], [0], x_label="", y_label="", title="") == ""


# -- histograms ------------------------------------------------------------------------------------------------------


def test_histogram_counts_everything_once():
    values = np.concatenate([np.linspace(0, 2, 990), [50.0] * 10, [np.nan]])
    found = build_histogram(values)
    assert sum(found.counts) + found.n_beyond == 1000
    assert found.edges[-1] < 51
    assert found.median == pytest.approx(1.0, abs=0.02)
    assert build_histogram(np.array([np.nan])) is None


def test_histogram_of_whole_numbers_has_a_bar_per_number():
    found = build_histogram(np.array([2, 2, 3, 5]), whole_numbers=True)
    assert dict(zip((np.array(found.edges[:-1]) + 0.5).tolist(), found.counts, strict=True))[2] == 2
    assert sum(found.counts) == 4


def test_histogram_of_one_value_is_one_bar_in_the_middle():
    found = build_histogram(np.full(11, 760.0))
    assert max(found.counts) == 11
    assert np.argmax(found.counts) == len(found.counts) // 2


# -- maps ------------------------------------------------------------------------------------------------------------


def test_a_map_puts_points_where_they_belong():
    low, high = np.array([-2.0, -1.0, 0.0]), np.array([2.0, 1.0, 0.0])
    window = maps.fit_window(np.eye(3)[0], np.eye(3)[1], np.zeros((0, 3)), np.zeros((0, 3)), np.stack([low, high]), 2.0)
    width, height = window.size_px
    assert width == 2 * height == maps.MAP_WIDTH_PX
    assert window.pixels(np.zeros((1, 3)))[0] == pytest.approx([width / 2, height / 2])
    right_up = window.pixels(np.array([[1.0, 0.5, 0.0]]))[0]
    assert right_up[0] > width / 2
    assert right_up[1] < height / 2  # world y goes up the page
    red = np.array([[255, 0, 0]], np.uint8)
    picture = maps.rasterize_points(window, np.array([[1.0, 0.5, 7.0]]), red)
    x, y = np.floor(right_up).astype(int)
    assert (picture[y, x, :3] == red[0]).all()
    assert picture[y, x, 3] > 100
    assert (picture[..., 3] > 0).sum() == 9


def test_a_wild_camera_does_not_blow_up_the_map_and_is_counted():
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    centers = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    centers[3] = [37_000.0, 0, 0]
    points = np.random.default_rng(0).normal(0, 0.3, (500, 3))
    window = maps.fit_window(np.eye(3)[0], np.eye(3)[1], points, centers, np.zeros((0, 3)), 1.0)
    assert (window.high - window.low).max() < 4
    rotations = np.tile(np.eye(3), (20, 1, 1))
    svg, off = maps.camera_markers(window, centers, rotations, np.full(20, 0.5), [f"<{i}>" for i in range(20)], {0: 1})
    assert off == 1
    assert svg.count("data-photo") == 19
    assert "&lt;5&gt;" in svg


def test_the_side_view_looks_across_the_longest_direction():
    rng = np.random.default_rng(0)
    along = np.array([np.cos(0.5), np.sin(0.5), 0.0])
    points = rng.normal(size=(400, 1)) * 5 * along + rng.normal(size=(400, 3)) * 0.2
    assert abs(maps.side_axis(points) @ along) > 0.999


def test_confidence_is_drawn_where_the_mesh_is_from_red_over_pale_to_blue():
    caster = mesh_rendering.MeshRaycaster(np.array([[-9.0, -9, 2], [9, -9, 2], [0, 9, 2]]), np.array([[0, 1, 2]]))
    view = caster.cast(np.eye(3, 4), np.array([20.0, 20, 8, 6]), 16, 12)
    assert view.hit.all()
    normals = np.tile([0.0, 0, -1], (3, 1))
    low, middle, high = (
        mesh_rendering.draw_confidence(view, caster.faces, normals, np.full(3, value))[6, 8].astype(int)
        for value in (0.0, 0.5, 1.0)
    )
    assert low[0] > low[2] + 100
    assert high[2] > high[0] + 80
    assert middle.min() > 150
    np.testing.assert_allclose(confidence_colors(np.array([0, 0.5, 1])), CONFIDENCE_COLORS)


@given(st.text(), st.text())
def test_a_tag_escapes_text_and_attributes(text: str, value: str):
    made = svg_tag("text", text, data_name=value)
    assert made.count("<") == 2
    assert made.count(">") == 2
    assert made.count('"') == 2
