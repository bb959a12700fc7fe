"""Photoconsistency: a patch on the surface's tangent plane looks alike in all photos that see it.

Normalized cross-correlation is invariant to gain and offset: photos may differ in exposure (Geo-NeuS sec. 3.3,
NeuralWarp).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quoin.stages.train.data.photo_set import PhotoSet, sample_bilinear

PATCH_RADIUS_PX = 5
MIN_PATCH_STD = 0.012  # standard deviation of a patch below which it is flat


class Patches(NamedTuple):
    """The patches of a step, N of P pixels, and the geometry of S other photos (sources) for each."""

    reference: Float[Tensor, "n p"]  # gray in [0, 1]
    usable: Bool[Tensor, "n"]  # inside the photo, and with contrast
    pixel: Float[Tensor, "n 3"]  # the middle, homogeneous
    offset: Float[Tensor, "2 p"]  # of the patch's pixels from it
    ray_from_pixel: Float[Tensor, "n 3 3"]
    turn: Float[Tensor, "n s 3 3"]  # K R of the other photo times ray_from_pixel
    shift: Float[Tensor, "n s 3"]  # homogeneous pixel of this photo's center in the other
    start: Int[Tensor, "n s"]
    size: Int[Tensor, "n s 2"]
    valid: Bool[Tensor, "n s"]
    scale: Float[Tensor, ""]  # pixels of the pyramid level per pixel
    source: Int[Tensor, "n s"]  # index of the other photo; 0 where it is not valid


def extract_patches(
    photos: PhotoSet, pixels: Int[Tensor, "n 3"], draw: Float[Tensor, "n m"], level: Int[Tensor, ""], n_sources: int
) -> Patches:
    """Patches around pixels (photo, x, y) at a pyramid level, with the ``n_sources`` sources of largest ``draw``."""
    photo = pixels[:, 0]
    step = torch.exp2(level.to(draw.dtype))
    side = torch.arange(-PATCH_RADIUS_PX, PATCH_RADIUS_PX + 1, device=pixels.device)
    offset = torch.stack(torch.meshgrid(side, side, indexing="xy")).reshape(2, -1).to(draw.dtype) * step
    middle = pixels[:, 1:].to(draw.dtype) + 0.5
    levels = level.expand(photo.shape)  # an index of its own: a scalar one would break the graph
    xy = (middle[:, None] + offset.T) / step
    reference, inside = sample_bilinear(photos.gray, photos.gray_offset[photo, levels], photos.sizes[photo, levels], xy)
    order = torch.where(photos.sources[photo] >= 0, draw, -1.0).topk(n_sources, dim=1).indices
    source = photos.sources[photo].gather(1, order)
    source_index, source_levels = source.clamp(min=0), level.expand(source.shape)
    ray_from_pixel, projection = photos.local_from_pixel[photo], photos.pixel_from_local[source_index]
    return Patches(
        reference,
        inside.all(dim=1) & (reference.std(dim=1) > MIN_PATCH_STD),
        torch.cat([middle, torch.ones_like(middle[:, :1])], dim=1),
        offset,
        ray_from_pixel,
        projection[..., :3] @ ray_from_pixel[:, None],
        torch.einsum("nsij,nj->nsi", projection[..., :3], photos.centers[photo]) + projection[..., 3],
        photos.gray_offset[source_index, source_levels],
        photos.sizes[source_index, source_levels],
        source >= 0,
        1.0 / step,
        source_index,
    )


def warp_patches(
    patches: Patches, gray: UInt8[Tensor, "_"], height: Float[Tensor, "n"], normal: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n s p"], Bool[Tensor, "n s"]]:
    """The patches in the other photos, warped by their planes; and True where a patch is inside the other photo.

    A plane is n·(X − c) = ``height`` with the photo's center c and its unit ``normal`` n towards the photo: the height
    is negative. The ray d of pixel x meets it at c + d·height / (n·d), which the other photo P = [M | m] shows at
    (P c)(n·d) + height M d up to scale: a homography of x (Hartley and Zisserman 2004, sec. 13.1).
    """
    n, s, _ = patches.shift.shape
    facing = torch.einsum("ni,nij->nj", normal, patches.ray_from_pixel)  # n·d is its product with the pixel
    warp = -(patches.shift[..., None] * facing[:, None, None] + height[:, None, None, None] * patches.turn)
    middle = (warp * patches.pixel[:, None, None]).sum(dim=3, keepdim=True)
    warped_px = warp[..., :2].reshape(-1, 2) @ patches.offset
    warped_px = warped_px.view(n, s, 3, -1) + middle
    towards = -(facing * patches.pixel).sum(dim=1, keepdim=True) - facing[:, :2] @ patches.offset
    ahead = (warped_px[:, :, 2] > 1e-4) & (towards > 1e-3)[:, None]
    xy = warped_px[:, :, :2] / torch.where(ahead, warped_px[:, :, 2], 1.0)[:, :, None] * patches.scale
    flat = xy.view(n * s, 2, -1).transpose(1, 2)
    values, inside = sample_bilinear(gray, patches.start.reshape(-1), patches.size.reshape(-1, 2), flat)
    return values.view(n, s, -1), (inside.view(n, s, -1) & ahead).all(dim=2) & patches.valid


def ncc(reference: Float[Tensor, "*#n pixels"], warped: Float[Tensor, "*#n pixels"]) -> Float[Tensor, "..."]:
    """Normalized cross-correlation over the last axis, in [-1, 1]; 0 where either is flat.

    Computed by moments about the reference's mean, in one pass over ``warped``.
    """
    mean = reference.mean(dim=-1, keepdim=True)
    a, b = reference - mean, warped - mean
    total = b.sum(dim=-1)
    spread = (b * b).sum(dim=-1) - total * total / b.shape[-1]
    return (a * b).sum(dim=-1) / torch.sqrt((a * a).sum(dim=-1) * spread.clamp(min=0.0) + 1e-6)


def best_views_loss(
    dissimilarity: Float[Tensor, "rays sources"], valid: Bool[Tensor, "rays sources"], n_best: int, reject: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean of 1 − NCC over each ray's ``n_best`` sources, without those above ``reject`` (occluded); the share used.

    The best views only, for robustness to occlusion (as COLMAP and Geo-NeuS).
    """
    best, _ = torch.where(valid, dissimilarity, torch.full_like(dissimilarity, 2.0)).topk(n_best, dim=1, largest=False)
    keep = (best.detach() < reject).to(best.dtype)
    return (best * keep).sum() / keep.sum().clamp(min=1.0), keep.mean()
