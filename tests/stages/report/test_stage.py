"""The page and the JSON file of a whole run, of hostile ones, and of ones where parts are missing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from quoin.pipeline.core import formatting
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.manhattan import ManhattanFrame, write_manhattan_frame
from quoin.pipeline.scene.mesh_formats import decode_glb
from quoin.pipeline.scene.photo_table import read_photo_table, write_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.report import mesh_rendering, pictures
from quoin.stages.report.config import ReportConfig
from quoin.stages.report.facts import Report
from quoin.stages.report.stage import REPORT, write_html_report
from tests.stages.report.scene import HOSTILE, ball, make_run, write_glb

VOID = {"meta", "link", "img", "input", "br"}
# the only addresses that a page may hold: what it carries in itself, places within it, names of XML vocabularies
INSIDE = re.compile(r"^(data:|#)")


class Page(HTMLParser):
    """What a browser would make of the page: its elements, and the texts of scripts, styles and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] == "style":
            self.styles[-1] += data
        else:
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run whose photos have the nastiest names."""
    made = make_run(
        tmp_path_factory.mktemp("hostile"), names=[*HOSTILE, "a.jpg", "b.jpg", "c.jpg"], fraction_placed=0.8
    )
    write_html_report(made, ReportConfig(n_views=3, view_edge_px=96), Reporter())
    return made


@pytest.fixture(scope="module")
def page(hostile_run: Run) -> Page:
    return Page((hostile_run.path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def facts(hostile_run: Run) -> Report:
    return Report.model_validate_json((hostile_run.path / "report.json").read_bytes())


def test_previews_of_training_stand_in_the_page_the_last_of_each_block_among_them(tmp_path: Path):
    made = make_run(tmp_path, upto="train")
    for block, steps in (("b000", range(100, 1000, 100)), ("b001", [50]), ("b002", [10, 20, 30])):
        folder = made.path / "work" / "blocks" / block / "preview"
        folder.mkdir(parents=True)
        for step in steps:
            Image.new("RGB", (48, 12), (step % 256, 0, 0)).save(folder / f"{step:06d}.jpg")
        (folder / "notes.jpg").write_text("not one of them")
    chosen = pictures.read_previews(made, ["b000", "b001", "b002"])
    assert {block: [p.step for p in shown] for block, shown in chosen.items()} == {
        "b000": [300, 500, 700, 900],
        "b001": [50],
        "b002": [10, 20, 30],
    }
    assert [p.step for p in pictures.read_previews(made, ["b000", *(f"x{k}" for k in range(30))])["b000"]] == [900]
    write_html_report(made, ReportConfig(), Reporter())
    page = Page((made.path / "report.html").read_text(encoding="utf-8"))
    shown = [a for a in page.of("img") if a.get("class") == "preview"]
    assert [a["alt"] for a in shown][-2:] == [
        "b000, step 900: photo, rendering, normals",
        "b001, step 50: photo, rendering, normals",
    ]
    assert all(INSIDE.match(a["src"] or "") for a in shown)


def test_the_page_loads_nothing(page: Page):
    for tag, attrs in page.elements:
        for name in ("src", "href", "action", "poster", "data", "srcset", "xlink:href"):
            if attrs.get(name) is not None:
                assert INSIDE.match(attrs[name] or ""), (tag, name, (attrs[name] or "")[:80])
        assert not any(name.startswith("on") for name in attrs), (tag, list(attrs))
        assert "style" not in attrs  # the policy forbids it
    assert not any("@import" in s or "url(" in s for s in page.styles)
    for name in ("iframe", "object", "embed", "base", "form"):
        assert len(page.of(name)) == (name == "form")  # the filter of the photo table, which sends nothing


def test_the_policy_lets_only_our_own_scripts_run(page: Page):
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    runnable = [text for a, text in zip(page.of("script"), page.scripts, strict=True) if a.get("type") != "text/plain"]
    assert len(runnable) == 2
    for text in [*runnable, *page.styles]:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_hostile_names_are_only_text(page: Page, hostile_run: Run, facts: Report):
    assert len(page.of("script")) == 3  # three.js, ours, and the glb as plain text
    assert all("onerror" not in a and (a.get("src") or "").startswith("data:") for a in page.of("img"))
    shown = "".join(page.texts)
    for name in HOSTILE:
        assert formatting.escape_invisible(name) in shown
    assert "49.jpg" not in shown  # {{ 7*7 }} is not a template
    assert [p.name for p in facts.photos][: len(HOSTILE)] == HOSTILE  # report.json has them as they are
    rows = {a["data-name"] for a in page.of("tr") if "data-name" in a}
    assert rows == {p.name for p in facts.photos}


def test_the_numbers_of_page_and_json_are_one(page: Page, facts: Report):
    h, shown = facts.headline, html.unescape(" ".join(page.texts))
    assert (h.n_photos_found, h.n_photos_used, h.n_photos_posed) == (11, 10, 8)
    assert h.heldout_psnr_db == pytest.approx(27.0)
    assert h.total_seconds == pytest.approx(1.5 + 32 + 0.3 + 622 + 8)  # blocks are inside train, not beside it
    assert h.peak_memory_bytes is not None
    assert h.peak_memory_bytes >= 1100 << 20
    for text in (
        f"{h.n_photos_posed} of {h.n_photos_used}",
        formatting.format_count(h.n_faces),
        formatting.format_duration(h.total_seconds),
        formatting.format_bytes(h.peak_memory_bytes),
        "27 dB",
        *(formatting.format_quantity("x_px", p.reprojection_px) for p in facts.photos if p.state == "placed"),
        *(formatting.format_duration(b.seconds) for b in facts.blocks),
        *(formatting.format_duration(s.seconds) for s in facts.stages),
        *(a.text for a in facts.advice),
        *(formatting.format_percent(v.covered_share) for v in facts.views),
    ):
        assert text in shown, text


def test_json_is_strict_and_complete(hostile_run: Run, facts: Report):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    raw = json.loads((hostile_run.path / "report.json").read_text(), parse_constant=refuse)
    assert raw["format"] == 2
    assert [b["id"] for b in raw["blocks"]] == ["b000", "b001"]
    assert {s["name"] for s in raw["stages"]} == {"ingest", "pose", "partition", "train", "fuse"}
    loss = {c.label: c for c in facts.curves["loss"]}
    assert loss["b000"].mean[0] > 5 * loss["b000"].mean[-1]
    assert len(loss["b000"].step) <= 160
    assert facts.pose is not None
    assert facts.pose.reprojection_px is not None
    assert sum(facts.pose.reprojection_px.counts) + facts.pose.reprojection_px.n_beyond == 800


def test_the_mesh_travels_inside_the_page(page: Page, hostile_run: Run):
    inside = next(t for a, t in zip(page.of("script"), page.scripts, strict=True) if a.get("id") == "glb")
    assert base64.b64decode(inside) == (hostile_run.path / "mesh.glb").read_bytes()


def test_pictures_show_the_mesh_where_the_photo_has_it(page: Page, facts: Report):
    from io import BytesIO

    from PIL import Image

    assert len(facts.views) == 3
    pictures = [
        np.asarray(Image.open(BytesIO(base64.b64decode((a["src"] or "").split(",")[1]))))
        for a in page.of("img")
        if "confidence" not in (a["alt"] or "")
    ]
    assert len(pictures) == 9
    for photo, colors, shape in zip(pictures[::3], pictures[1::3], pictures[2::3], strict=True):
        assert photo.shape == colors.shape == shape.shape == (72, 96, 3)
        empty = (np.abs(shape.astype(int) - (236, 237, 239)) < 12).all(-1)
        body = ~empty
        assert 0.2 < body.mean() < 0.95
        # inside the mesh both agree but for exposure and JPEG; in the sky they do not
        difference = np.abs(photo.astype(int) - colors).mean(-1)
        assert np.median(difference[body]) < 30
        assert np.median(difference[body]) < 0.6 * np.median(difference[empty])


def test_the_stage_commits_and_is_kept(tmp_path: Path):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"])
    config = ReportConfig(n_views=1, view_edge_px=64)
    result = REPORT(made, config, Reporter())
    assert Path(result.path).stat().st_size == result.size_bytes
    assert result.n_photos_posed == 3
    Path(result.path).unlink()
    assert REPORT(made, config, Reporter()) == result  # committed: not done again
    assert not Path(result.path).exists()


@pytest.mark.parametrize("upto", ["ingest", "pose", "partition", "train"])
def test_a_run_that_stopped_early_has_a_page_that_says_so(tmp_path: Path, upto: str):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"], upto=upto)
    result = write_html_report(made, ReportConfig(), Reporter())
    text = " ".join(Page(Path(result.path).read_text(encoding="utf-8")).texts)
    assert result.n_faces is None
    assert "There is no mesh yet" in text
    assert "not measured" in text
    assert ("There are no camera poses yet" in text) == (upto == "ingest")


def test_missing_training_tables_and_meshes_are_no_error(tmp_path: Path):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"])
    for block in ("b000", "b001"):
        made.table(f"train_{block}").unlink()
    (made.path / "mesh.ply").unlink()
    write_html_report(made, ReportConfig(n_views=2, view_edge_px=64), Reporter())
    facts = Report.model_validate_json((made.path / "report.json").read_bytes())
    assert facts.curves == {}
    assert facts.mesh.drawn_file == "mesh.glb"
    assert len(facts.views) == 2
    (made.path / "mesh.glb").unlink()
    write_html_report(made, ReportConfig(), Reporter())
    text = (made.path / "report.html").read_text(encoding="utf-8")
    assert "This run has no mesh yet" in text
    assert "No block has been trained yet" in text


def test_a_resumed_training_counts_its_longest_block(tmp_path: Path):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"])
    whole = write_html_report(made, ReportConfig(n_views=0), Reporter()).total_seconds
    made.record.manifests["train"] = made.require("train").model_copy(update={"seconds": 2.0})
    assert write_html_report(made, ReportConfig(n_views=0), Reporter()).total_seconds == pytest.approx(
        whole - 622 + 311
    )


def test_an_empty_photo_folder_has_a_page(tmp_path: Path):
    made = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    result = write_html_report(made, ReportConfig(), Reporter())
    assert result.n_photos_found is None
    Page(Path(result.path).read_text(encoding="utf-8"))


def test_a_glb_too_large_for_a_page_is_decimated(tmp_path: Path):
    mesh = ball(5)
    write_glb(tmp_path / "mesh.glb", mesh)
    whole = (tmp_path / "mesh.glb").stat().st_size
    data, n_faces = mesh_rendering.embed_glb(tmp_path / "mesh.glb", whole // 3)  # type: ignore[misc]
    assert len(data) <= whole // 3
    assert 0.1 * len(mesh.faces) < n_faces < 0.4 * len(mesh.faces)
    small, given = decode_glb(data), decode_glb((tmp_path / "mesh.glb").read_bytes())
    for end in ("min", "max"):
        low_high = [getattr(found.vertices_world, end)(axis=0) for found in (small, given)]
        np.testing.assert_allclose(*low_high, atol=0.02)
    assert small.colors is not None and given.colors is not None
    assert np.abs(small.colors.mean(axis=0) - given.colors.mean(axis=0)).max() < 20
    same, faces = mesh_rendering.embed_glb(tmp_path / "mesh.glb", whole)  # type: ignore[misc]
    assert same == (tmp_path / "mesh.glb").read_bytes()
    assert faces == len(mesh.faces)


def test_confidence_is_drawn_with_its_key_from_either_file_and_left_out_where_a_mesh_has_none(tmp_path: Path):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"])
    from_ply = mesh_rendering.load_preview_mesh(made.path / "mesh.ply", made.path / "mesh.glb")
    for drawn_file in ("mesh.ply", "mesh.glb"):
        write_html_report(made, ReportConfig(n_views=2, view_edge_px=64), Reporter())
        page = Page((made.path / "report.html").read_text(encoding="utf-8"))
        [shown] = [a for a in page.of("img") if a["alt"] == "The mesh, coloured by its confidence"]
        assert INSIDE.match(shown["src"] or "")
        assert page.of("lineargradient")
        assert "62.5 %" in " ".join(page.texts)
        found = mesh_rendering.load_preview_mesh(made.path / "mesh.ply", made.path / "mesh.glb")
        assert found is not None
        assert from_ply is not None
        assert found.file == drawn_file
        assert found.confidence is not None
        np.testing.assert_allclose(found.confidence, from_ply.confidence, atol=1e-6)
        (made.path / "mesh.ply").unlink(missing_ok=True)
    bare = ball(3)
    bare.export(made.path / "mesh.ply")
    write_html_report(made, ReportConfig(n_views=2, view_edge_px=64), Reporter())
    assert "The mesh, coloured by its confidence" not in (made.path / "report.html").read_text(encoding="utf-8")


def test_ply_and_glb_are_read_into_the_same_frame_and_colours(tmp_path: Path):
    mesh = ball(3)
    mesh.export(tmp_path / "mesh.ply")
    from_ply = mesh_rendering.load_preview_mesh(tmp_path / "mesh.ply", tmp_path / "mesh.glb")
    (tmp_path / "mesh.ply").unlink()
    write_glb(tmp_path / "mesh.glb", mesh)
    from_glb = mesh_rendering.load_preview_mesh(tmp_path / "mesh.ply", tmp_path / "mesh.glb")
    assert from_ply is not None
    assert from_glb is not None
    assert from_ply.file == "mesh.ply"
    assert np.allclose(from_ply.vertices_world, from_glb.vertices_world, atol=1e-5)
    np.testing.assert_array_equal(from_ply.colors, from_glb.colors)


def test_a_video_has_its_row_with_the_times_of_frames_that_could_not_be_placed(tmp_path: Path):
    name = "<b>walk</b>.mp4"
    run = make_run(tmp_path, names=[f"{name}/{i:06d}.jpg" for i in range(10)], fraction_placed=0.7, upto="pose")
    rows = [replace(row, clip=name if row.used else "", time_s=2.0 * row.photo_id) for row in read_photo_table(run)]
    write_photo_table(run, rows)
    facts = {"duration_s": 20.0, "frames_per_s": 29.97, "n_frames": 600, "n_taken": 10, "cut_off": ""}
    run.record.manifests["ingest"].result["clips"] = [
        {"name": name, **facts, "blurred_s": [(1.0, 3.5)], "still_s": [(61.0, 64.0)]}
    ]
    write_html_report(run, ReportConfig(n_views=0), Reporter())
    report = Report.model_validate_json((run.path / "report.json").read_text())
    (clip,) = report.clips
    assert (clip.n_placed, clip.n_unplaced, clip.unplaced_s) == (7, 3, [(14.0, 18.0)])
    assert any(f"No camera pose was found for 0:14–0:18 of {name} (3 of 10 frames)" in a.text for a in report.advice)
    page = (run.path / "report.html").read_text()
    assert "blurred 0:01–0:03; still 1:01–1:04; without a pose 0:14–0:18" in page
    assert name not in page


def test_rooms_have_a_plan_where_floor_and_ceiling_enclose_the_cameras(tmp_path: Path):
    made = make_run(tmp_path, names=["a.jpg", "b.jpg", "c.jpg"])
    assert write_html_report(made, ReportConfig(n_views=0), Reporter()).n_warnings >= 0
    assert 'id="rooms"' not in (made.path / "report.html").read_text()
    room = trimesh.creation.box(bounds=[[-5, -4, -1], [5, 4, 2]])
    room.invert()
    room.visual.vertex_colors = np.full((len(room.vertices), 3), 200, np.uint8)
    room.subdivide_to_size(0.3).export(made.path / "mesh.ply")
    write_manhattan_frame(made, ManhattanFrame(np.eye(3)[2], np.eye(3)[:2], np.ones(2), np.full(2, 3), 1.0))
    write_html_report(made, ReportConfig(n_views=0), Reporter())
    page = (made.path / "report.html").read_text()
    facts = json.loads((made.path / "report.json").read_text())["indoors"]
    assert facts["area_m2"] == pytest.approx(80, rel=0.02)
    assert facts["height_m"] == pytest.approx(3, abs=0.02)
    assert page.count('class="wall"') == 4
    assert "in 1 room." in page


def test_of_many_blocks_the_worst_are_listed_and_all_are_in_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(tmp_path)
    blocks = Report.model_validate_json(written(made)[1]).blocks
    worst = min(blocks, key=lambda b: b.heldout_psnr_db or 0.0)
    assert len(blocks) > 1
    monkeypatch.setattr("quoin.stages.report.page.MAX_TABLE_BLOCKS", 1)
    monkeypatch.setattr("quoin.stages.report.stage.MAX_CURVE_BLOCKS", 1)
    page, data = written(made)
    facts = Report.model_validate_json(data)
    assert facts.blocks == blocks
    assert {curve.label for curves in facts.curves.values() for curve in curves} == {worst.id}
    listed = re.search(r'<section id="blocks">.*?</section>', page, re.DOTALL)
    assert listed is not None
    assert re.findall(r'<th scope="row">([^<]+)</th>', listed.group()) == [worst.id]
    assert f"Of {len(blocks)} blocks" in listed.group()


def written(run: Run) -> tuple[str, str]:
    """The page and the JSON file of a run."""
    write_html_report(run, ReportConfig(n_views=0), Reporter())
    page, data = ((run.path / name).read_text(encoding="utf-8") for name in ("report.html", "report.json"))
    return page, data
