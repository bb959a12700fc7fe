"""The photos of one block on the device: uint8 pixels in flat buffers, rays made on the fly, nothing stored per ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE = 16  # pixels; rays are drawn by tiles, and whole tiles are held out
GRAY_LEVELS = 3


@dataclass(frozen=True)
class BlockFrame:
    """The block's own frame: ``local = (world - centre_world) / radius_m``; its outer box is [-half, half]."""

    centre_world: np.ndarray
    radius_m: float
    half: np.ndarray

    @classmethod
    def around(cls, low_world: np.ndarray, high_world: np.ndarray) -> BlockFrame:
        centre, extent = (low_world + high_world) / 2, (high_world - low_world) / 2
        radius = float(extent.max())
        return cls(centre, radius, extent / radius)

    def to_local(self, points_world: np.ndarray) -> np.ndarray:
        return (points_world - self.centre_world) / self.radius_m

    def camera_from_local(self, cam_from_world: np.ndarray) -> np.ndarray:
        """Poses [n, 3, 4] of the same cameras, in units of the block's radius."""
        rotation = cam_from_world[:, :, :3]
        shift = (rotation @ self.centre_world + cam_from_world[:, :, 3]) / self.radius_m
        return np.concatenate([rotation, shift[:, :, None]], axis=2)


class PhotoSet(torch.nn.Module):
    """Pixels, cameras and sampling weights of a block's photos (K of them, of any sizes) as tensors on one device."""

    rgb: Tensor  # uint8 [all level-0 pixels, 3]
    gray: Tensor  # uint8 [all pixels of all levels]
    rgb_offset: Tensor  # int64 [K]
    gray_offset: Tensor  # int64 [K, levels]
    sizes: Tensor  # int64 [K, levels, 2] width, height
    rotation: Tensor  # [K, 3, 3] camera from local
    translation: Tensor  # [K, 3]
    intrinsics: Tensor  # [K, 4]
    centres: Tensor  # [K, 3]
    sources: Tensor  # int64 [K, S] photos to compare with, -1 where fewer
    tiles: Tensor  # int64 [T, 3] photo, x0, y0 of tiles that are trained on
    tile_cdf: Tensor  # float64 [T]
    held_out: Tensor  # int64 [H, 3] photo, x, y of pixels never trained on
    mask: Tensor  # bool [all level-0 pixels]

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
    ) -> None:
        """``tile_weights`` [rows, columns] per photo: how much its tiles show of the block; 0 is never drawn."""
        super().__init__()
        pyramid = [_gray_pyramid(rgb) for rgb in photos]
        sizes = np.array([[level.shape[::-1] for level in levels] for levels in pyramid])
        counts = sizes.prod(axis=2)
        rng = np.random.default_rng(seed)
        tiles, weights, held = _tiles(masks, tile_weights, held_out_share, rng)
        rotation = torch.tensor(cam_from_local[:, :, :3], dtype=torch.float32)
        translation = torch.tensor(cam_from_local[:, :, 3], dtype=torch.float32)
        tensors = {
            "rgb": torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in photos])),
            "gray": torch.from_numpy(np.concatenate([level.ravel() for levels in pyramid for level in levels])),
            "mask": torch.from_numpy(np.concatenate([m.ravel() for m in masks]) > 127),
            "rgb_offset": torch.from_numpy(np.concatenate([[0], np.cumsum(counts[:, 0])[:-1]])),
            "gray_offset": torch.from_numpy(
                np.concatenate([[0], np.cumsum(counts.ravel())[:-1]]).reshape(counts.shape)
            ),
            "sizes": torch.from_numpy(sizes.astype(np.int64)),
            "rotation": rotation,
            "translation": translation,
            "intrinsics": torch.tensor(intrinsics, dtype=torch.float32),
            "centres": -torch.einsum("kji,kj->ki", rotation, translation),
            "sources": torch.from_numpy(sources.astype(np.int64)),
            "tiles": torch.from_numpy(tiles),
            "tile_cdf": torch.cumsum(torch.from_numpy(weights), 0) / weights.sum(),
            "held_out": torch.from_numpy(held),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return len(self.rotation)

    def draw(self, n_rays: int, generator: torch.Generator) -> Int[Tensor, "rays 3"]:
        """Random pixels (photo, x, y) by tile weight."""
        device = self.tiles.device
        u = torch.rand(n_rays, 3, generator=generator).to(device)
        tile = torch.searchsorted(self.tile_cdf, u[:, 0].double()).clamp(max=len(self.tiles) - 1)
        photo, x0, y0 = self.tiles[tile].unbind(1)
        width, height = self.sizes[photo, 0].unbind(1)
        x = torch.minimum(x0 + (u[:, 1] * TILE).long(), width - 1)
        y = torch.minimum(y0 + (u[:, 2] * TILE).long(), height - 1)
        return torch.stack([photo, x, y], dim=1)

    def rays(self, photo: Tensor, xy: Float[Tensor, "*n 2"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "*n 3"]]:
        """Origins [n, 3] and directions (of camera depth 1, not normalised) through pixel positions, local frame."""
        extra = xy.dim() - 2
        shape = (len(photo), *([1] * extra))
        k = self.intrinsics[photo]
        x = (xy[..., 0] - k[:, 2].view(shape)) / k[:, 0].view(shape)
        y = (xy[..., 1] - k[:, 3].view(shape)) / k[:, 1].view(shape)
        camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        return self.centres[photo], torch.einsum("n...c,ncw->n...w", camera, self.rotation[photo])

    def colours(self, pixels: Int[Tensor, "rays 3"]) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays"]]:
        """Colours in [0, 1] and mask weights of whole pixels."""
        photo, x, y = pixels.unbind(1)
        index = self.rgb_offset[photo] + y * self.sizes[photo, 0, 0] + x
        return self.rgb[index].float() / 255.0, self.mask[index].float()

    def project(
        self, photo: Int[Tensor, "n"], points: Float[Tensor, "n pixels 3"]
    ) -> tuple[Float[Tensor, "n pixels 2"], Float[Tensor, "n pixels"]]:
        """Pixel positions and depths of local points in photos."""
        camera = torch.einsum("ncw,npw->npc", self.rotation[photo], points) + self.translation[photo][:, None]
        depth = camera[..., 2]
        k = self.intrinsics[photo][:, None]
        return camera[..., :2] / depth.clamp(min=1e-3)[..., None] * k[..., :2] + k[..., 2:], depth

    def gray_at(
        self, photo: Int[Tensor, "n"], xy: Float[Tensor, "n pixels 2"], level: Int[Tensor, ""]
    ) -> tuple[Float[Tensor, "n pixels"], Tensor]:
        """Gray values in [0, 1] at level-0 positions, bilinear at a pyramid level; whether they are in the photo."""
        levels = level.expand(photo.shape)  # an index of its own: a scalar one would break the graph
        size = self.sizes[photo, levels][:, None]
        scaled = xy * torch.exp2(-level.to(xy.dtype)) - 0.5
        inside = ((scaled >= 0) & (scaled <= size - 1)).all(dim=-1)
        scaled = torch.minimum(scaled.clamp(min=0.0), (size - 1).to(xy.dtype) - 1e-3)
        cell = scaled.detach().floor()
        tx, ty = (scaled - cell).unbind(-1)
        corner = cell.long()
        width = size[..., 0]
        start = self.gray_offset[photo, levels][:, None] + corner[..., 1] * width + corner[..., 0]
        a, b = self.gray[start].to(xy.dtype), self.gray[start + 1].to(xy.dtype)
        c, d = self.gray[start + width].to(xy.dtype), self.gray[start + width + 1].to(xy.dtype)
        return torch.lerp(torch.lerp(a, b, tx), torch.lerp(c, d, tx), ty) / 255.0, inside


def _gray_pyramid(rgb: np.ndarray) -> list[np.ndarray]:
    gray = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    levels = [gray]
    for _ in range(GRAY_LEVELS - 1):
        h, w = (levels[-1].shape[0] // 2) * 2, (levels[-1].shape[1] // 2) * 2
        levels.append(levels[-1][:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)))
    return [np.round(level).astype(np.uint8) for level in levels]


def _tiles(
    masks: list[np.ndarray], tile_weights: list[np.ndarray], held_out_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles to train on [T, 3], their weights [T], and held-out pixels [H, 3]: whole tiles out of the useful ones."""
    tiles, weights, held = [], [], []
    for photo, (mask, weight) in enumerate(zip(masks, tile_weights, strict=True)):
        for row, column in np.argwhere(weight > 0):
            x0, y0 = int(column) * TILE, int(row) * TILE
            open_share = (mask[y0 : y0 + TILE, x0 : x0 + TILE] > 127).mean()
            if open_share == 0:
                continue
            if weight[row, column] >= 1.0 and open_share == 1.0 and rng.random() < held_out_share:
                xs, ys = rng.integers(0, mask[y0 : y0 + TILE, x0 : x0 + TILE].shape[::-1], (8, 2)).T
                held.append(np.stack([np.full(8, photo), xs + x0, ys + y0], axis=1))
                continue
            tiles.append((photo, x0, y0))
            weights.append(float(weight[row, column]) * open_share)
    empty = np.zeros((0, 3), np.int64)
    return (
        np.array(tiles, np.int64).reshape(-1, 3),
        np.array(weights),
        np.concatenate(held).astype(np.int64) if held else empty,
    )
