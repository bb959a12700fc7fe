"""What the report warns of, and in what order."""

from __future__ import annotations

import pytest

from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.stages.report.advice import advise
from quoin.stages.report.facts import (
    Advice,
    BlockFacts,
    ClipFacts,
    Headline,
    Histogram,
    MeshFacts,
    PhotoFacts,
    PoseFacts,
    Report,
)

GOOD_HEADLINE = Headline(
    n_photos_found=10,
    n_photos_used=10,
    n_photos_posed=10,
    n_points=5000,
    n_vertices=50_000,
    n_faces=100_000,
    heldout_psnr_db=26.0,
    heldout_psnr_min_db=25.0,
    total_seconds=600.0,
    peak_memory_bytes=1 << 30,
)
GOOD_MESH = MeshFacts(
    ply_bytes=1,
    glb_bytes=1,
    drawn_file="mesh.ply",
    embedded_bytes=1,
    embedded_faces=1,
    n_components=1,
    n_boundary_edges=0,
    n_torn_edges=0,
    largest_component_share=1.0,
    confident_share=0.8,
)


def histogram(value: float) -> Histogram:
    return Histogram(edges=[0.0, 2 * value], counts=[100], n_beyond=0, median=value, mean=value)


GOOD_POSE = PoseFacts(
    reprojection_px=histogram(0.4),
    track_length=histogram(5.0),
    focal_px=histogram(800.0),
    n_observations=25_000,
    components=[10],
    world_frame="GPS",
    walls="walls follow 2 main directions (confidence 0.80)",
    unit="m",
    extent=[1.0, 1.0, 1.0],
)
GOOD_BLOCK = BlockFacts(
    id="b000",
    low_world=[0.0] * 3,
    high_world=[1.0] * 3,
    halo_m=0.1,
    n_photos=10,
    planned_memory_bytes=1 << 30,
    steps=3000,
    seconds=300.0,
    rays_per_s=9000.0,
    heldout_psnr_db=26.0,
    peak_memory_bytes=1 << 30,
    n_bricks=8,
    device="cpu",
)


GOOD_CLIP = ClipFacts(
    name="walk.mp4",
    duration_s=60.0,
    frames_per_s=30.0,
    n_frames=1800,
    n_taken=40,
    n_placed=40,
    n_unplaced=0,
    blurred_s=[],
    still_s=[(3.0, 9.0)],
    unplaced_s=[],
    cut_off="",
)


def clip(**changes: object) -> dict[str, list[ClipFacts]]:
    return {"clips": [GOOD_CLIP.model_copy(update=changes)]}


def photos(n_placed: int, n_not: int, n_unused: int = 0) -> list[PhotoFacts]:
    states = ["placed"] * n_placed + ["not placed"] * n_not + ["not used"] * n_unused
    rejections = {
        "not placed": Rejection(Reason.FEW_MATCHES, "its best pair has 9"),
        "not used": Rejection(Reason.DUPLICATE),
    }
    return [
        PhotoFacts(
            name=f"{i}.jpg",
            state=state,  # type: ignore[arg-type]
            component=None,
            n_points=None,
            reprojection_px=None,
            focal_px=None,
            width=800,
            height=600,
            has_mask=False,
            rejection=rejections.get(state),
        )
        for i, state in enumerate(states)
    ]


def given(**changes: object) -> list[Advice]:
    """Advice about a good run with some parts changed."""
    headline = GOOD_HEADLINE.model_copy(update=changes.get("headline", {}))  # type: ignore[arg-type]
    pose = GOOD_POSE.model_copy(update=changes.get("pose", {}))  # type: ignore[arg-type]
    block = GOOD_BLOCK.model_copy(update=changes.get("block", {}))  # type: ignore[arg-type]
    mesh = GOOD_MESH.model_copy(update=changes.get("mesh", {}))  # type: ignore[arg-type]
    report = Report(
        run_id="run",
        quoin_version="0",
        photos_folder="photos",
        seed=0,
        created_at=0.0,
        headline=headline,
        advice=[],
        mesh=mesh,
        views=[],
        pose=pose,
        blocks=[block],
        curves={},
        photos=changes.get("files", photos(10, 0)),  # type: ignore[arg-type]
        clips=changes.get("clips", [GOOD_CLIP]),  # type: ignore[arg-type]
        indoors=None,
        stages=[],
        settings={},
    )
    return advise(report, changes.get("stage_warnings", []))  # type: ignore[arg-type]


def test_nothing_is_said_about_a_good_run():
    assert given() == []


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"headline": {"n_faces": None}}, "problem", "no mesh yet"),
        ({"block": {"steps": None, "failed": "out of luck"}}, "problem", "The mesh has a hole, because 1 of 1 blocks"),
        ({"block": {"steps": None}}, "problem", "1 of 1 blocks are not trained yet (b000)"),
        (
            {"block": {"memory_reason": "MemoryError"}},
            "warning",
            "trained in less detail, because there was not enough memory",
        ),
        ({"headline": {"n_faces": 12}}, "problem", "only 12 triangles"),
        ({"headline": {"n_photos_posed": 4}, "files": photos(4, 6)}, "problem", "6 of 10 usable photos"),
        ({"headline": {"n_photos_posed": 8}, "files": photos(8, 2)}, "warning", "2 × few matches"),
        ({"files": photos(10, 0, 1)}, "note", "1 file was not used (1 × duplicate)"),
        ({"files": photos(10, 0, 3)}, "note", "3 files were not used"),
        (clip(n_placed=0, n_unplaced=40), "warning", "any of the 40 frames of walk.mp4"),
        (
            clip(n_placed=31, n_unplaced=9, unplaced_s=[(12.0, 15.9), (40.0, 40.0)]),
            "warning",
            "for 0:12–0:15, 0:40 of walk.mp4 (9 of 40 frames): film that part again, slower",
        ),
        (clip(n_placed=39, n_unplaced=1, unplaced_s=[(3700.0, 3700.0)]), "note", "1:01:40 of walk.mp4 (1 of 40"),
        (clip(blurred_s=[(0.0, 2.5)]), "note", "0:00–0:02 of walk.mp4 is too blurred"),
        (clip(is_interlaced=True), "warning", "walk.mp4 is interlaced film, of which half the lines"),
        (clip(cut_off="cut off: 9 frames can be decoded"), "warning", "walk.mp4 is cut off: 9 frames"),
        ({"pose": {"components": [8, 2]}}, "warning", "2 groups without matches between them (8, 2 photos)"),
        ({"pose": {"reprojection_px": histogram(2.5)}}, "warning", "2.5 px"),
        ({"pose": {"track_length": histogram(2.2)}}, "warning", "2.2 photos"),
        ({"pose": {"unit": "units"}}, "note", "arbitrary units"),
        ({"block": {"steps": None}}, "problem", "Run quoin resume"),
        ({"block": {"heldout_psnr_db": 12.0}}, "warning", "b000: 12 dB"),
        ({"block": {"peak_memory_bytes": 3 << 30}}, "note", "more memory than was planned"),
        ({"mesh": {"n_torn_edges": 7}}, "problem", "open seams at 7 edges"),
        ({"mesh": {"largest_component_share": 0.4, "n_components": 9}}, "warning", "9 separate pieces"),
        ({"stage_warnings": ["Masks were ignored.", "Masks were ignored."]}, "warning", "Masks were ignored."),
    ],
)
def test_each_fault_is_told_once(changes: dict[str, object], level: str, words: str):
    (only,) = given(**changes)
    assert only.level == level
    assert words in only.text


def test_the_worst_comes_first():
    levels = [a.level for a in given(headline={"n_faces": None}, pose={"unit": "units"}, stage_warnings=["Careful."])]
    assert levels == ["problem", "warning", "note"]
