"""The HTML page of facts and pictures. It loads nothing: names are escaped, scripts are allowed by their hash."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from quoin.pipeline.core import formatting
from quoin.pipeline.scene.mesh_formats import CONFIDENCE_COLORS
from quoin.stages.report import chart
from quoin.stages.report.collect import select_blocks
from quoin.stages.report.facts import Report
from quoin.stages.report.maps import SceneMaps
from quoin.stages.report.photo_views import ViewComparison
from quoin.stages.report.pictures import Preview, svg_tag

TEMPLATE_FOLDER = Path(__file__).parent
MAX_TABLE_BLOCKS = 200


def content_security_policy(scripts: Sequence[str], style: str) -> str:
    """A Content-Security-Policy that allows only these scripts and this style sheet, and no network.

    ``blob:`` stays allowed for textures inside the glb, which browsers load from such addresses.
    """

    def hashes(texts: Sequence[str]) -> str:
        digests = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
        return " ".join(f"'sha256-{d}'" for d in digests)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes([style])}; img-src data: blob:; "
        "connect-src blob:; base-uri 'none'; form-action 'none'"
    )


def training_charts(facts: Report) -> dict[str, Any]:
    """Charts of the training metrics: ``loss``, ``heldout_psnr_db`` and ``others`` by name."""

    def draw(name: str, log: bool) -> Markup:
        return chart.line_chart(
            facts.curves.get(name, []), x_label="step", y_label="", title=formatting.key_label(name), log=log
        )

    rest = {name: draw(name, not name.endswith("_db")) for name in sorted(facts.curves)}
    main_charts = {name: rest.pop(name, Markup("")) for name in ("loss", "heldout_psnr_db")}
    return {**main_charts, "others": {name: svg for name, svg in rest.items() if svg}}


def pose_charts(facts: Report) -> dict[str, Markup]:
    """Histograms of reprojection errors, track lengths and focal lengths; '' where not measured."""
    axes = {
        "reprojection_px": ("px", "points"),
        "track_length": ("photos per point", "points"),
        "focal_px": ("px", "photos"),
    }
    out = {}
    for name, (x_label, y_label) in axes.items():
        histogram = getattr(facts.pose, name, None)
        out[name] = Markup("")
        if histogram:
            title = formatting.key_label(name)
            out[name] = chart.histogram_chart(
                histogram.edges, histogram.counts, x_label=x_label, y_label=y_label, title=title
            )
    return out


def confidence_legend() -> Markup:
    """A colour bar of confidence from 0 to 1, with its numbers."""
    colors = ["#" + bytes(c).hex() for c in CONFIDENCE_COLORS]
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
    """One or two sentences about the run."""
    h = facts.headline
    if h.n_faces is None:
        return f"A run with {formatting.format_count(h.n_photos_used)} photos that has no surface yet."
    n_faces, n_photos = formatting.format_count(h.n_faces), formatting.format_count(h.n_photos_posed)
    text = f"A surface of {n_faces} triangles from {n_photos} photos"
    text += f" in {len(facts.blocks)} blocks" if len(facts.blocks) > 1 else ""
    text += f", made in {formatting.format_duration(h.total_seconds)}."
    if h.heldout_psnr_db is not None:
        psnr_db = formatting.format_number(h.heldout_psnr_db)
        text += f" Pixels that were held out from training are reproduced with a PSNR of {psnr_db} dB."
    return text


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of ``section.key`` and text, in order."""
    out: list[tuple[str, str]] = []
    for key, value in settings.items():
        out += (
            flatten_settings(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{key}", str(value))]
        )
    return out


@dataclass(frozen=True)
class PagePictures:
    """What the page shows beside the facts: its title, maps and pictures, previews of training, and the mesh."""

    title: str
    maps: SceneMaps | None
    floor_plan: Markup
    comparisons: Sequence[ViewComparison]
    previews: Mapping[str, Sequence[Preview]]  # by block
    glb: bytes | None  # for the viewer

    @property
    def overview(self) -> ViewComparison | None:
        """The comparison whose camera sees most of the mesh; the viewer starts there."""
        return max(self.comparisons, key=lambda comparison: comparison.framed_share, default=None)


def render_page(facts: Report, pictures: PagePictures) -> str:
    """The HTML of the page."""
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
    overview = pictures.overview
    confidence = overview.pictures.get("confidence") if overview else None
    style, script = ((TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    three = (TEMPLATE_FOLDER / "vendor" / "three.min.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        facts=facts,
        lacking=formatting.NOT_MEASURED,
        title=pictures.title,
        lead=summary_sentence(facts),
        policy=content_security_policy([three, script] if pictures.glb else [script], style),
        style=style,
        script=script,
        three=three,
        maps=pictures.maps,
        listed=select_blocks(facts.blocks, MAX_TABLE_BLOCKS),
        floor_plan=pictures.floor_plan,
        pictures={comparison.facts.number: comparison.pictures for comparison in pictures.comparisons},
        previews=pictures.previews,
        charts={**training_charts(facts), **pose_charts(facts)},
        curve_blocks=list(dict.fromkeys(c.label for name in sorted(facts.curves) for c in facts.curves[name])),
        states=sorted(Counter(p.state for p in facts.photos).items()),
        settings=flatten_settings(facts.settings),
        glb=base64.b64encode(pictures.glb).decode("ascii") if pictures.glb else "",
        start=overview.start if overview else None,
        confidence=confidence,
        confidence_key=confidence_legend() if confidence else "",
        made=time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.created_at)),
    )
