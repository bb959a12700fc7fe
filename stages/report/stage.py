"""The report stage: facts and pictures of a run into report.html and report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import format_quantity, key_label
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES
from quoin.pipeline.scene.blocks import Partition, read_partition
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.scene.mesh_formats import committed_mesh
from quoin.pipeline.scene.posed_images import Posed, read_posed
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import PROCESS_BYTES, Cost, Stage, Workload
from quoin.stages.report import collect, mesh_rendering, pictures, room_measures
from quoin.stages.report.advice import advise
from quoin.stages.report.config import ReportConfig, ReportResult
from quoin.stages.report.facts import MeshFacts, Report
from quoin.stages.report.maps import draw_floor_plan, draw_maps
from quoin.stages.report.page import PagePictures, render_page
from quoin.stages.report.photo_views import ViewComparison, render_comparisons

MAX_CURVE_BLOCKS = 12  # in the charts of training

REPORT_SECONDS, REPORT_SECONDS_PER_PHOTO = 5.0, 0.05  # on two cores
DRAWN_BYTES_PER_FACE = 150  # of the mesh while it is drawn
REPORT_BYTES = 20 << 20  # on disk


def write_html_report(run: Run, config: ReportConfig, report: Reporter) -> ReportResult:
    """Write report.html and report.json from whatever ``run`` has committed so far; parts that are missing say so."""
    content = load_content(run, config)
    comparisons: list[ViewComparison] = []
    if content.posed is not None and content.mesh is not None and config.n_views:
        comparisons = render_comparisons(run, content.posed, content.mesh, config.n_views, config.view_edge_px, report)
    storey = measure_rooms(run, content)
    facts = collect_facts(run, content, comparisons, storey)
    page = render_page(facts, draw_pictures(run, content, facts, comparisons, storey)).encode("utf-8", "replace")
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


def estimate_report_cost(workload: Workload, config: ReportConfig) -> Cost:
    """Cost of the report: it reads the mesh and some photos."""
    del config
    return Cost(
        seconds=REPORT_SECONDS + REPORT_SECONDS_PER_PHOTO * workload.n_photos,
        memory_bytes=PROCESS_BYTES // 2 + min(workload.n_faces, MAX_RAYCAST_FACES) * DRAWN_BYTES_PER_FACE,
        disk_bytes=REPORT_BYTES,
        note=f"{workload.n_photos:,} photos",
    )


@dataclass(frozen=True)
class RunContent:
    """What a run has committed so far that the report draws; None for missing parts.

    ``embedded``: the mesh for the viewer in the page, as the bytes of a glb and its number of faces.
    """

    posed: Posed | None
    partition: Partition | None
    mesh: mesh_rendering.PreviewMesh | None
    embedded: tuple[bytes, int] | None


def load_content(run: Run, config: ReportConfig) -> RunContent:
    """Read what the report draws."""
    posed = read_posed(run) if run.manifest("pose") else None
    partition = read_partition(run) if run.manifest("partition") else None
    if run.manifest("fuse") is None:
        return RunContent(posed, partition, mesh=None, embedded=None)
    # one that was deleted is not drawn; one that is damaged is an error
    ply, glb = (committed_mesh(run, n) if run.file(n).exists() else run.file(n) for n in ("mesh.ply", "mesh.glb"))
    embedded = mesh_rendering.embed_glb(glb, int(config.embed_limit_mb * 1e6))
    return RunContent(posed, partition, mesh_rendering.load_preview_mesh(ply, glb), embedded)


def draw_pictures(
    run: Run,
    content: RunContent,
    facts: Report,
    comparisons: Sequence[ViewComparison],
    storey: room_measures.FloorPlan | None,
) -> PagePictures:
    """The title, maps and pictures of the page."""
    maps, plan = None, Markup()
    if content.posed is not None and facts.pose is not None:
        numbers = {comparison.photo: comparison.facts.number for comparison in comparisons}
        maps = draw_maps(content.posed, content.partition, facts.blocks, numbers, facts.pose.unit)
        plan = draw_floor_plan(storey, facts.pose.unit) if storey else plan
    return PagePictures(
        title=run_title(run),
        maps=maps,
        floor_plan=plan,
        comparisons=comparisons,
        previews=pictures.read_previews(run, [block.id for block in facts.blocks]),
        glb=content.embedded[0] if content.embedded else None,
    )


def run_title(run: Run) -> str:
    """The name of the run: that of the first of its folders with a name of its own."""
    run_name = Path(run.location).name
    names = [run_name, *reversed(run.record.photos.split("/")[-2:])]
    return next((n for n in names if n and n.lower() not in {"run", "runs", "photos", "images", "input"}), run_name)


def collect_mesh(run: Run, content: RunContent) -> MeshFacts:
    """Facts of the mesh files, of what is drawn of them, and of the surface that fusion found."""
    files = {kind: run.file(f"mesh.{kind}") for kind in ("ply", "glb")}
    sizes = {kind: path.stat().st_size for kind, path in files.items() if path.exists()}
    fused = getattr(run.manifest("fuse"), "result", {})
    return MeshFacts(
        ply_bytes=sizes.get("ply"),
        glb_bytes=sizes.get("glb"),
        drawn_file=content.mesh.file if content.mesh else None,
        embedded_bytes=len(content.embedded[0]) if content.embedded else None,
        embedded_faces=content.embedded[1] if content.embedded else None,
        n_components=collect.int_or_none(fused.get("n_components")),
        n_boundary_edges=collect.int_or_none(fused.get("n_boundary_edges")),
        n_torn_edges=collect.int_or_none(fused.get("n_torn_edges")),
        largest_component_share=collect.finite_or_none(fused.get("largest_component_share")),
        confident_share=collect.finite_or_none(fused.get("confident_share")),
    )


def measure_rooms(run: Run, content: RunContent) -> room_measures.FloorPlan | None:
    """The rooms, where pose trusts its wall directions and a floor and a ceiling enclose the cameras."""
    walls = read_trusted_frame(run)
    if content.posed is None or content.mesh is None or walls is None:
        return None
    centers = centers_world(content.posed.cam_from_world)
    return room_measures.measure_storey(content.mesh.vertices_world, content.mesh.faces, centers, walls.normals_world)


def collect_facts(
    run: Run,
    content: RunContent,
    comparisons: Sequence[ViewComparison],
    storey: room_measures.FloorPlan | None,
) -> Report:
    """Every number of the report, and its advice."""
    files = collect.collect_photos(run)
    blocks = collect.collect_blocks(run, content.partition)
    facts = Report(
        run_id=run.record.id,
        quoin_version=run.record.quoin,
        photos_folder=run.record.photos,
        seed=run.seed,
        created_at=run.record.created_at,
        headline=collect.collect_headline(run, files, blocks),
        advice=[],
        mesh=collect_mesh(run, content),
        views=[comparison.facts for comparison in comparisons],
        pose=None if content.posed is None else collect.collect_pose(run, content.posed),
        blocks=blocks,
        curves=collect.collect_curves(run, [b.id for b in collect.select_blocks(blocks, MAX_CURVE_BLOCKS)]),
        photos=files,
        clips=collect.collect_clips(run, files),
        indoors=storey.facts if storey else None,
        stages=collect.collect_stages(run),
        settings=run.record.settings,
    )
    stage_warnings = [str(text) for m in run.record.manifests.values() for text in m.result.get("warnings") or []]
    return facts.model_copy(update={"advice": advise(facts, stage_warnings)})


REPORT = Stage(
    name="report",
    needs=("fuse",),
    version=1,
    config=ReportConfig,
    result=ReportResult,
    run=lambda context, config: write_html_report(context.run, config, context.report),
    estimate=estimate_report_cost,
)
