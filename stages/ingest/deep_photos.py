"""The range of values that photos of more than 8 bits a channel are shown by, one for the whole folder."""

from __future__ import annotations

from collections.abc import Sequence

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import RejectedFileError
from quoin.pipeline.core.workers import thread_map
from quoin.pipeline.imaging.io import PixelBudget, open_image
from quoin.pipeline.imaging.value_range import (
    FULL_RANGE,
    ValueRange,
    common_value_range,
    deep_values,
    find_value_span,
    is_deep_color,
    is_deep_gray,
)
from quoin.stages.ingest.file_search import SourceFile, suffix_of

DEEP_SUFFIXES = {".png", ".tif", ".tiff", ".pgm", ".jp2", ".j2k"}


def find_value_ranges(
    files: Sequence[SourceFile], max_pixels: int, threads: int, report: Reporter
) -> dict[str, ValueRange]:
    """The range by name of each photo that holds more than 8 bits: one for all of gray, one for all of color."""
    candidates = [file for file in files if not file.rejection and suffix_of(file.name) in DEEP_SUFFIXES]
    budget = PixelBudget()

    def measure(index: int) -> tuple[str, ValueRange | None] | None:
        """Kind and span of a photo; None where it has 8 bits, or cannot be read, which its inspection tells."""
        path = candidates[index].path
        try:
            with open_image(path, max_pixels) as image:
                kind = "gray" if is_deep_gray(image) else "color" if is_deep_color(image, path) else ""
                if not kind:
                    return None
                with budget.reserve(image.width * image.height):
                    image.load()
                    return kind, find_value_span(deep_values(image, path))
        except RejectedFileError:
            return None

    if not candidates:
        return {}
    with report.task("ingest/values", total=len(candidates), unit="files") as advance:
        measured = thread_map(measure, len(candidates), threads, advance)
    ranges: dict[str, ValueRange] = {}
    for kind in ("gray", "color"):
        spans = {file.name: m[1] for file, m in zip(candidates, measured, strict=True) if m and m[0] == kind}
        value_range = common_value_range(spans.values())
        ranges |= dict.fromkeys(spans, value_range)
        if spans and value_range != FULL_RANGE:
            report.log(
                "ingest",
                f"{len(spans)} {kind} photos of more than 8 bits span the values {value_range[0]} to {value_range[1]}, "
                "which become black and white in all of them",
            )
    return ranges
