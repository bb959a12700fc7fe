"""The report stage: facts and pictures of a run into report.html and report.json."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from quoin.pipeline.atomic import write_atomic
from quoin.pipeline.blocks import Partition, read_partition
from quoin.pipeline.cameras import centers_world
from quoin.pipeline.progress import Reporter
from quoin.pipeline.run import Run, stage
from quoin.pipeline.scene import Posed, read_posed
from quoin.pipeline.walls import trusted_walls
from quoin.stages.report import atlas, floor_plan, gather, indoors, previews, surface
from quoin.stages.report.advice import advise
from quoin.stages.report.config import ReportConfig, ReportResult
from quoin.stages.report.facts import MeshFacts, Report
from quoin.stages.report.page import render
from quoin.stages.report.views import Shot, photograph
from quoin.stages.report.words import label, quantity

MOST_ROWS, MOST_CURVES = 200, 12  # blocks in the table, and in the charts of training


def write(run: Run, config: ReportConfig, report: Reporter) -> ReportResult:
    """Write report.html and report.json from whatever ``run`` has committed so far; parts that are missing say so."""
    fused = run.manifest("fuse") is not None
    posed = read_posed(run) if run.manifest("pose") else None
    partition = read_partition(run) if run.manifest("partition") else None
    mesh = surface.load(run.file("mesh.ply"), run.file("mesh.glb")) if fused else None
    inside = surface.embed(run.file("mesh.glb"), int(config.embed_limit_mb * 1e6)) if fused else None

    shots: list[Shot] = []
    if posed is not None and mesh is not None and config.n_views:
        shots = photograph(run, posed, mesh, config.n_views, config.view_edge_px, report)
    storey = survey(run, posed, mesh)
    facts = collect(run, posed, partition, mesh_facts(run, mesh, inside), shots, storey)
    numbered = {shot.photo: shot.facts.number for shot in shots}
    maps = None
    if posed is not None and facts.pose is not None:
        maps = atlas.draw(posed, partition, facts.blocks, numbered, facts.pose.unit)
    overview = max(shots, key=lambda s: s.framed_share) if shots else None
    page = render(
        facts,
        title=title(run),
        maps=maps,
        listed=gather.telling(facts.blocks, MOST_ROWS),
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


def mesh_facts(run: Run, mesh: surface.Surface | None, inside: tuple[bytes, int] | None) -> MeshFacts:
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
        n_components=gather.whole(fused.get("n_components")),
        n_boundary_edges=gather.whole(fused.get("n_boundary_edges")),
        n_torn_edges=gather.whole(fused.get("n_torn_edges")),
        largest_component_share=gather.finite(fused.get("largest_component_share")),
        confident_share=gather.finite(fused.get("confident_share")),
    )


def survey(run: Run, posed: Posed | None, mesh: surface.Surface | None) -> indoors.Plan | None:
    """Rooms, where pose trusts its frame of walls and a floor and a ceiling enclose the cameras."""
    walls = trusted_walls(run)
    if posed is None or mesh is None or walls is None:
        return None
    centers = centers_world(posed.cam_from_world)
    return indoors.survey(mesh.vertices_world, mesh.faces, centers, walls.normals_world)


def collect(
    run: Run,
    posed: Posed | None,
    partition: Partition | None,
    mesh: MeshFacts,
    shots: Sequence[Shot],
    storey: indoors.Plan | None,
) -> Report:
    """Every number of the report."""
    files = gather.photos(run)
    blocks = gather.blocks(run, partition)
    pose = gather.pose(run, posed) if posed is not None else None
    clips = gather.clips(run, files)
    headline = gather.headline(run, files, blocks)
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
        curves=gather.curves(run, [b.id for b in gather.telling(blocks, MOST_CURVES)]),
        photos=files,
        clips=clips,
        indoors=storey.facts if storey else None,
        stages=gather.stages(run),
        settings=run.record.settings,
    )
