"""Previews of the training: a photo, its rendering by the model, and the normals of the surface."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quoin.pipeline.storage.disk import write_atomic
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.trainer import Trainer

PREVIEW_FOLDER = "preview"  # beside a block's checkpoint; holds <step>.jpg
MAX_WIDTH_PX, MIN_WIDTH_PX = 160, 40
BACKGROUND_GRAY = 1.0  # gray level of normals where a ray meets no surface


def preview_width_px(n_rays: float, aspect: float) -> int:
    """Width in pixels of an image of about ``n_rays``, within bounds; ``aspect`` is height over width."""
    return int(min(MAX_WIDTH_PX, max(MIN_WIDTH_PX, (n_rays / max(aspect, 1e-3)) ** 0.5)))


def best_photo(photos: PhotoSet) -> int:
    """Index of the photo that shows most of the block: the one with the largest sum of tile weights."""
    weight = photos.tile_cdf.diff(prepend=photos.tile_cdf.new_zeros(1))
    total = torch.zeros(len(photos.sizes), dtype=weight.dtype, device=weight.device)
    return int(total.index_add(0, photos.tiles[:, 0], weight).argmax())


def preview_pixels(photos: PhotoSet, photo: int, width: int) -> tuple[Int[Tensor, "n 3"], int]:
    """Pixels (photo, x, y) of a regular grid over a photo, ``width`` across, row by row; and the number of rows."""
    full_width, full_height = (int(n) for n in photos.sizes[photo, 0])
    width = min(width, full_width)
    height = max(1, round(width * full_height / full_width))
    x = ((torch.arange(width) + 0.5) * full_width / width).long()
    y = ((torch.arange(height) + 0.5) * full_height / height).long().clamp(max=full_height - 1)
    y, x = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([torch.full_like(x, photo), x, y], dim=-1).reshape(-1, 3)
    return pixels.to(photos.sizes.device), height


def normal_colors(
    normal: Float[Tensor, "n 3"], has_surface: Bool[Tensor, "n"], local_from_pixel: Float[Tensor, "3 3"]
) -> Float[Tensor, "n 3"]:
    """Normals as colors: right, up and towards the camera as red, green and blue, 0.5 + 0.5·n.

    ``local_from_pixel`` = Rᵀ K⁻¹: its first two columns point right and down in the photo.
    """
    right, down = torch.nn.functional.normalize(local_from_pixel[:, :2], dim=0).unbind(1)
    axes = torch.stack([right, -down, -torch.linalg.cross(right, down)], dim=1)
    return torch.where(has_surface[:, None], 0.5 + 0.5 * (normal @ axes), BACKGROUND_GRAY)


@torch.no_grad()
def render_preview(trainer: Trainer, n_rays: float) -> UInt8[np.ndarray, "h w 3"]:
    """Photo, rendering and normals of ``best_photo`` side by side, each of about ``n_rays`` pixels within bounds."""
    photos = trainer.photos
    photo = best_photo(photos)
    width, height = photos.sizes[photo, 0].tolist()
    pixels, rows = preview_pixels(photos, photo, preview_width_px(n_rays, height / width))
    parts = []
    for part in pixels.split(trainer.batch_size.rays):
        out, hits = trainer.render(part)
        normal = torch.nn.functional.normalize(out.normal, dim=1, eps=1e-6)
        has_surface = (out.opacity > 0.5) & hits
        normals = normal_colors(normal, has_surface, photos.local_from_pixel[photo])
        parts.append(torch.cat([photos.colors(part)[0], out.color.clamp(0.0, 1.0), normals], dim=1))
    image = torch.cat(parts).view(rows, -1, 3, 3).permute(0, 2, 1, 3).reshape(rows, -1, 3)
    return (image * 255.0).round().to(torch.uint8).cpu().numpy()


def save_preview_image(folder: Path, step: int, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a preview and return its path."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    path = folder / f"{step:06d}.jpg"
    write_atomic(path, buffer.getvalue())
    return path


def delete_previews_after(folder: Path, step: int) -> None:
    """Delete previews of later steps, left by an attempt that is not continued."""
    for path in folder.glob("*.jpg"):
        if path.stem.isdigit() and int(path.stem) > step:
            path.unlink()
