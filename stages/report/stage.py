"""The report stage: facts and pictures of a run into report.html and report.json."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.blocks import Partition, read_partition
from quoin.pipeline.scene.manhattan import trusted_walls
from quoin.pipeline.scene.posed_images import Posed, read_posed
from quoin.pipeline.storage.atomic import write_atomic
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.report import atlas, collect, floor_plan, mesh_preview, previews, room_measures
from quoin.stages.report.advice import advise
from quoin.stages.report.config import ReportConfig, ReportResult
from quoin.stages.report.facts import MeshFacts, Report
from quoin.stages.report.page import render
from quoin.stages.report.photo_views import Shot, photograph
from quoin.stages.report.quantities import label, quantity

MOST_ROWS, MOST_CURVES = 200, 12  # blocks in the table, and in the charts of training


def write(run: Run, config: ReportConfig, report: Reporter) -> ReportResult:
    """Write report.html and report.json from whatever ``run`` has committed so far; parts that are missing say so."""
    fused = run.manifest("fuse") is not None
    posed = read_posed(run) if run.manifest("pose") else None
    partition = read_partition(run) if run.manifest("partition") else None
    mesh = mesh_preview.load(run.file("mesh.ply"), run.file("mesh.glb")) if fused else None
    inside = mesh_preview.embed(run.file("mesh.glb"), int(config.embed_limit_mb * 1e6)) if fused else None

    shots: list[Shot] = []
    if posed is not None and mesh is not None and config.n_views:
        shots = photograph(run, posed, mesh, config.n_views, config.view_edge_px, report)
    storey = survey(run, posed, mesh)
    facts = collect_facts(run, posed, partition, mesh_facts(run, mesh, inside), shots, storey)
    numbered = {shot.photo: shot.facts.number for shot in shots}
    maps = None
    if posed is not None and facts.pose is not None:
        maps = atlas.draw(posed, partition, facts.blocks, numbered, facts.pose.unit)
    overview = max(shots, key=lambda s: s.framed_share) if shots else None
    page = render(
        facts,
        title=title(run),
        maps=maps,
        listed=collect.telling(facts.blocks, MOST_ROWS),
        floor_plan=floor_plan.draw(storey, facts.pose.unit) if storey and facts.pose else Markup(),
        pictures={shot.facts.number: shot.pictures for shot in shots},
        previews=previews.read(run, [block.id for block in facts.blocks]),
        glb=inside[0] if inside else None,
        start=overview.start if overview else None,
        confidence=overview.pictures.get("confidence") if overview else None,
    ).encode("utf-8", "replace")
    write_atomic(run.path / "report.html", page)
    write_atomic(run.path / "report.json", facts.model_dump_json(indent=1).encode())

    rows = [{"what": label(k), "value": quantity(k, v)} for k, v in facts.headline.model_dump().items()]
    report.table("report", rows)
    shown = set(ReportResult.model_fields) & set(type(facts.headline).model_fields)
    return ReportResult(
        path=run.at_home("report.html"),
        size_bytes=len(page),
        n_warnings=sum(a.level != "note" for a in facts.advice),
        **{name: getattr(facts.headline, name) for name in shown},
    )


run = stage("report", needs=("fuse",), version=1, result=ReportResult)(write)


def title(run: Run) -> str:
    """What to call the run: the first of its folders whose name tells something."""
    names = [run.name, *reversed(run.record.photos.split("/")[-2:])]
    return next((n for n in names if n and n.lower() not in {"run", "runs", "photos", "images", "input"}), run.name)


def mesh_facts(run: Run, mesh: mesh_preview.Surface | None, inside: tuple[bytes, int] | None) -> MeshFacts:
    """The mesh files, what is drawn of them, and how whole fusion found the surface."""
    files = {kind: run.file(f"mesh.{kind}") for kind in ("ply", "glb")}
    sizes = {kind: path.stat().st_size for kind, path in files.items() if path.exists()}
    fused = getattr(run.manifest("fuse"), "result", {})
    return MeshFacts(
        ply_bytes=sizes.get("ply"),
        glb_bytes=sizes.get("glb"),
        drawn_file=mesh.file if mesh else None,
        embedded_bytes=len(inside[0]) if inside else None,
        embedded_faces=inside[1] if inside else None,
        n_components=collect.whole(fused.get("n_components")),
        n_boundary_edges=collect.whole(fused.get("n_boundary_edges")),
        n_torn_edges=collect.whole(fused.get("n_torn_edges")),
        largest_component_share=collect.finite(fused.get("largest_component_share")),
        confident_share=collect.finite(fused.get("confident_share")),
    )


def survey(run: Run, posed: Posed | None, mesh: mesh_preview.Surface | None) -> room_measures.Plan | None:
    """Rooms, where pose trusts its frame of walls and a floor and a ceiling enclose the cameras."""
    walls = trusted_walls(run)
    if posed is None or mesh is None or walls is None:
        return None
    centers = centers_world(posed.cam_from_world)
    return room_measures.survey(mesh.vertices_world, mesh.faces, centers, walls.normals_world)


def collect_facts(
    run: Run,
    posed: Posed | None,
    partition: Partition | None,
    mesh: MeshFacts,
    shots: Sequence[Shot],
    storey: room_measures.Plan | None,
) -> Report:
    """Every number of the report."""
    files = collect.photos(run)
    blocks = collect.blocks(run, partition)
    pose = collect.pose(run, posed) if posed is not None else None
    clips = collect.clips(run, files)
    headline = collect.headline(run, files, blocks)
    said = [str(text) for m in run.record.manifests.values() for text in m.result.get("warnings") or []]
    return Report(
        run_id=run.record.id,
        quoin=run.record.quoin,
        photos_folder=run.record.photos,
        seed=run.seed,
        created_at=run.record.created_at,
        headline=headline,
        advice=advise(headline, files, clips, pose, blocks, mesh, said),
        mesh=mesh,
        views=[shot.facts for shot in shots],
        pose=pose,
        blocks=blocks,
        curves=collect.curves(run, [b.id for b in collect.telling(blocks, MOST_CURVES)]),
        photos=files,
        clips=clips,
        indoors=storey.facts if storey else None,
        stages=collect.stages(run),
        settings=run.record.settings,
    )
