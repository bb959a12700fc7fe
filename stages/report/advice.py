"""What a person should know about this run, in sentences, worst first. Looks at the facts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from quoin.pipeline.core.formatting import format_count, format_number, format_percent, timespans
from quoin.pipeline.core.reasons import Rejection
from quoin.stages.report.facts import (
    Advice,
    AdviceLevel,
    BlockFacts,
    ClipFacts,
    Headline,
    MeshFacts,
    PhotoFacts,
    PoseFacts,
)

_LEVEL_ORDER = {"problem": 0, "warning": 1, "note": 2}


def advise(
    headline: Headline,
    files: Sequence[PhotoFacts],
    clips: Sequence[ClipFacts],
    pose: PoseFacts | None,
    blocks: Sequence[BlockFacts],
    mesh: MeshFacts,
    stage_warnings: Sequence[str],
) -> list[Advice]:
    """Sentences about what went wrong or may mislead; ``stage_warnings``: warnings that stages put into their
    results."""
    of_input = [*_photos(headline, files), *(advice for clip in clips for advice in _clip(clip))]
    entries = [*_mesh(headline, mesh), *of_input, *_pose(pose), *_training(headline, blocks)]
    entries += [Advice(level="warning", text=text) for text in dict.fromkeys(stage_warnings)]
    return sorted(entries, key=lambda a: _LEVEL_ORDER[a.level])


def _mesh(headline: Headline, mesh: MeshFacts) -> list[Advice]:
    if headline.n_faces is None:
        return [Advice(level="problem", text="There is no mesh yet: fusion has not been completed. Run quoin resume.")]
    if headline.n_faces < 1000:
        text = f"The mesh has only {format_count(headline.n_faces)} triangles: training found hardly any surface."
        return [Advice(level="problem", text=text)]
    out = []
    if mesh.n_torn_edges:
        text = (
            f"The surface is torn at {format_count(mesh.n_torn_edges)} edges between bricks: please report this fault."
        )
        out.append(Advice(level="problem", text=text))
    if mesh.largest_component_share is not None and mesh.largest_component_share < 0.7:
        text = (
            f"The surface is in {format_count(mesh.n_components)} pieces; the largest holds only "
            f"{format_percent(mesh.largest_component_share)} of its area."
        )
        out.append(Advice(level="warning", text=text))
    return out


def _photos(headline: Headline, files: Sequence[PhotoFacts]) -> list[Advice]:
    out = []
    used, placed = headline.n_photos_used, headline.n_photos_posed
    if used and placed is not None and placed < used:
        why = _reasons([p.rejection for p in files if p.state == "not placed"])
        level: AdviceLevel = "problem" if placed < 0.5 * used else "warning" if placed < 0.9 * used else "note"
        text = f"{format_count(used - placed)} of {format_count(used)} usable photos could not be placed{why}."
        if level != "note":
            text += " More overlap between neighbouring photos helps most."
        out.append(Advice(level=level, text=text))
    left = [p.rejection for p in files if p.state == "not used"]
    if left:
        files_were = "1 file was" if len(left) == 1 else f"{format_count(len(left))} files were"
        out.append(Advice(level="note", text=f"{files_were} not used{_reasons(left)}."))
    return out


def _clip(clip: ClipFacts) -> list[Advice]:
    out = []
    if clip.n_placed == 0:
        text = (
            f"None of the {format_count(clip.n_taken)} frames of {clip.name} could be placed: film again, slowly, "
            "and begin with something in view that other photos show."
        )
        out.append(Advice(level="warning", text=text))
    elif clip.n_unplaced:
        text = (
            f"{timespans(clip.unplaced_s)} of {clip.name} could not be placed "
            f"({format_count(clip.n_unplaced)} of {format_count(clip.n_taken)} frames): "
            "film that part again, slower, with something placed already in view."
        )
        out.append(Advice(level="warning" if clip.n_unplaced > 0.1 * clip.n_taken else "note", text=text))
    if clip.blurred_s:
        text = f"{timespans(clip.blurred_s)} of {clip.name} is blurred and gave no frame: film that part again, slower."
        out.append(Advice(level="note", text=text))
    if clip.cut_off:
        out.append(Advice(level="warning", text=f"{clip.name} is {clip.cut_off}."))
    return out


def _reasons(rejections: Sequence[Rejection | None]) -> str:
    counts = Counter(rejection.reason for rejection in rejections if rejection)
    common = [f"{n} × {reason.text}" for reason, n in counts.most_common(3)]
    return f" ({'; '.join(common)})" if common else ""


def _pose(pose: PoseFacts | None) -> list[Advice]:
    if pose is None:
        return []
    out = []
    if len(pose.components) > 1:
        text = (
            f"The photos fall apart into {len(pose.components)} groups that do not connect "
            f"({', '.join(format_count(n) for n in pose.components[:6])} photos); only the first was reconstructed. "
            "If they show one place, add photos that bridge the gaps."
        )
        out.append(Advice(level="warning", text=text))
    if pose.reprojection_px and pose.reprojection_px.median > 1.5:
        text = (
            f"The median reprojection error is {format_number(pose.reprojection_px.median)} px; below 1 px is usual. "
            "Poses may be imprecise."
        )
        out.append(Advice(level="warning", text=text))
    if pose.track_length and pose.track_length.mean < 3:
        text = (
            f"A point is seen by {format_number(pose.track_length.mean)} photos on average: the photos overlap little."
        )
        out.append(Advice(level="warning", text=text))
    if pose.unit != "m":
        text = "Nothing in the photos tells the true scale, so lengths are in arbitrary units."
        out.append(Advice(level="note", text=text))
    return out


def _training(headline: Headline, blocks: Sequence[BlockFacts]) -> list[Advice]:
    out = []
    failed = [b for b in blocks if b.failed]
    if failed:
        text = (
            f"The mesh has a hole: {len(failed)} of {len(blocks)} blocks could not be trained "
            f"({'; '.join(f'{b.id}: {b.failed}' for b in failed[:5])}). quoin resume tries again."
        )
        out.append(Advice(level="problem", text=text))
    missing = [b.id for b in blocks if b.steps is None and not b.failed]
    if missing:
        text = f"Not trained yet: {', '.join(missing[:5])} ({len(missing)} of {len(blocks)} blocks)."
        out.append(Advice(level="problem", text=text))
    poor = [b for b in blocks if b.heldout_psnr_db is not None and b.heldout_psnr_db < 17]
    if poor:
        text = (
            f"{len(poor)} of {len(blocks)} blocks explain held-out pixels poorly "
            f"({', '.join(f'{b.id}: {format_number(b.heldout_psnr_db)} dB' for b in poor[:5])}). "
            "Longer training, or photos with fewer moving things and steadier light, would help."
        )
        out.append(Advice(level="warning", text=text))
    less = [b for b in blocks if b.memory_reason]
    if less:
        text = (
            f"{len(less)} of {len(blocks)} blocks were trained less finely, as memory did not suffice "
            f"({'; '.join(f'{b.id}: {b.memory_reason}' for b in less[:5])})."
        )
        out.append(Advice(level="warning", text=text))
    over = [
        b for b in blocks if b.device == "cpu" and b.peak_memory_bytes and b.planned_memory_bytes
        and b.peak_memory_bytes > 1.25 * b.planned_memory_bytes
    ]  # fmt: skip
    if over:
        text = f"{len(over)} of {len(blocks)} blocks took over a quarter more memory than was planned for them."
        out.append(Advice(level="note", text=text))
    return out
