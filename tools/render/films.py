"""Renderings of trained blocks: of the held-out photos into the store, or as films.

Opening a trained block is up to the train stage, which this tool does not import: the caller passes a ``BlockOpener``
(``flows/cli/evaluate.py`` has the one for runs).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Advance, Reporter
from quoin.pipeline.geometry.cameras import centers_world, normalize, pixel_grid, rays_world
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import read_held_out, read_partition
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.tools.render.block_segments import BlockBoxes, RayEndBlocks, block_segments, composite, find_end_blocks
from quoin.tools.render.camera_path import interpolated_path, orbit_path
from quoin.tools.render.video import RenderedQuantity, open_frame_writer, output_picture, save_picture

Array = np.ndarray

MAX_GROUP_PIXELS = 4_000_000  # of the frames that are rendered together, for which each block is opened once
MIN_OPAQUE_OPACITY = 0.999  # from it on a ray is not followed further
MIN_SURFACE_OPACITY = 0.5  # of a ray that meets a surface

FilmPath = Literal["orbit", "photos"]


class FilmConfig(StageConfig):
    """A film of the trained blocks."""

    path: FilmPath = "orbit"
    """Around what the photos look at, or through the photos' cameras."""
    output: RenderedQuantity = "colour"
    """Path of the film."""
    width: int = Field(640, ge=16, le=8192, multiple_of=2)
    """Pixels; even, as H.264 wants it."""
    height: int = Field(360, ge=16, le=8192, multiple_of=2)
    """Height of the picture, pixels."""
    seconds: float = Field(6.0, gt=0, le=3600)
    """Length, seconds."""
    frames_per_s: int = Field(24, ge=1, le=120)
    """Frames a second."""

    @property
    def n_frames(self) -> int:
        return max(1, round(self.seconds * self.frames_per_s))


class FilmResult(StageResult):
    """A film that was rendered."""

    file: str  # the video, or the folder of pictures
    n_frames: int
    seconds_per_frame: float  # of rendering


class RenderedSegments(Protocol):
    """What rays see of one block, each value weighted by its visibility (``RayOutput`` of a trained block)."""

    @property
    def color(self) -> Float[Array, "n 3"]: ...

    @property
    def opacity(self) -> Float[Array, "n"]: ...

    @property
    def distance_m(self) -> Float[Array, "n"]: ...

    @property
    def normal(self) -> Float[Array, "n 3"]: ...


# origin [3], directions [n, 3], begin_m [n], end_m [n] and whether a ray ends in the block [n] -> what the rays see
RenderRays = Callable[[Array, Array, Array, Array, Array], RenderedSegments]
BlockOpener = Callable[[str], RenderRays]  # opens a trained block by its id


class RenderCamera(NamedTuple):
    """A camera to render from."""

    cam_from_world: Float[Array, "3 4"]
    intrinsics: Float[Array, "4"]
    width: int
    height: int


def render_held_out(run: Run, open_block: BlockOpener, report: Reporter) -> list[int]:
    """Render the held-out photos at their own size into the store; returns their indices.

    Also writes pictures into ``views/`` of the run: photo, rendering, normals and depth side by side. QuoinError where
    no photo was held out.
    """
    run.require("train")
    posed, held_out = posed_images.read_posed(run), read_held_out(run).tolist()
    if not held_out:
        raise QuoinError(
            "This run held out no photos, so there is nothing to compare renderings with",
            where=run.location,
            hint="reconstruct with --set partition.hold_out_every=8 (poses are kept, later stages run again)",
        )
    arrays.delete_node(run.scene, "renderings")
    folder = run.path / "views"
    shutil.rmtree(folder, ignore_errors=True)
    views = [RenderCamera(posed.cam_from_world[i], posed.intrinsics[i], *map(int, posed.sizes[i])) for i in held_out]
    for index, rendering in zip(held_out, render_views(run, views, open_block, report), strict=True):
        posed_images.write_rendering(run, index, rendering)
        outputs: tuple[RenderedQuantity, ...] = ("colour", "normals", "depth")
        pictures = [output_picture(rendering, output, scene_depth_range(posed)) for output in outputs]
        save_picture(
            folder / f"{posed.names[index]}.png",
            np.concatenate([posed_images.read_photo(run, index), *pictures], axis=1),
        )
    return held_out


def render_film(run: Run, config: FilmConfig, out: Path, open_block: BlockOpener, report: Reporter) -> FilmResult:
    """Render a film of the trained blocks into ``out``: a video where it ends in .mp4, else a folder of pictures."""
    run.require("train")
    with open_frame_writer(out, config.width, config.height, config.frames_per_s) as write:
        views, depths = film_cameras(run, config), scene_depth_range(posed_images.read_posed(run))
        began = time.monotonic()
        for rendering in render_views(run, views, open_block, report):
            write(output_picture(rendering, config.output, depths))
        seconds = time.monotonic() - began
    return FilmResult(file=str(out), n_frames=len(views), seconds_per_frame=seconds / len(views))


def film_cameras(run: Run, config: FilmConfig) -> list[RenderCamera]:
    """The cameras of a film; their field of view across the diagonal is the median of the photos'."""
    posed, partition = posed_images.read_posed(run), read_partition(run)
    if config.path == "orbit":
        region = np.stack([partition.region_low_world, partition.region_high_world])
        poses = orbit_path(posed.cam_from_world, region, config.n_frames)
    else:
        poses = interpolated_path(posed.cam_from_world, config.n_frames)
    size = np.array([config.width, config.height])
    focal = float(np.median(posed.intrinsics[:, :2].mean(axis=1) / np.linalg.norm(posed.sizes, axis=1)))
    intrinsics = np.array([focal * np.linalg.norm(size)] * 2 + (size / 2).tolist())
    return [RenderCamera(pose, intrinsics, config.width, config.height) for pose in poses]


def render_views(
    run: Run, views: list[RenderCamera], open_block: BlockOpener, report: Reporter
) -> Iterator[posed_images.Rendering]:
    """The rendering of each view, in order. One block at a time is in memory, with its layers of a few views."""
    block_ids, boxes = _trained_blocks(run)
    core_centers = boxes.cores.mean(axis=1)
    with report.task("render", len(views) * len(block_ids), "looks") as advance:
        n_views_done = 0
        for group in _group_views(views):
            frames = [_FrameBuffer(view, boxes) for view in group]
            middle = np.mean([frame.origin for frame in frames], axis=0)
            nearest_first = np.argsort(np.linalg.norm(core_centers - middle, axis=1)).tolist()
            for n_blocks_done, block in enumerate(nearest_first):
                n_done = n_views_done * len(block_ids) + n_blocks_done * len(frames)
                _render_block(frames, block, open_block(block_ids[block]), n_done, advance)
            n_views_done += len(frames)
            for frame in frames:
                yield frame.rendering()


def _trained_blocks(run: Run) -> tuple[list[str], BlockBoxes]:
    """Ids and boxes of the blocks of the run that could be trained."""
    partition, train = read_partition(run), run.manifest("train")
    missing = train.result.get("failed_blocks", {}) if train else {}
    blocks = [block for block in partition.blocks if block.id not in missing]
    boxes = BlockBoxes(
        np.array([partition.lattice.box_world(block.core) for block in blocks]),
        np.array([partition.lattice.box_world(block.outer) for block in blocks]),
    )
    return [block.id for block in blocks], boxes


def _render_block(
    frames: list[_FrameBuffer],
    block: int,
    render_rays: RenderRays,
    n_done: int,
    advance: Advance,
) -> None:
    """Add the segments of one block to each frame; its renderer is released with the return."""
    for frame in frames:
        frame.add(block, render_rays)
        n_done += 1
        advance(n_done)


def _group_views(views: list[RenderCamera]) -> Iterator[list[RenderCamera]]:
    group: list[RenderCamera] = []
    for view in views:
        if group and sum(v.width * v.height for v in [*group, view]) > MAX_GROUP_PIXELS:
            yield group
            group = []
        group.append(view)
    if group:
        yield group


class _FrameBuffer:
    """The rays of a view, and the segments of them that blocks have rendered so far."""

    def __init__(self, view: RenderCamera, boxes: BlockBoxes) -> None:
        self.view, self.boxes = view, boxes
        pixels = pixel_grid(view.width, view.height)
        self.origin, self.directions = rays_world(view.cam_from_world, view.intrinsics, pixels)
        self.end_blocks: RayEndBlocks = find_end_blocks(self.origin, self.directions, boxes)
        self.opaque_from_m = np.full(len(pixels), np.inf)  # distance at which a ray is fully opaque
        self.layers: list[tuple[Array, Array, Array, Array]] = []  # ray, begin, values, opacity

    def add(self, block: int, render_rays: RenderRays) -> None:
        """Let ``block`` render its segments of the rays that are not opaque in front of it."""
        begin, end, is_last = block_segments(self.origin, self.directions, self.boxes, self.end_blocks, block)
        ray = np.flatnonzero(((end > begin) | is_last) & (begin < self.opaque_from_m))
        if len(ray) == 0:
            return
        layer = render_rays(self.origin, self.directions[ray], begin[ray], end[ray], is_last[ray])
        is_opaque = layer.opacity > MIN_OPAQUE_OPACITY
        self.opaque_from_m[ray[is_opaque]] = np.minimum(self.opaque_from_m[ray[is_opaque]], end[ray[is_opaque]])
        values = np.concatenate([layer.color, layer.normal, layer.distance_m[:, None]], axis=1)
        is_visible = is_last[ray] | (layer.opacity > 0)
        self.layers.append((ray[is_visible], begin[ray[is_visible]], values[is_visible], layer.opacity[is_visible]))

    def rendering(self) -> posed_images.Rendering:
        """The composite of all segments."""
        ray, begin, values, opacity = (np.concatenate(part) for part in zip(*self.layers, strict=True))
        composited, opacities = composite(ray, begin, values, opacity, len(self.directions))
        has_surface = opacities > MIN_SURFACE_OPACITY
        colour, normal, distance = composited[:, :3], composited[:, 3:6], composited[:, 6] / np.maximum(opacities, 1e-6)
        normal = normalize(normal, 1e-6)
        forward = self.directions @ self.view.cam_from_world[2, :3]
        shape = (self.view.height, self.view.width)
        return posed_images.Rendering(
            color=colour.reshape(*shape, 3),
            normal=np.where(has_surface[:, None], normal, 0.0).reshape(*shape, 3).astype(np.float32),
            depth_m=np.where(has_surface, distance * forward, 0.0).reshape(shape).astype(np.float32),
            opacity=opacities.reshape(shape),
        )


def scene_depth_range(posed: posed_images.Posed) -> tuple[float, float]:
    """Range of depths that pictures show: 1st to 99th percentile of the distances from cameras to their SfM points."""
    center = centers_world(posed.cam_from_world)[posed.track_photo]
    near, far = np.percentile(np.linalg.norm(posed.points_world[posed.track_point] - center, axis=1), [1, 99])
    return float(near), float(far)
