"""``quoin evaluate``: the scores of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.config import build
from pipeline.progress import Reporter
from pipeline.run import Run
from stages.evaluate.config import EvaluateConfig, EvaluateResult, PoseErrors


def evaluate_run(run: Run, truth: Path, cameras: Path | None, distances_m: Sequence[float], report: Reporter) -> None:
    """Evaluate ``run`` against ``truth`` and print the scores on standard output."""
    from stages.evaluate.run import evaluate

    config = build(EvaluateConfig, {"distances_m": list(distances_m)})
    print_scores(evaluate(run, truth, cameras, report, config), run)


def print_scores(result: EvaluateResult, run: Run) -> None:
    """Surface scores by distance, then Chamfer and pose errors."""
    surface = result.surface
    table = Table("distance", "of the diagonal", "precision", "recall", "F", box=box.SIMPLE_HEAD)
    for score in surface.scores:
        shares = (f"{value:.3f}" for value in (score.precision, score.recall, score.f))
        table.add_row(f"{score.distance_m:.4g}", f"{score.distance_percent:.3g} %", *shares)
    Console(width=100).print(table)
    if surface.chamfer_m is not None:
        print(
            f"  Chamfer {surface.chamfer_m:.4g} (accuracy {surface.accuracy_mean_m:.4g}, "
            f"completeness {surface.completeness_mean_m:.4g}); diagonal {surface.diagonal_m:.4g}"
        )
    print(f"  {pose_sentence(result.poses)}")
    print(f"  {run.path / 'evaluation.json'}")


def pose_sentence(poses: PoseErrors) -> str:
    """Pose errors in a line."""
    text = (
        f"{poses.n_matched} of {poses.n_reference} cameras; centres off by {poses.center_median_m:.4g} "
        f"({poses.center_median_percent:.3f} % of their spread) in the median, {poses.center_max_m:.4g} at most"
    )
    if poses.rotation_median_deg is None or poses.rotation_max_deg is None:
        return text
    return f"{text}; rotations by {poses.rotation_median_deg:.3f}° and {poses.rotation_max_deg:.3f}°"
