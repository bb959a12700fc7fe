"""Advice to the user about a run, from the facts of its report: what went wrong, what may mislead, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from quoin.pipeline.core.formatting import format_count, format_number, format_percent, timespans
from quoin.pipeline.core.reasons import Rejection
from quoin.stages.report.facts import Advice, AdviceLevel, BlockFacts, ClipFacts, PoseFacts, Report

MIN_FACES = 1000  # of a mesh that shows a surface
MIN_MAIN_COMPONENT_SHARE = 0.7  # of the area: in the largest component
MIN_PLACED_SHARE, MIN_TOLERABLE_PLACED_SHARE = 0.9, 0.5  # of the usable photos; below them a warning, a problem
MAX_UNPLACED_FRAME_SHARE = 0.1  # of the frames of a video
MAX_REPROJECTION_PX = 1.5
MIN_TRACK_LENGTH = 3  # photos per point
MIN_HELDOUT_PSNR_DB = 17.0
MAX_MEMORY_RATIO = 1.25  # of the peak to the planned memory
MAX_LISTED_BLOCKS, MAX_LISTED_GROUPS, MAX_LISTED_REASONS = 5, 6, 3
_LEVEL_ORDER = {"problem": 0, "warning": 1, "note": 2}


def advise(report: Report, stage_warnings: Sequence[str]) -> list[Advice]:
    """Sentences about what went wrong or may mislead, the worst first, with the warnings of the stages themselves."""
    entries = [*_mesh(report), *_photos(report)]
    for clip in report.clips:
        entries += _clip(clip)
    if report.pose is not None:
        entries += _pose(report.pose)
    entries += _training(report.blocks)
    entries += [Advice(level="warning", text=text) for text in dict.fromkeys(stage_warnings)]
    return sorted(entries, key=lambda advice: _LEVEL_ORDER[advice.level])


def _mesh(report: Report) -> Iterator[Advice]:
    n_faces, mesh = report.headline.n_faces, report.mesh
    if n_faces is None:
        text = "There is no mesh yet, because the fuse stage has not been completed. Run quoin resume."
        yield Advice(level="problem", text=text)
        return
    if n_faces < MIN_FACES:
        text = f"The mesh has only {format_count(n_faces)} triangles: training found hardly any surface."
        yield Advice(level="problem", text=text)
        return
    if mesh.n_torn_edges:
        text = (
            f"The surface has open seams at {format_count(mesh.n_torn_edges)} edges between neighbouring parts. "
            "This is a bug of quoin: please report it."
        )
        yield Advice(level="problem", text=text)
    if mesh.largest_component_share is not None and mesh.largest_component_share < MIN_MAIN_COMPONENT_SHARE:
        text = (
            f"The surface consists of {format_count(mesh.n_components)} separate pieces; the largest has only "
            f"{format_percent(mesh.largest_component_share)} of the area."
        )
        yield Advice(level="warning", text=text)


def _photos(report: Report) -> Iterator[Advice]:
    used, placed = report.headline.n_photos_used, report.headline.n_photos_posed
    if used and placed is not None and placed < used:
        why = _reasons([p.rejection for p in report.photos if p.state == "not placed"])
        text = f"For {format_count(used - placed)} of {format_count(used)} usable photos no camera pose was found{why}."
        level = _placed_level(placed / used)
        if level != "note":
            text += " More overlap between neighbouring photos helps most."
        yield Advice(level=level, text=text)
    unused = [p.rejection for p in report.photos if p.state == "not used"]
    if unused:
        files_were = "1 file was" if len(unused) == 1 else f"{format_count(len(unused))} files were"
        yield Advice(level="note", text=f"{files_were} not used{_reasons(unused)}.")


def _placed_level(share: float) -> AdviceLevel:
    if share < MIN_TOLERABLE_PLACED_SHARE:
        return "problem"
    return "warning" if share < MIN_PLACED_SHARE else "note"


def _clip(clip: ClipFacts) -> Iterator[Advice]:
    if clip.n_placed == 0:
        text = (
            f"No camera pose was found for any of the {format_count(clip.n_taken)} frames of {clip.name}: film again, "
            "slowly, and begin with something in view that other photos show, too."
        )
        yield Advice(level="warning", text=text)
    elif clip.n_unplaced:
        text = (
            f"No camera pose was found for {timespans(clip.unplaced_s)} of {clip.name} "
            f"({format_count(clip.n_unplaced)} of {format_count(clip.n_taken)} frames): "
            "film that part again, slower, and keep something in view that the other frames show."
        )
        yield Advice(
            level="warning" if clip.n_unplaced > MAX_UNPLACED_FRAME_SHARE * clip.n_taken else "note", text=text
        )
    if clip.blurred_s:
        text = f"{timespans(clip.blurred_s)} of {clip.name} is too blurred to use: film that part again, slower."
        yield Advice(level="note", text=text)
    if clip.cut_off:
        yield Advice(level="warning", text=f"{clip.name} is {clip.cut_off}.")
    if clip.is_interlaced:
        text = f"{clip.name} is interlaced film, of which half the lines can be used: film in progressive mode."
        yield Advice(level="warning", text=text)


def _reasons(rejections: Sequence[Rejection | None]) -> str:
    counts = Counter(rejection.reason for rejection in rejections if rejection)
    common = [f"{n} × {reason.text}" for reason, n in counts.most_common(MAX_LISTED_REASONS)]
    return f" ({'; '.join(common)})" if common else ""


def _pose(pose: PoseFacts) -> Iterator[Advice]:
    if len(pose.components) > 1:
        sizes = ", ".join(format_count(n) for n in pose.components[:MAX_LISTED_GROUPS])
        text = (
            f"The photos form {len(pose.components)} groups without matches between them ({sizes} photos); only the "
            "first group was reconstructed. If they show one place, add photos that link the groups."
        )
        yield Advice(level="warning", text=text)
    if pose.reprojection_px and pose.reprojection_px.median > MAX_REPROJECTION_PX:
        text = (
            f"The median reprojection error is {format_number(pose.reprojection_px.median)} px, while less than 1 px "
            "is usual: the camera poses may be imprecise."
        )
        yield Advice(level="warning", text=text)
    if pose.track_length and pose.track_length.mean < MIN_TRACK_LENGTH:
        text = (
            f"On average a 3D point is seen in only {format_number(pose.track_length.mean)} photos: the photos overlap "
            "too little. More photos from in between would help."
        )
        yield Advice(level="warning", text=text)
    if pose.unit != "m":
        text = "The photos do not tell the true scale of the scene, so lengths are in arbitrary units."
        yield Advice(level="note", text=text)


def _training(blocks: Sequence[BlockFacts]) -> Iterator[Advice]:
    for rule in (_failed_blocks, _untrained_blocks, _poor_blocks, _coarser_blocks, _memory_excess):
        advice = rule(blocks)
        if advice is not None:
            yield advice


def _failed_blocks(blocks: Sequence[BlockFacts]) -> Advice | None:
    failed = [block for block in blocks if block.failed]
    if not failed:
        return None
    text = (
        f"The mesh has a hole, because {len(failed)} of {len(blocks)} blocks could not be trained "
        f"({_list_blocks(failed, [block.failed for block in failed], '; ')}). Run quoin resume to try again."
    )
    return Advice(level="problem", text=text)


def _untrained_blocks(blocks: Sequence[BlockFacts]) -> Advice | None:
    untrained = [block.id for block in blocks if block.steps is None and not block.failed]
    if not untrained:
        return None
    names = ", ".join(untrained[:MAX_LISTED_BLOCKS])
    text = f"{len(untrained)} of {len(blocks)} blocks are not trained yet ({names}). Run quoin resume."
    return Advice(level="problem", text=text)


def _poor_blocks(blocks: Sequence[BlockFacts]) -> Advice | None:
    poor = [b for b in blocks if b.heldout_psnr_db is not None and b.heldout_psnr_db < MIN_HELDOUT_PSNR_DB]
    if not poor:
        return None
    scores = _list_blocks(poor, [f"{format_number(block.heldout_psnr_db)} dB" for block in poor], ", ")
    text = (
        f"{len(poor)} of {len(blocks)} blocks reproduce held-out pixels poorly ({scores}). "
        "Longer training, or photos with fewer moving objects and steadier light, would help."
    )
    return Advice(level="warning", text=text)


def _coarser_blocks(blocks: Sequence[BlockFacts]) -> Advice | None:
    coarser = [block for block in blocks if block.memory_reason]
    if not coarser:
        return None
    text = (
        f"{len(coarser)} of {len(blocks)} blocks were trained in less detail, because there was not enough memory "
        f"({_list_blocks(coarser, [block.memory_reason for block in coarser], '; ')})."
    )
    return Advice(level="warning", text=text)


def _memory_excess(blocks: Sequence[BlockFacts]) -> Advice | None:
    on_cpu = [(b.peak_memory_bytes, b.planned_memory_bytes) for b in blocks if b.device == "cpu"]
    n_over = sum(bool(peak and planned and peak > MAX_MEMORY_RATIO * planned) for peak, planned in on_cpu)
    if not n_over:
        return None
    text = f"{n_over} of {len(blocks)} blocks needed over a quarter more memory than was planned for them."
    return Advice(level="note", text=text)


def _list_blocks(blocks: Sequence[BlockFacts], texts: Sequence[str], separator: str) -> str:
    """``b000: text`` of the first few blocks."""
    rows = [f"{block.id}: {text}" for block, text in zip(blocks, texts, strict=True)]
    return separator.join(rows[:MAX_LISTED_BLOCKS])
