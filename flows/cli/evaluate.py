"""``quoin evaluate`` and ``quoin render``: the scores of a run as tables, and videos of its trained blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quoin.fields.device import pick_device
from quoin.pipeline.core.config import validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import printable
from quoin.pipeline.core.workers import Device
from quoin.pipeline.storage.run import Run
from quoin.tools.evaluate.config import (
    ConfidenceScore,
    EvaluateConfig,
    EvaluateResult,
    PoseErrors,
    ViewScore,
    ViewsResult,
)
from quoin.tools.render.films import FilmConfig

if TYPE_CHECKING:
    from quoin.stages.train.trained_block import RayRenderer


def evaluate_run(
    run: Run,
    truth: Path | None,
    cameras: Path | None,
    distances_m: Sequence[float],
    report: Reporter,
    *,
    views: Device | None = None,
) -> None:
    """Evaluate ``run`` against ``truth``, or the photos it held out (rendered on device ``views``), or both."""
    from quoin.tools.evaluate.evaluation import evaluate_surface, evaluate_views

    if truth is None and views is None:
        raise QuoinError(
            "Nothing to compare the run with was given",
            where=run.location,
            hint="give a reference surface with --truth, or --views to compare with held-out photos",
        )
    config = validate_config(EvaluateConfig, {"distances_m": list(distances_m)})
    view_scores = None
    if views is not None:
        from quoin.tools.render.films import render_held_out

        render_held_out(run, block_opener(run, views), report)
        view_scores = evaluate_views(run, report)
    if truth is not None:
        print_scores(evaluate_surface(run, truth, cameras, report, config, view_scores), run)
    if view_scores is not None:
        print_views(view_scores, run)


def print_views(result: ViewsResult, run: Run) -> None:
    """Print PSNR and SSIM of every held-out photo, and their means."""
    table = Table("held-out photo", "PSNR", "color-corrected", "SSIM", box=box.SIMPLE_HEAD)
    rows: list[tuple[str, ViewScore | ViewsResult]] = [(score.photo, score) for score in result.photos]
    for name, score in [*rows, ("mean", result)]:
        table.add_row(
            escape(printable(name)), f"{score.psnr_db:.2f} dB", f"{score.psnr_corrected_db:.2f} dB", f"{score.ssim:.3f}"
        )
    Console(width=100).print(table)
    print(f"  {run.storage.public_path('views')}")
    print(f"  {run.storage.public_path('evaluation.json')}")


def print_scores(result: EvaluateResult, run: Run) -> None:
    """Print the surface scores by distance, then Chamfer and pose errors."""
    surface = result.surface
    table = Table("distance", "of the diagonal", "precision", "recall", "F", box=box.SIMPLE_HEAD)
    for score in surface.scores:
        shares = (f"{value:.3f}" for value in (score.precision, score.recall, score.f_score))
        table.add_row(f"{score.distance_m:.4g}", f"{score.distance_percent:.3g} %", *shares)
    Console(width=100).print(table)
    if surface.chamfer_m is not None:
        print(
            f"  Chamfer {surface.chamfer_m:.4g} (accuracy {surface.accuracy_mean_m:.4g}, "
            f"completeness {surface.completeness_mean_m:.4g}); diagonal {surface.diagonal_m:.4g}"
        )
    if result.labels:
        print_labels(result)
    if result.confidence is not None:
        print_confidence(result.confidence)
    print(f"  {pose_error_text(result.poses)}")
    print(f"  {run.storage.public_path('evaluation.json')}")


def print_labels(result: EvaluateResult) -> None:
    """Print recall and normal errors of floor, ceiling, walls and the rest."""
    distances = [f"recall < {score.distance_m:.3g}" for score in result.surface.scores]
    table = Table("part of the truth", "area", *distances, "normals off by (median)", box=box.SIMPLE_HEAD)
    for part in result.labels:
        turned = "–" if part.normal_median_deg is None else f"{part.normal_median_deg:.2f}°"
        table.add_row(part.label, f"{part.share:.1%}", *(f"{value:.3f}" for value in part.recall), turned)
    Console(width=100).print(table)


def print_confidence(result: ConfidenceScore) -> None:
    """Print vertex errors by confidence, and the score of the confident part of the surface."""
    distances = [f"< {score.distance_m:.3g}" for score in result.confident]
    table = Table("confidence", "vertices", "mean error", "median", *distances, box=box.SIMPLE_HEAD)
    for part in result.parts:
        shares = (f"{value:.3f}" for value in part.precision)
        errors = (f"{value:.4g}" for value in (part.mean_m, part.median_m))
        table.add_row(f"{part.low:.2f} to {part.high:.2f}", f"{part.n_vertices:,}", *errors, *shares)
    Console(width=100).print(table)
    f_scores = ", ".join(
        f"{s.f_score:.3f} ({s.precision:.3f}, {s.recall:.3f}) at {s.distance_m:.4g}" for s in result.confident
    )
    print(f"  confidence above 0.5: {result.confident_share:.1%} of the area; its F (precision, recall) {f_scores}")


def pose_error_text(poses: PoseErrors) -> str:
    """The pose errors in one line."""
    text = (
        f"{poses.n_matched} of {poses.n_reference} cameras; camera centers off by {poses.center_median_m:.4g} "
        f"({poses.center_median_percent:.3f} % of their spread) in the median, {poses.center_max_m:.4g} at most"
    )
    if poses.rotation_median_deg is None or poses.rotation_max_deg is None:
        return text
    return f"{text}; rotations by {poses.rotation_median_deg:.3f}° and {poses.rotation_max_deg:.3f}°"


def block_opener(run: Run, device: Device) -> Callable[[str], RayRenderer]:
    """A function that loads a trained block of ``run`` by its id onto ``device``."""
    from quoin.stages.train.trained_block import load_ray_renderer

    return functools.partial(load_ray_renderer, run, device=pick_device(device))


def render_run(run: Run, config: FilmConfig, out: Path | None, device: Device, report: Reporter) -> None:
    """Render a video and print its path."""
    from quoin.tools.render.films import render_film

    film = render_film(run, config, out or run.path / "films" / f"{config.path}.mp4", block_opener(run, device), report)
    print(f"  {film.n_frames} frames, {film.seconds_per_frame:.1f} s each")
    print(f"  {run.storage.public_path(film.file)}")
