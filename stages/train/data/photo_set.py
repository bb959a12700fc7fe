"""The photos of one block on the device: uint8 pixels in flat buffers; rays are computed when drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.imaging.filters import rgb_to_gray

TILE_SIZE_PX = 16  # rays are drawn by tiles, and whole tiles are held out
N_GRAY_LEVELS = 2  # full and half size: patches begin at half


@dataclass(frozen=True)
class BlockFrame:
    """The block's frame: ``local = (world - center_world) / radius_m``; its outer box is ± ``half_extent``."""

    center_world: np.ndarray
    radius_m: float
    half_extent: np.ndarray

    @classmethod
    def from_bounds(cls, low_world: np.ndarray, high_world: np.ndarray) -> BlockFrame:
        center, extent = (low_world + high_world) / 2, (high_world - low_world) / 2
        radius = float(extent.max())
        if not (np.isfinite(extent).all() and extent.min() > 0):
            raise QuoinError(
                f"A block of {', '.join(f'{2 * e:g}' for e in extent)} m has no volume to train in",
                hint="check the poses, or set partition.voxel_size_m",
            )
        return cls(center, radius, extent / radius)

    def to_local(self, points_world: np.ndarray) -> np.ndarray:
        """Points in the block's frame."""
        return (points_world - self.center_world) / self.radius_m

    def to_cam_from_local(self, cam_from_world: np.ndarray) -> np.ndarray:
        """Poses [n, 3, 4] of the same cameras, in units of the block's radius."""
        rotation = cam_from_world[:, :, :3]
        shift = (rotation @ self.center_world + cam_from_world[:, :, 3]) / self.radius_m
        return np.concatenate([rotation, shift[:, :, None]], axis=2)

    def to_cam_from_world(self, cam_from_local: np.ndarray) -> np.ndarray:
        """Poses [n, 3, 4] in meters of cameras given in the block's frame."""
        rotation = cam_from_local[:, :, :3]
        shift = cam_from_local[:, :, 3] * self.radius_m - rotation @ self.center_world
        return np.concatenate([rotation, shift[:, :, None]], axis=2)


class PhotoSet(torch.nn.Module):
    """Pixels, cameras and sampling weights of a block's photos (K of them, of any sizes) as tensors on one device."""

    rgb: Tensor  # uint8 [all level-0 pixels, 3]
    gray: Tensor  # uint8 [all pixels of all levels]
    rgb_offset: Tensor  # int64 [K]
    gray_offset: Tensor  # int64 [K, levels]
    sizes: Tensor  # int64 [K, levels, 2] width, height
    pixel_from_local: Tensor  # [K, 3, 4] homogeneous pixels
    local_from_pixel: Tensor  # [K, 3, 3] directions of camera depth 1
    centers: Tensor  # [K, 3]
    sources: Tensor  # int64 [K, S] photos to compare with, -1 where fewer
    tiles: Tensor  # int64 [T, 3] photo, x0, y0 of tiles that are trained on
    tile_cdf: Tensor  # float64 [T]
    held_out: Tensor  # int64 [H, 3] photo, x, y of pixels never trained on
    mask: Tensor  # bool [all level-0 pixels]
    labels: Tensor  # uint8 [all level-0 pixels]

    def __init__(
        self,
        photos: list[np.ndarray],
        masks: list[np.ndarray],
        cam_from_local: np.ndarray,
        intrinsics: np.ndarray,
        tile_weights: list[np.ndarray],
        sources: np.ndarray,
        *,
        held_out_share: float,
        seed: int,
        labels: list[np.ndarray] | None = None,
    ) -> None:
        """``tile_weights`` [rows, columns] per photo: how often its tiles are drawn; 0: never.

        ``labels`` (``pipeline.imaging.labels``) of the pixels, where there are any.
        """
        super().__init__()
        pyramid = [_gray_pyramid(rgb) for rgb in photos]
        sizes = np.array([[level.shape[::-1] for level in levels] for levels in pyramid])
        counts = sizes.prod(axis=2)
        rng = np.random.default_rng(seed)
        tiles, weights, held_out = _tiles(masks, tile_weights, held_out_share, rng)
        camera = np.zeros((len(photos), 3, 3))
        camera[:, [0, 1, 0, 1], [0, 1, 2, 2]] = intrinsics
        camera[:, 2, 2] = 1.0
        rotation = cam_from_local[:, :, :3]
        tensors = {
            "rgb": torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in photos])),
            "gray": torch.from_numpy(np.concatenate([level.ravel() for levels in pyramid for level in levels])),
            "mask": torch.from_numpy(np.concatenate([m.ravel() for m in masks]) > 127),
            "labels": torch.from_numpy(
                np.concatenate([s.ravel() for s in labels or [np.zeros_like(m, np.uint8) for m in masks]])
            ),
            "rgb_offset": torch.from_numpy(np.concatenate([[0], np.cumsum(counts[:, 0])[:-1]])),
            "gray_offset": torch.from_numpy(
                np.concatenate([[0], np.cumsum(counts.ravel())[:-1]]).reshape(counts.shape)
            ),
            "sizes": torch.from_numpy(sizes.astype(np.int64)),
            "pixel_from_local": torch.tensor(camera @ cam_from_local, dtype=torch.float32),
            "local_from_pixel": torch.tensor(np.linalg.inv(camera @ rotation), dtype=torch.float32),
            "centers": torch.tensor(centers_world(cam_from_local), dtype=torch.float32),
            "sources": torch.from_numpy(sources.astype(np.int64)),
            "tiles": torch.from_numpy(tiles),
            "tile_cdf": torch.cumsum(torch.from_numpy(weights), 0) / weights.sum(),
            "held_out": torch.from_numpy(held_out),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def draw_pixels(self, n_rays: int, generator: torch.Generator) -> Int[Tensor, "rays 3"]:
        """Random pixels (photo, x, y), tiles drawn by weight."""
        device = self.tiles.device
        u = torch.rand(n_rays, 3, generator=generator).to(device)
        tile = torch.searchsorted(self.tile_cdf, u[:, 0].double()).clamp(max=len(self.tiles) - 1)
        photo, x0, y0 = self.tiles[tile].unbind(1)
        width, height = self.sizes[photo, 0].unbind(1)
        x = torch.minimum(x0 + (u[:, 1] * TILE_SIZE_PX).long(), width - 1)
        y = torch.minimum(y0 + (u[:, 2] * TILE_SIZE_PX).long(), height - 1)
        return torch.stack([photo, x, y], dim=1)

    def rays(
        self, photo: Int[Tensor, "n"], xy: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and directions (of camera depth 1, not normalized) through pixel positions, local frame."""
        pixel = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)
        return self.centers[photo], torch.einsum("nwp,np->nw", self.local_from_pixel[photo], pixel)

    def colors(self, pixels: Int[Tensor, "rays 3"]) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays"]]:
        """Colors in [0, 1] and mask weights of pixels."""
        index = self._index(pixels)
        return self.rgb[index].float() / 255.0, self.mask[index].float()

    def labels_at(self, pixels: Int[Tensor, "rays 3"], *wanted: int) -> Float[Tensor, "rays wanted"]:
        """1 where pixels have the ``wanted`` label, else 0."""
        pixel_labels = self.labels[self._index(pixels)]
        return torch.stack([pixel_labels == label for label in wanted], dim=1).float()

    def _index(self, pixels: Int[Tensor, "rays 3"]) -> Int[Tensor, "rays"]:
        photo, x, y = pixels.unbind(1)
        return self.rgb_offset[photo] + y * self.sizes[photo, 0, 0] + x


def sample_bilinear(
    gray: UInt8[Tensor, "_"],
    start: Int[Tensor, "n"],
    size: Int[Tensor, "n 2"],
    xy: Float[Tensor, "n pixels 2"],
) -> tuple[Float[Tensor, "n pixels"], Bool[Tensor, "n pixels"]]:
    """Values in [0, 1] at positions in images of ``size`` (width, height) that begin at ``start``; True where inside.

    Positions are in pixels, (0.5, 0.5) is the middle of the first. Differentiable by position.
    """
    limit = (size - 1).to(xy.dtype)[:, None]
    scaled = xy - 0.5
    inside = ((scaled >= 0) & (scaled <= limit)).all(dim=-1)
    scaled = torch.minimum(scaled.clamp(min=0.0), limit - 1e-3)
    cell = scaled.detach().floor()
    tx, ty = (scaled - cell).unbind(-1)
    column, row = cell.to(torch.int32).unbind(-1)
    width = size[:, :1].to(torch.int32)
    at = start[:, None] + row * width + column
    corner = gray[torch.stack([at, at + 1, at + width, at + width + 1])].to(xy.dtype)
    weight = torch.stack([(1.0 - tx) * (1.0 - ty), tx * (1.0 - ty), (1.0 - tx) * ty, tx * ty])
    return (corner * weight).sum(dim=0) / 255.0, inside


def _gray_pyramid(rgb: np.ndarray) -> list[np.ndarray]:
    gray = rgb_to_gray(rgb)
    levels = [gray]
    for _ in range(N_GRAY_LEVELS - 1):
        h, w = (levels[-1].shape[0] // 2) * 2, (levels[-1].shape[1] // 2) * 2
        levels.append(levels[-1][:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)))
    return [np.round(level).astype(np.uint8) for level in levels]


def _tiles(
    masks: list[np.ndarray], tile_weights: list[np.ndarray], held_out_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles to train on [T, 3], their weights [T], and held-out pixels [H, 3] of whole tiles."""
    tiles, weights, held_out = [], [], []
    for photo, (mask, weight) in enumerate(zip(masks, tile_weights, strict=True)):
        for row, column in np.argwhere(weight > 0):
            x0, y0 = int(column) * TILE_SIZE_PX, int(row) * TILE_SIZE_PX
            visible_share = (mask[y0 : y0 + TILE_SIZE_PX, x0 : x0 + TILE_SIZE_PX] > 127).mean()
            if visible_share == 0:
                continue
            if weight[row, column] >= 1.0 and visible_share == 1.0 and rng.random() < held_out_share:
                xs, ys = rng.integers(0, mask[y0 : y0 + TILE_SIZE_PX, x0 : x0 + TILE_SIZE_PX].shape[::-1], (8, 2)).T
                held_out.append(np.stack([np.full(8, photo), xs + x0, ys + y0], axis=1))
                continue
            tiles.append((photo, x0, y0))
            weights.append(float(weight[row, column]) * visible_share)
    empty = np.zeros((0, 3), np.int64)
    return (
        np.array(tiles, np.int64).reshape(-1, 3),
        np.array(weights),
        np.concatenate(held_out).astype(np.int64) if held_out else empty,
    )
