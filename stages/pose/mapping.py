"""From matches to components: the mappers, the gate, and which result to keep."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.checks.registration import FEW_INLIERS, gate, photo_medians, residuals_px
from quoin.stages.pose.checks.weak_links import solid_parts
from quoin.stages.pose.colmap.sparse_model import read_model
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import Component, OnLine, Workshop, counter

Array = np.ndarray

SMALL = 60  # photos
CONTENT_SHARE = 0.9  # of the photos that match others well; fewer registered: the other mapper is tried
MAX_LOST = 0.03  # of the photos, that refinement may find to be wrong
SAME_SIZE = 0.02  # components that differ by a smaller share of photos are of one size: the error decides
CONTENT_ERROR_PX = 1.0  # mean over photos of the median reprojection error; a worse one likewise


def map_photos(
    shop: Workshop, config: PoseConfig, pairs: Int[Array, "m 4"], n_photos: int
) -> tuple[list[Component], str]:
    """Gated components, largest first, and the mapper that made them ("" and none where none could).

    The global mapper first: it uses all pairs at once and does not depend on where it starts. For small collections
    the incremental one first: it finds the same poses there in a fraction of the time (benchmarks/poses.md). Where the
    gate is not content with the first, the other too, and the better of both.
    """
    matchable = len(np.unique(pairs[pairs[:, 3] >= FEW_INLIERS, :2]))
    tried: dict[str, list[Component]] = {}
    order = ("incremental", "global") if n_photos <= SMALL else ("global", "incremental")
    for mapper in order if config.mapper == "auto" else (config.mapper,):
        try:
            tried[mapper] = _map(shop, mapper, config, n_photos)
        except QuoinError as error:  # the other mapper may still do it
            shop.report.log("pose", f"{error.what}", "warning")
            continue
        if content(tried[mapper], matchable):
            break
    if not tried:
        raise QuoinError("COLMAP could not map the photos", where=shop.folder, do="see its logs in that folder")
    mapper = functools.reduce(lambda best, name: name if better(tried[name], tried[best]) else best, tried)
    return tried[mapper], mapper if tried[mapper] else ""


def content(components: list[Component], matchable: int) -> bool:
    """Whether a result needs no second opinion: nearly all photos that match others, in one component, precisely."""
    if not components:
        return False
    return components[0].n_photos >= CONTENT_SHARE * matchable and mean_error_px(components[0]) <= CONTENT_ERROR_PX


def better(one: list[Component], other: list[Component]) -> bool:
    """Whether the largest component of ``one`` has clearly more photos, or as many (within 2 %) and less error."""
    if not one or not other:
        return len(one) > len(other)
    n_one, n_other = one[0].n_photos, other[0].n_photos
    if abs(n_one - n_other) > SAME_SIZE * max(n_one, n_other):
        return n_one > n_other
    return mean_error_px(one[0]) < mean_error_px(other[0])


def mean_error_px(component: Component) -> float:
    """Mean over photos of the median reprojection error."""
    model = component.gated.model
    return float(np.nanmean(photo_medians(model, residuals_px(model))))


def gated(path: str, min_points: int) -> Component:
    """The component in a folder, through the gate."""
    return Component(path, gate(read_model(Path(path) / "model.npz"), min_points))


def _map(shop: Workshop, mapper: str, config: PoseConfig, n_photos: int) -> list[Component]:
    output = shop.folder / f"{mapper}-{shop.database.stem}"
    shutil.rmtree(output, ignore_errors=True)
    with shop.report.task(f"pose/mapping {mapper}", n_photos, "photos") as advance:
        on_line = _progress(mapper, n_photos, advance)
        paths = shop.colmap("mapping", {"mapper": mapper, "output": str(output)}, on_line)["components"]
        advance(n_photos)
    components = [part for path in paths for part in _solid(shop, path, config.min_points)]
    return sorted((c for c in components if c.n_photos >= 2), key=lambda c: -c.n_photos)


def _solid(shop: Workshop, path: str, min_points: int) -> list[Component]:
    """The component in a folder, through the gate; several where its photos hang together by a thread only."""
    whole = gated(path, min_points)
    parts, bridges = solid_parts(whole.gated.model)
    if not bridges:
        return [whole]
    for bridge in bridges:
        size = min(int(bridge.side.sum()), int((~bridge.side).sum()))
        text = (
            f"{size} photos hang on the others by {bridge.n_shared} points only: not trusted to be in the right place"
        )
        shop.report.log("pose", text, "warning")
    components = [Component(path, gate(part, min_points)) for part in parts]
    components[0].gated.dropped.update(whole.gated.dropped)
    return components


# the global mapper works on all photos at once: its phases, and the share of its time that is gone when each begins
_PHASES = {
    "Running rotation averaging": 0.02,
    "Running global positioning": 0.05,
    "Running iterative bundle adjustment": 0.4,
    "Running iterative retriangulation": 0.85,
    "Extracting colors": 0.97,
}


def _progress(mapper: str, n_photos: int, advance: Callable[[float], None]) -> OnLine:
    if mapper == "incremental":
        return counter(r"num_reg_frames=(\d+)", advance)

    def on_line(line: str) -> None:
        for phase, share in _PHASES.items():
            if phase in line:
                advance(share * n_photos)

    return on_line


def refine(shop: Workshop, config: PoseConfig, component: Component) -> tuple[Component, int]:
    """The component after a robust bundle adjustment and the gate, and how many principal points were moved.

    Stays as it is where the adjustment fails, loses photos, or explains them worse.
    """
    model = component.gated.model
    output = shop.folder / "refined"
    shutil.rmtree(output, ignore_errors=True)
    job = {
        "path": component.path,
        "photo_ids": model.photo_ids.tolist(),
        "free": config.refine_intrinsics,
        "output": str(output),
    }
    try:
        with shop.report.task("pose/refining", 1):
            result = shop.colmap("refining", job)
    except QuoinError as error:
        shop.report.log("pose", f"Not refined: {error.what}", "warning")
        return component, 0
    refined = gated(result["component"], config.min_points)
    lost = component.n_photos - refined.n_photos
    if lost > MAX_LOST * component.n_photos or mean_error_px(refined) > mean_error_px(component):
        shop.report.log("pose", "Refining made the poses worse, and was not taken", "warning")
        return component, 0
    if result["n_split"]:
        text = f"{result['n_split']} photos were taken to share cameras, but do not; each got its own"
        shop.report.log("pose", text)
    refined.gated.dropped.update(component.gated.dropped)
    return refined, len(result["moved"])
