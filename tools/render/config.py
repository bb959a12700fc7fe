"""Settings of a film, and its result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult

FilmPath = Literal["orbit", "photos"]
RenderedQuantity = Literal["colour", "normals", "depth"]


class FilmConfig(StageConfig):
    """A film of the trained blocks."""

    path: FilmPath = "orbit"  # around what the photos look at, or through the photos' cameras
    output: RenderedQuantity = "colour"
    width: int = Field(640, ge=16, le=8192, multiple_of=2)  # pixels; even, as H.264 wants it
    height: int = Field(360, ge=16, le=8192, multiple_of=2)
    seconds: float = Field(6.0, gt=0, le=3600)
    frames_per_s: int = Field(24, ge=1, le=120)

    @property
    def n_frames(self) -> int:
        return max(1, round(self.seconds * self.frames_per_s))


class FilmResult(StageResult):
    """A film that was rendered."""

    file: str  # the video, or the folder of pictures
    n_frames: int
    seconds_per_frame: float  # of rendering
