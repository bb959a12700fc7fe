"""The report stage: facts and pictures of a run into report.html and report.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import format_quantity, key_label
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.blocks import Partition, read_partition
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.scene.posed_images import Posed, read_posed
from quoin.pipeline.storage.atomic import write_atomic
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.report import atlas, collect, floor_plan, mesh_preview, previews, room_measures
from quoin.stages.report.advice import advise
from quoin.stages.report.config import ReportConfig, ReportResult
from quoin.stages.report.facts import MeshFacts, Report
from quoin.stages.report.page import render_page
from quoin.stages.report.photo_views import ViewComparison, render_comparisons

MAX_TABLE_BLOCKS, MAX_CURVE_BLOCKS = 200, 12  # blocks in the table, and in the charts of training


def write_html_report(run: Run, config: ReportConfig, report: Reporter) -> ReportResult:
    """Write report.html and report.json from whatever ``run`` has committed so far; parts that are missing say so."""
    fused = run.manifest("fuse") is not None
    posed = read_posed(run) if run.manifest("pose") else None
    partition = read_partition(run) if run.manifest("partition") else None
    mesh = mesh_preview.load_preview_mesh(run.file("mesh.ply"), run.file("mesh.glb")) if fused else None
    embedded = mesh_preview.embed_glb(run.file("mesh.glb"), int(config.embed_limit_mb * 1e6)) if fused else None

    comparisons: list[ViewComparison] = []
    if posed is not None and mesh is not None and config.n_views:
        comparisons = render_comparisons(run, posed, mesh, config.n_views, config.view_edge_px, report)
    storey = measure_rooms(run, posed, mesh)
    facts = collect_facts(run, posed, partition, mesh_facts(run, mesh, embedded), comparisons, storey)
    numbered = {comparison.photo: comparison.facts.number for comparison in comparisons}
    maps = None
    if posed is not None and facts.pose is not None:
        maps = atlas.draw_maps(posed, partition, facts.blocks, numbered, facts.pose.unit)
    overview = max(comparisons, key=lambda s: s.framed_share) if comparisons else None
    page = render_page(
        facts,
        title=title(run),
        maps=maps,
        listed=collect.select_blocks(facts.blocks, MAX_TABLE_BLOCKS),
        floor_plan=floor_plan.draw_floor_plan(storey, facts.pose.unit) if storey and facts.pose else Markup(),
        pictures={comparison.facts.number: comparison.pictures for comparison in comparisons},
        previews=previews.read_previews(run, [block.id for block in facts.blocks]),
        glb=embedded[0] if embedded else None,
        start=overview.start if overview else None,
        confidence=overview.pictures.get("confidence") if overview else None,
    ).encode("utf-8", "replace")
    write_atomic(run.path / "report.html", page)
    write_atomic(run.path / "report.json", facts.model_dump_json(indent=1).encode())

    rows = [{"what": key_label(k), "value": format_quantity(k, v)} for k, v in facts.headline.model_dump().items()]
    report.table("report", rows)
    shared_fields = set(ReportResult.model_fields) & set(type(facts.headline).model_fields)
    return ReportResult(
        path=run.storage.public_path("report.html"),
        size_bytes=len(page),
        n_warnings=sum(a.level != "note" for a in facts.advice),
        **{name: getattr(facts.headline, name) for name in shared_fields},
    )


run = stage("report", needs=("fuse",), version=1, result=ReportResult)(write_html_report)


def title(run: Run) -> str:
    """What to call the run: the first of its folders whose name tells something."""
    run_name = Path(run.location).name
    names = [run_name, *reversed(run.record.photos.split("/")[-2:])]
    return next((n for n in names if n and n.lower() not in {"run", "runs", "photos", "images", "input"}), run_name)


def mesh_facts(run: Run, mesh: mesh_preview.PreviewMesh | None, embedded: tuple[bytes, int] | None) -> MeshFacts:
    """The mesh files, what is drawn of them, and how whole fusion found the surface."""
    files = {kind: run.file(f"mesh.{kind}") for kind in ("ply", "glb")}
    sizes = {kind: path.stat().st_size for kind, path in files.items() if path.exists()}
    fused = getattr(run.manifest("fuse"), "result", {})
    return MeshFacts(
        ply_bytes=sizes.get("ply"),
        glb_bytes=sizes.get("glb"),
        drawn_file=mesh.file if mesh else None,
        embedded_bytes=len(embedded[0]) if embedded else None,
        embedded_faces=embedded[1] if embedded else None,
        n_components=collect.int_or_none(fused.get("n_components")),
        n_boundary_edges=collect.int_or_none(fused.get("n_boundary_edges")),
        n_torn_edges=collect.int_or_none(fused.get("n_torn_edges")),
        largest_component_share=collect.finite_or_none(fused.get("largest_component_share")),
        confident_share=collect.finite_or_none(fused.get("confident_share")),
    )


def measure_rooms(
    run: Run, posed: Posed | None, mesh: mesh_preview.PreviewMesh | None
) -> room_measures.FloorPlan | None:
    """Rooms, where pose trusts its frame of walls and a floor and a ceiling enclose the cameras."""
    walls = read_trusted_frame(run)
    if posed is None or mesh is None or walls is None:
        return None
    centers = centers_world(posed.cam_from_world)
    return room_measures.measure_storey(mesh.vertices_world, mesh.faces, centers, walls.normals_world)


def collect_facts(
    run: Run,
    posed: Posed | None,
    partition: Partition | None,
    mesh: MeshFacts,
    comparisons: Sequence[ViewComparison],
    storey: room_measures.FloorPlan | None,
) -> Report:
    """Every number of the report."""
    files = collect.collect_photos(run)
    blocks = collect.collect_blocks(run, partition)
    pose = collect.collect_pose(run, posed) if posed is not None else None
    clips = collect.collect_clips(run, files)
    headline = collect.collect_headline(run, files, blocks)
    stage_warnings = [str(text) for m in run.record.manifests.values() for text in m.result.get("warnings") or []]
    return Report(
        run_id=run.record.id,
        quoin=run.record.quoin,
        photos_folder=run.record.photos,
        seed=run.seed,
        created_at=run.record.created_at,
        headline=headline,
        advice=advise(headline, files, clips, pose, blocks, mesh, stage_warnings),
        mesh=mesh,
        views=[comparison.facts for comparison in comparisons],
        pose=pose,
        blocks=blocks,
        curves=collect.collect_curves(run, [b.id for b in collect.select_blocks(blocks, MAX_CURVE_BLOCKS)]),
        photos=files,
        clips=clips,
        indoors=storey.facts if storey else None,
        stages=collect.collect_stages(run),
        settings=run.record.settings,
    )
