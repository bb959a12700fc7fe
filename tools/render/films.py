"""Render trained blocks: the photos that were held out into the store, or films.

A block's model is one stage's business, train's; here a block is what it is opened as, a function that looks along rays
(``Look``, of ``stages/train/trained.py``), which the caller hands in.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, pixel_grid, rays_world
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import read_held_out, read_partition
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.tools.render.block_segments import Boxes, Owners, owners, stretch
from quoin.tools.render.camera_path import orbit, past_photos
from quoin.tools.render.composite import composite
from quoin.tools.render.config import FilmConfig, FilmResult
from quoin.tools.render.pictures import picture, save
from quoin.tools.render.video import writer

Array = np.ndarray
Look = Callable[[Array, Array, Array, Array, Array], Any]  # origin, directions, enter, leave, ends: a layer
OpenBlock = Callable[[str], Look]

PIXELS_AT_ONCE = 4_000_000  # of as many frames as fit; each block is opened once for all of them
OPAQUE = 0.999
LEAST_OPACITY = 0.5  # less is no surface


class View(NamedTuple):
    """A camera to render from."""

    cam_from_world: Float[Array, "3 4"]
    intrinsics: Float[Array, "4"]
    width: int
    height: int


def render_held_out(run: Run, open_block: OpenBlock, report: Reporter) -> list[int]:
    """What the photos that were held out should look like, at their own size, into the store; returns which they are.

    And pictures into ``views/`` of the run: photo, rendering, normals and depth side by side. QuoinError where no photo
    was held out.
    """
    run.require("train")
    posed, held_out = posed_images.read_posed(run), read_held_out(run).tolist()
    if not held_out:
        raise QuoinError(
            "No photo of this run was held out, so there is none to compare new views with",
            where=run.home,
            do="reconstruct with --set partition.hold_out_every=8 (the poses are kept, what follows is done again)",
        )
    arrays.delete(run.scene, "renderings")
    folder = run.path / "views"
    shutil.rmtree(folder, ignore_errors=True)
    views = [View(posed.cam_from_world[i], posed.intrinsics[i], *map(int, posed.sizes[i])) for i in held_out]
    for index, rendering in zip(held_out, render(run, views, open_block, report), strict=True):
        posed_images.write_rendering(run, index, rendering)
        shown = [picture(rendering, what, depth_range(posed)) for what in ("colour", "normals", "depth")]
        save(
            folder / f"{posed.names[index]}.png", np.concatenate([posed_images.read_photo(run, index), *shown], axis=1)
        )
    return held_out


def render_film(run: Run, config: FilmConfig, out: Path, open_block: OpenBlock, report: Reporter) -> FilmResult:
    """A film of the trained blocks into ``out``, a video where it ends in .mp4 and else a folder of pictures."""
    run.require("train")
    with writer(out, config.width, config.height, config.frames_per_s) as write:
        views, depths = film_views(run, config), depth_range(posed_images.read_posed(run))
        began = time.monotonic()
        for rendering in render(run, views, open_block, report):
            write(picture(rendering, config.what, depths))
        seconds = time.monotonic() - began
    return FilmResult(file=str(out), n_frames=len(views), seconds_per_frame=seconds / len(views))


def film_views(run: Run, config: FilmConfig) -> list[View]:
    """The cameras of a film. Their angle of view is the photos' median, across the picture's diagonal."""
    posed, partition = posed_images.read_posed(run), read_partition(run)
    if config.path == "orbit":
        region = np.stack([partition.region_low_world, partition.region_high_world])
        poses = orbit(posed.cam_from_world, region, config.n_frames)
    else:
        poses = past_photos(posed.cam_from_world, config.n_frames)
    size = np.array([config.width, config.height])
    focal = float(np.median(posed.intrinsics[:, :2].mean(axis=1) / np.linalg.norm(posed.sizes, axis=1)))
    intrinsics = np.array([focal * np.linalg.norm(size)] * 2 + (size / 2).tolist())
    return [View(pose, intrinsics, config.width, config.height) for pose in poses]


def render(run: Run, views: list[View], open_block: OpenBlock, report: Reporter) -> Iterator[posed_images.Rendering]:
    """What each view shows, in order. One block at a time is in memory, with what it adds to a few frames."""
    partition, train = read_partition(run), run.manifest("train")
    missing = train.result.get("missing", {}) if train else {}
    there = [block for block in partition.blocks if block.id not in missing]
    blocks = [block.id for block in there]
    boxes = Boxes(
        np.array([partition.lattice.box_world(block.core) for block in there]),
        np.array([partition.lattice.box_world(block.outer) for block in there]),
    )
    with report.task("render", len(views) * len(blocks), "looks") as advance:
        done = 0
        for group in _groups(views):
            frames = [_Frame(view, boxes) for view in group]
            middle = np.mean([frame.origin for frame in frames], axis=0)
            near_first = np.argsort(np.linalg.norm(boxes.cores.mean(axis=1) - middle, axis=1))
            for block in near_first.tolist():
                look = open_block(blocks[block])
                for frame in frames:
                    frame.add(block, look)
                    done += 1
                    advance(done)
                del look
            for frame in frames:
                yield frame.rendering()


def _groups(views: list[View]) -> Iterator[list[View]]:
    group: list[View] = []
    for view in views:
        if group and sum(v.width * v.height for v in [*group, view]) > PIXELS_AT_ONCE:
            yield group
            group = []
        group.append(view)
    if group:
        yield group


class _Frame:
    """A view while blocks are added to it."""

    def __init__(self, view: View, boxes: Boxes) -> None:
        self.view, self.boxes = view, boxes
        pixels = pixel_grid(view.width, view.height)
        self.origin, self.directions = rays_world(view.cam_from_world, view.intrinsics, pixels)
        self.owned: Owners = owners(self.origin, self.directions, boxes)
        self.closed_m = np.full(len(pixels), np.inf)  # where a ray is known to see nothing any more
        self.parts: list[tuple[Array, Array, Array, Array]] = []  # ray, begin, values, opacity

    def add(self, block: int, look: Look) -> None:
        """Let ``block`` render its stretches of the rays that still see something there."""
        begin, end, is_last = stretch(self.origin, self.directions, self.boxes, self.owned, block)
        ray = np.flatnonzero(((end > begin) | is_last) & (begin < self.closed_m))
        if len(ray) == 0:
            return
        layer = look(self.origin, self.directions[ray], begin[ray], end[ray], is_last[ray])
        closed = layer.opacity > OPAQUE
        self.closed_m[ray[closed]] = np.minimum(self.closed_m[ray[closed]], end[ray[closed]])
        values = np.concatenate([layer.colour, layer.normal, layer.distance_m[:, None]], axis=1)
        shows = is_last[ray] | (layer.opacity > 0)
        self.parts.append((ray[shows], begin[ray[shows]], values[shows], layer.opacity[shows]))

    def rendering(self) -> posed_images.Rendering:
        """All blocks together."""
        ray, begin, values, opacity = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        mixed, covered = composite(ray, begin, values, opacity, len(self.directions))
        solid = covered > LEAST_OPACITY
        colour, normal, distance = mixed[:, :3], mixed[:, 3:6], mixed[:, 6] / np.maximum(covered, 1e-6)
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        forward = self.directions @ self.view.cam_from_world[2, :3]
        shape = (self.view.height, self.view.width)
        return posed_images.Rendering(
            colour=colour.reshape(*shape, 3),
            normal=np.where(solid[:, None], normal, 0.0).reshape(*shape, 3).astype(np.float32),
            depth_m=np.where(solid, distance * forward, 0.0).reshape(shape).astype(np.float32),
            opacity=covered.reshape(shape),
        )


def depth_range(posed: posed_images.Posed) -> tuple[float, float]:
    """Distances that pictures tell apart: those from which the photos see their points, without outliers."""
    centre = centers_world(posed.cam_from_world)[posed.track_photo]
    near, far = np.percentile(np.linalg.norm(posed.points_world[posed.track_point] - centre, axis=1), [1, 99])
    return float(near), float(far)
