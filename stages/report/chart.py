"""Line charts and histograms as inline SVG; colours come from the page's style sheet (classes c0…c7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from quoin.pipeline.core.formatting import format_number
from quoin.stages.report.pictures import format_points, svg_tag

Array = np.ndarray

CHART_WIDTH_PX, CHART_HEIGHT_PX = 480, 240
MARGIN_LEFT_PX, MARGIN_RIGHT_PX, MARGIN_TOP_PX, MARGIN_BOTTOM_PX = 52, 12, 10, 34
N_COLORS = 8


@dataclass(frozen=True)
class Curve:
    """A series reduced for drawing: mean, lowest and highest value of each bucket of neighbouring steps."""

    label: str
    step: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def thin_curve(label: str, step: Float[Array, "n"], value: Float[Array, "n"], buckets: int = 160) -> Curve:
    """The series in at most ``buckets`` points, with the mean and the extremes of each bucket of steps.

    Values that are not finite are left out. A series no longer than ``buckets`` stays as it is, in order of steps.
    """
    keep = np.isfinite(value) & np.isfinite(step)
    step, value = np.asarray(step, float)[keep], np.asarray(value, float)[keep]
    order = np.argsort(step, kind="stable")
    step, value = step[order], value[order]
    if len(step) == 0:
        return Curve(label, [], [], [], [])
    parts = np.array_split(np.arange(len(step)), min(buckets, len(step)))
    return Curve(
        label,
        [float(step[p].mean()) for p in parts],
        [float(value[p].mean()) for p in parts],
        [float(value[p].min()) for p in parts],
        [float(value[p].max()) for p in parts],
    )


def axis_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Axis:
    """Maps values to pixels along one side of a chart."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = (math.log10(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        share = (v - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start), 2)

    def axis_ticks(self) -> list[float]:
        if not self.log:
            return axis_ticks(self.low, self.high)
        low, high = math.log10(self.low), math.log10(self.high)
        if high - low < 1.0:
            return axis_ticks(self.low, self.high, 4)
        decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        factors = (1,) if len(decades) > 3 else (1, 2, 5)
        marks = [f * 10.0**d for d in range(math.floor(low), math.floor(high) + 1) for f in factors]
        return [m for m in marks if self.low * 0.999 <= m <= self.high * 1.001]


def _chart_svg(x: _Axis, y: _Axis, x_label: str, y_label: str, body: list[Markup], title: str) -> Markup:
    floor, right = CHART_HEIGHT_PX - MARGIN_BOTTOM_PX, CHART_WIDTH_PX - MARGIN_RIGHT_PX
    out = []
    for v in y.axis_ticks():
        out.append(svg_tag("line", class_="grid", x1=MARGIN_LEFT_PX, x2=right, y1=y(v), y2=y(v)))
        out.append(
            svg_tag("text", format_number(v, 4), class_="tick", x=MARGIN_LEFT_PX - 6, y=y(v) + 4, text_anchor="end")
        )
    for v in x.axis_ticks():
        out.append(svg_tag("text", format_number(v, 4), class_="tick", x=x(v), y=floor + 16, text_anchor="middle"))
    out.append(svg_tag("text", x_label, class_="axis", x=right, y=CHART_HEIGHT_PX - 3, text_anchor="end"))
    out.append(svg_tag("text", y_label, class_="axis", x=4, y=CHART_HEIGHT_PX - 3))
    view = f"0 0 {CHART_WIDTH_PX} {CHART_HEIGHT_PX}"
    return svg_tag("svg", *out, *body, class_="chart", viewBox=view, role="img", aria_label=title)


def line_chart(curves: Sequence[Curve], *, x_label: str, y_label: str, title: str, log: bool = False) -> Markup:
    """A chart of all ``curves`` with their spread as a faint band; '' where none holds a point."""
    curves = [curve for curve in curves if curve.step]
    if not curves:
        return Markup("")
    steps = [step for curve in curves for step in curve.step]
    low, high, is_log = _value_range(curves, log)
    x = _Axis(min(0.0, *steps), max(*steps, 1.0), MARGIN_LEFT_PX, CHART_WIDTH_PX - MARGIN_RIGHT_PX)
    y = _Axis(low, high, CHART_HEIGHT_PX - MARGIN_BOTTOM_PX, MARGIN_TOP_PX, is_log)
    bands = [_curve_band(x, y, curve, f"c{i % N_COLORS}") for i, curve in enumerate(curves)]
    lines = [_curve_line(x, y, curve, f"c{i % N_COLORS}") for i, curve in enumerate(curves)]
    return _chart_svg(x, y, x_label, y_label, [*bands, *lines], title)


def _value_range(curves: Sequence[Curve], log: bool) -> tuple[float, float, bool]:
    """Lowest and highest value of the y axis, and whether it is logarithmic: if wanted, and values span a factor of 3.

    With ``log`` only positive values count.
    """
    lows, highs = (np.array([v for curve in curves for v in getattr(curve, name)]) for name in ("low", "high"))
    if log:
        lows, highs = lows[lows > 0], highs[highs > 0]
    low, high = (float(lows.min()), float(highs.max())) if len(lows) else (0.0, 1.0)
    if log and len(lows) and high > 3 * low:
        return low, high, True
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin, False


def _curve_band(x: _Axis, y: _Axis, curve: Curve, color: str) -> Markup:
    upper = [(x(s), y(v)) for s, v in zip(curve.step, curve.high, strict=True)]
    lower = [(x(s), y(v)) for s, v in zip(reversed(curve.step), reversed(curve.low), strict=True)]
    return svg_tag("polygon", class_=f"band {color}", points=format_points(*upper, *lower))


def _curve_line(x: _Axis, y: _Axis, curve: Curve, color: str) -> Markup:
    """The mean as a line; a single point also as a dot."""
    corners = [(x(s), y(v)) for s, v in zip(curve.step, curve.mean, strict=True)]
    name = svg_tag("title", f"{curve.label}: last {format_number(curve.mean[-1], 4)}")
    line = svg_tag("polyline", name, class_=f"line {color}", points=format_points(*corners))
    if len(corners) > 1:
        return line
    (cx, cy), *_ = corners
    return line + svg_tag("circle", name, class_=f"dot {color}", cx=cx, cy=cy, r=3)


def histogram_chart(edges: Sequence[float], counts: Sequence[int], *, x_label: str, y_label: str, title: str) -> Markup:
    """A histogram: ``counts`` [n] between ``edges`` [n + 1]; '' where it counts nothing."""
    if not sum(counts):
        return Markup("")
    x = _Axis(edges[0], edges[-1], MARGIN_LEFT_PX, CHART_WIDTH_PX - MARGIN_RIGHT_PX)
    y = _Axis(0.0, max(counts) * 1.05, CHART_HEIGHT_PX - MARGIN_BOTTOM_PX, MARGIN_TOP_PX)
    body = []
    for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True):
        width, top = max(x(high) - x(low) - 1, 0.5), y(n)
        name = svg_tag("title", f"{format_number(low)} to {format_number(high)}: {n:,}")
        body.append(svg_tag("rect", name, class_="bar", x=x(low), y=top, width=width, height=y(0) - top))
    return _chart_svg(x, y, x_label, y_label, body, title)
