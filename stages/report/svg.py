"""SVG elements in which every text and attribute is escaped by construction."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape


def svg_tag(name: str, *children: str, **attributes: object) -> Markup:
    """``<name key="value">children</name>``; a child that is no Markup is escaped text.

    Attributes: ``class_`` is written ``class``, other underscores become hyphens, floats get two decimals.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_text(v))}"' for key, v in attributes.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704 - all parts are escaped above


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def format_points(*points: Sequence[float]) -> str:
    """Corner points as the ``points`` of a polyline or polygon."""
    return " ".join(",".join(_text(float(v)) for v in point) for point in points)
