"""Facts and pictures into one HTML text that loads nothing: every name is escaped, every script known by its hash."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from quoin.pipeline.core import formatting
from quoin.pipeline.scene import confidence as shown
from quoin.stages.report import chart
from quoin.stages.report.atlas import SceneMaps
from quoin.stages.report.facts import BlockFacts, Report
from quoin.stages.report.photo_views import ViewerCamera
from quoin.stages.report.previews import Preview
from quoin.stages.report.svg import svg_tag

TEMPLATE_FOLDER = Path(__file__).parent


def content_security_policy(scripts: Sequence[str], style: str) -> str:
    """A Content-Security-Policy under which only these scripts and this style sheet run, and nothing is fetched.

    ``blob:`` stays open for textures inside the glb, which a browser hands to the page under such addresses.
    """

    def hashes(texts: Sequence[str]) -> str:
        digests = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
        return " ".join(f"'sha256-{d}'" for d in digests)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes([style])}; img-src data: blob:; "
        "connect-src blob:; base-uri 'none'; form-action 'none'"
    )


def training_charts(facts: Report) -> dict[str, Any]:
    """Charts of what training measured: ``loss``, ``heldout_psnr_db`` and ``others`` by name."""

    def draw(name: str, log: bool) -> Markup:
        return chart.line_chart(
            facts.curves.get(name, []), x_label="step", y_label="", title=formatting.key_label(name), log=log
        )

    rest = {name: draw(name, not name.endswith("_db")) for name in sorted(facts.curves)}
    shown = {name: rest.pop(name, Markup("")) for name in ("loss", "heldout_psnr_db")}
    return {**shown, "others": {name: svg for name, svg in rest.items() if svg}}


def pose_charts(facts: Report) -> dict[str, Markup]:
    """Histograms of residuals, tracks and focal lengths; '' where not measured."""
    axes = {
        "reprojection_px": ("px", "points"),
        "track_length": ("photos per point", "points"),
        "focal_px": ("px", "photos"),
    }
    out = {}
    for name, (x_label, y_label) in axes.items():
        found = getattr(facts.pose, name, None)
        out[name] = Markup("")
        if found:
            title = formatting.key_label(name)
            out[name] = chart.histogram_chart(found.edges, found.counts, x_label=x_label, y_label=y_label, title=title)
    return out


def confidence_legend() -> Markup:
    """The colours of confidence from 0 to 1 as a bar with its numbers."""
    colors = ["#" + bytes(c).hex() for c in shown.CONFIDENCE_COLORS]
    stops = [svg_tag("stop", offset=k / (len(colors) - 1), stop_color=c) for k, c in enumerate(colors)]
    bar = svg_tag("rect", x=4, y=2, width=312, height=12, rx=3, fill="url(#confidence-colors)")
    words = [
        svg_tag("text", text, x=x, y=30, text_anchor=anchor, class_="tick")
        for text, x, anchor in (("0", 4, "start"), ("confidence 0.5", 160, "middle"), ("1", 316, "end"))
    ]
    gradient = svg_tag("defs", svg_tag("linearGradient", *stops, id="confidence-colors"))
    return svg_tag("svg", gradient, bar, *words, class_="chart legend", viewBox="0 0 320 36", role="img",
               aria_label="Colours of confidence from 0 to 1")  # fmt: skip


def summary_sentence(facts: Report) -> str:
    """The run in one or two sentences."""
    h = facts.headline
    if h.n_faces is None:
        return f"A run over {formatting.format_count(h.n_photos_used)} photos that has no surface yet."
    n_faces, n_photos = formatting.format_count(h.n_faces), formatting.format_count(h.n_photos_posed)
    text = f"A surface of {n_faces} triangles from {n_photos} photos"
    text += f" in {len(facts.blocks)} blocks" if len(facts.blocks) > 1 else ""
    text += f", made in {formatting.format_duration(h.total_seconds)}."
    if h.heldout_psnr_db is not None:
        psnr_db = formatting.format_number(h.heldout_psnr_db)
        text += f" It reproduces pixels that it was not trained to match to {psnr_db} dB."
    return text


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``section.key`` and text, in order."""
    out: list[tuple[str, str]] = []
    for key, value in settings.items():
        out += (
            flatten_settings(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{key}", str(value))]
        )
    return out


def render_page(
    facts: Report,
    *,
    title: str,
    maps: SceneMaps | None,
    listed: Sequence[BlockFacts],
    floor_plan: Markup,
    pictures: Mapping[int, Mapping[str, str]],
    previews: Mapping[str, Sequence[Preview]],
    glb: bytes | None,
    start: ViewerCamera | None,
    confidence: str | None,
) -> str:
    """The page. ``pictures``: view number → data URIs of ``photo``, ``colors`` and ``shape``.

    ``listed``: blocks in its table; ``confidence``: data URI of the mesh coloured by it, from where the viewer starts.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "count": formatting.format_count,
        "duration": formatting.format_duration,
        "label": formatting.key_label,
        "number": formatting.format_number,
        "percent": formatting.format_percent,
        "size": formatting.format_bytes,
        "visible": formatting.escape_invisible,
    }
    environment.filters["spans"] = formatting.timespans
    environment.filters["quantity"] = lambda value, key, length="m": formatting.escape_invisible(
        formatting.format_quantity(key, value, length)
    )
    style, script = ((TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    three = (TEMPLATE_FOLDER / "vendor" / "three.min.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        facts=facts,
        lacking=formatting.NOT_MEASURED,
        title=title,
        lead=summary_sentence(facts),
        policy=content_security_policy([three, script] if glb else [script], style),
        style=style,
        script=script,
        three=three,
        maps=maps,
        listed=listed,
        floor_plan=floor_plan,
        pictures=pictures,
        previews=previews,
        charts={**training_charts(facts), **pose_charts(facts)},
        curve_blocks=list(dict.fromkeys(c.label for name in sorted(facts.curves) for c in facts.curves[name])),
        states=sorted(Counter(p.state for p in facts.photos).items()),
        settings=flatten_settings(facts.settings),
        glb=base64.b64encode(glb).decode("ascii") if glb else "",
        start=start,
        confidence=confidence,
        confidence_key=confidence_legend() if confidence else "",
        made=time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.created_at)),
    )
