"""Components from matches: run the mappers, filter their photos, and keep the better result."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Advance
from quoin.stages.pose.checks.registration import REGISTRATION, filter_photos, photo_median_errors, residuals_px
from quoin.stages.pose.checks.weak_links import split_at_weak_cuts
from quoin.stages.pose.colmap.sparse_model import read_sparse_model
from quoin.stages.pose.colmap.subprocess_call import LogLineCallback
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import Component, Workspace, progress_from_log

Array = np.ndarray


@dataclass(frozen=True)
class MappingParams:
    """Which mapper comes first, and what result needs no second."""

    max_incremental_first_photos: int = 60  # photos; the incremental mapper is faster (benchmarks/poses.md)
    min_registered_share: float = 0.9  # of the photos that match others; else the other mapper is tried
    max_good_error_px: float = 1.0  # mean over photos of the median reprojection error; else likewise
    same_size_tolerance: float = 0.02  # relative difference in photos, up to which the error decides
    max_refinement_loss_share: float = 0.03  # of the photos, that refinement may drop


MAPPING = MappingParams()


def map_photos(
    workspace: Workspace, config: PoseConfig, pairs: Int[Array, "m 4"], n_photos: int
) -> tuple[list[Component], str]:
    """Filtered components, largest first, and the mapper that made them ("" and no components where none could).

    The global mapper comes first: it uses all pairs at once and does not depend on where it starts. For small
    collections the incremental mapper does: it finds the same poses there in a fraction of the time
    (benchmarks/poses.md). Where the first result is not good enough, the other mapper runs too, and the better is kept.
    """
    n_matchable = len(np.unique(pairs[pairs[:, 3] >= REGISTRATION.min_useful_inliers, :2]))
    components_by_mapper: dict[str, list[Component]] = {}
    order = ("incremental", "global") if n_photos <= MAPPING.max_incremental_first_photos else ("global", "incremental")
    for mapper in order if config.mapper == "auto" else (config.mapper,):
        try:
            components_by_mapper[mapper] = _run_mapper(workspace, mapper, config, n_photos)
        except QuoinError as error:  # the other mapper may still do it
            workspace.report.log("pose", f"{error.what}", "warning")
            continue
        if is_good_enough(components_by_mapper[mapper], n_matchable):
            break
    if not components_by_mapper:
        raise QuoinError("COLMAP could not map the photos", where=workspace.folder, hint="see its logs in that folder")
    mapper = functools.reduce(
        lambda best, name: name if is_better(components_by_mapper[name], components_by_mapper[best]) else best,
        components_by_mapper,
    )
    return components_by_mapper[mapper], mapper if components_by_mapper[mapper] else ""


def is_good_enough(components: list[Component], n_matchable: int) -> bool:
    """Whether nearly all photos that match others are registered in one component with small errors."""
    if not components:
        return False
    return (
        components[0].n_photos >= MAPPING.min_registered_share * n_matchable
        and mean_error_px(components[0]) <= MAPPING.max_good_error_px
    )


def is_better(first: list[Component], second: list[Component]) -> bool:
    """Whether the largest component of ``first`` has clearly more photos, or as many (within 2 %) and less error."""
    if not first or not second:
        return len(first) > len(second)
    n_first, n_second = first[0].n_photos, second[0].n_photos
    if abs(n_first - n_second) > MAPPING.same_size_tolerance * max(n_first, n_second):
        return n_first > n_second
    return mean_error_px(first[0]) < mean_error_px(second[0])


def mean_error_px(component: Component) -> float:
    """Mean over photos of the median reprojection error, pixels."""
    model = component.filtered.model
    return float(np.nanmean(photo_median_errors(model, residuals_px(model))))


def load_component(path: str, min_points: int) -> Component:
    """The component in a folder, filtered."""
    return Component(path, filter_photos(read_sparse_model(Path(path) / "model.npz"), min_points))


def _run_mapper(workspace: Workspace, mapper: str, config: PoseConfig, n_photos: int) -> list[Component]:
    output = workspace.folder / f"{mapper}-{workspace.database.stem}"
    shutil.rmtree(output, ignore_errors=True)
    with workspace.report.task(f"pose/mapping {mapper}", n_photos, "photos") as advance:
        on_log_line = _mapping_progress(mapper, n_photos, advance)
        paths = workspace.run_colmap("map_images", {"mapper": mapper, "output": str(output)}, on_log_line)["components"]
        advance(n_photos)
    components = [part for path in paths for part in _load_components(workspace, path, config.min_points)]
    return sorted((c for c in components if c.n_photos >= 2), key=lambda c: -c.n_photos)


def _load_components(workspace: Workspace, path: str, min_points: int) -> list[Component]:
    """The filtered component in a folder, split at weak cuts."""
    whole = load_component(path, min_points)
    parts, cuts = split_at_weak_cuts(whole.filtered.model)
    if not cuts:
        return [whole]
    for cut in cuts:
        size = min(int(cut.side.sum()), int((~cut.side).sum()))
        text = f"{size} photos share only {cut.n_shared} points with the others: their place is not trusted"
        workspace.report.log("pose", text, "warning")
    components = [Component(path, filter_photos(part, min_points)) for part in parts]
    components[0].filtered.dropped.update(whole.filtered.dropped)
    return components


# the global mapper works on all photos at once: its phases, and the share of its time that is gone when each begins
_PHASE_STARTS = {
    "Running rotation averaging": 0.02,
    "Running global positioning": 0.05,
    "Running iterative bundle adjustment": 0.4,
    "Running iterative retriangulation": 0.85,
    "Extracting colors": 0.97,
}


def _mapping_progress(mapper: str, n_photos: int, advance: Advance) -> LogLineCallback:
    if mapper == "incremental":
        return progress_from_log(r"num_reg_frames=(\d+)", advance)

    def on_log_line(line: str) -> None:
        for phase, share in _PHASE_STARTS.items():
            if phase in line:
                advance(share * n_photos)

    return on_log_line


def refine_component(workspace: Workspace, config: PoseConfig, component: Component) -> tuple[Component, int]:
    """The component after a robust bundle adjustment, filtered, and how many principal points moved.

    The component stays as it is where the adjustment fails, loses photos, or explains them worse.
    """
    model = component.filtered.model
    output = workspace.folder / f"refined-{workspace.database.stem}"
    shutil.rmtree(output, ignore_errors=True)
    job = {
        "path": component.path,
        "photo_ids": model.photo_ids.tolist(),
        "free": config.refine_intrinsics,
        "output": str(output),
    }
    try:
        with workspace.report.task("pose/refining", 1):
            result = workspace.run_colmap("refine_model", job)
    except QuoinError as error:
        workspace.report.log("pose", f"Not refined: {error.what}", "warning")
        return component, 0
    refined = load_component(result["component"], config.min_points)
    n_lost = component.n_photos - refined.n_photos
    if n_lost > MAPPING.max_refinement_loss_share * component.n_photos or mean_error_px(refined) > mean_error_px(
        component
    ):
        workspace.report.log("pose", "Refinement made the poses worse and is not used", "warning")
        return component, 0
    if result["n_split"]:
        text = f"{result['n_split']} photos were assumed to share cameras but do not; each got its own"
        workspace.report.log("pose", text)
    refined.filtered.dropped.update(component.filtered.dropped)
    return refined, len(result["moved"])
