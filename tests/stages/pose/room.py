"""A corner of a room with known cameras: three textured planes, rendered in numpy, saved with a photo table."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera

CAMERA = Camera("SIMPLE_RADIAL", 400, 300, (380.0, 200.0, 150.0, -0.06))


@functools.cache
def texture(seed: int, size: int = 512) -> np.ndarray:
    """Blobs of many sizes and colours, float [size, size, 3] in 0..255."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size, 3))
    for cells in (8, 32, 96, 256):
        noise = rng.uniform(-1, 1, (cells, cells, 3))
        parts = [
            np.asarray(Image.fromarray(noise[..., c].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        out += np.stack(parts, axis=-1)
    return np.clip(128 + 60 * out, 0, 255)


@functools.cache
def _directions(camera: Camera, factor: int) -> np.ndarray:
    xs = (np.arange(camera.width * factor) + 0.5) / factor
    ys = (np.arange(camera.height * factor) + 0.5) / factor
    ideal = camera.cam_from_img(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
    return np.column_stack([ideal, np.ones(len(ideal))])


def render(
    cam_from_world: np.ndarray, camera: Camera = CAMERA, seed: int = 0, factor: int = 2, shift: float = 0.0
) -> np.ndarray:
    """The corner seen by a camera, uint8 [H, W, 3]; planes x = 0, y = 0, z = 0, each textured over 4 x 4 units."""
    directions = _directions(camera, factor) @ cam_from_world[:, :3]
    origin = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    best, color = np.full(len(directions), np.inf), np.zeros((len(directions), 3))
    for axis in range(3):
        depth = -origin[axis] / np.where(np.abs(directions[:, axis]) < 1e-9, 1e-9, directions[:, axis])
        hit = origin + directions * depth[:, None]
        uv = np.delete(hit, axis, axis=1)
        mine = (depth > 0) & (depth < best) & (uv > 0).all(axis=1) & (uv < 4).all(axis=1)
        image = texture(100 * seed + axis)
        at = np.clip(uv[mine] / 4 * 512 - 0.5, 0, 510.999)
        low, part = at.astype(int), at - at.astype(int)
        value = np.zeros((len(at), 3))
        for du in (0, 1):
            for dv in (0, 1):
                weight = np.abs(1 - du - part[:, 0]) * np.abs(1 - dv - part[:, 1])
                value += weight[:, None] * image[low[:, 0] + du, low[:, 1] + dv]
        color[mine], best[mine] = value, depth[mine]
    shape = (camera.height, factor, camera.width, factor, 3)
    return np.clip(color.reshape(shape).mean(axis=(1, 3)) + shift, 0, 255).astype(np.uint8)


def cameras_around(count: int) -> np.ndarray:
    """cam_from_world [count, 3, 4] on an arc before the corner, held level, at changing heights."""
    angles = np.radians(np.linspace(20, 70, count))
    heights = 1.2 + 0.9 * (np.arange(count) % 3)
    centers = np.stack([4.2 * np.cos(angles), 4.2 * np.sin(angles), heights], axis=1)
    return np.array([look_at(center, np.array([0.9, 0.9, 0.8])) for center in centers])


def store_turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels as a camera stores them that writes ``orientation`` into EXIF (inverse of turning upright)."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[::-1],
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: pixels.swapaxes(0, 1)[:, ::-1],
    }[orientation]


def save(path: Path, pixels: np.ndarray, orientation: int = 1) -> None:
    """A photo with its EXIF orientation."""
    image = Image.fromarray(np.ascontiguousarray(store_turned(pixels, orientation)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=97, exif=exif)


class _Ingested(StageResult):
    n: int


def ingested(out: Path, photos: list[dict], seed: int = 1) -> Run:
    """A run whose ingest is done, with these rows of the photo table (path, and whatever differs from the default)."""
    folder = Path(photos[0]["path"]).parent
    run = Run.create(out, photos=folder, settings={}, seed=seed)
    common = {"width": 400, "height": 300, "group": 0}
    names = [Path(photo["path"]).name for photo in photos]
    write_photo_table(
        run,
        [
            PhotoRow(**{**common, "photo_id": index, "name": name, "content_hash": name, **photo})
            for index, (name, photo) in enumerate(zip(names, photos, strict=True))
        ],
    )
    run.commit("ingest", "k", _Ingested(n=len(photos)), 0.0)
    return run
