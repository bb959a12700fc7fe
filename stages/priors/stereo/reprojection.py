"""Reprojection of other photos' planes into a photo."""

from __future__ import annotations

import torch

from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses, plane_normals, planes_through
from quoin.stages.priors.stereo.views import StereoView, ray_grid


def reproject_planes(view: StereoView, sources: list[tuple[StereoView, PlaneHypotheses]]) -> PlaneHypotheses:
    """Planes of ``sources`` at the pixels of ``view`` that their points project to, the nearest of several.

    w = 0 at pixels that none projects to.
    """
    h, w = view.gray.shape
    device = view.gray.device
    world_parts = [(torch.zeros(0, 3, device=device), torch.zeros(0, 3, device=device))]
    for source, planes in sources:
        is_valid = planes.w > 0
        camera = (ray_grid(source) / planes.w.clamp(min=1e-9))[:, is_valid].T
        normal = plane_normals(planes, source)[:, is_valid].T
        rotation, translation = source.cam_from_world[:, :3], source.cam_from_world[:, 3]
        world_parts.append(((camera - translation) @ rotation, normal @ rotation))
    points, normals = (torch.cat(parts) for parts in zip(*world_parts, strict=True))
    camera = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    k, z = view.intrinsics, camera[:, 2]
    column, row = ((camera[:, :2] / z.clamp(min=1e-6)[:, None]) * k[:2] + k[2:]).floor().unbind(1)
    inside = torch.nonzero((z > 1e-6) & (column >= 0) & (column < w) & (row >= 0) & (row < h))[:, 0]
    pixel = (row[inside] * w + column[inside]).long()
    nearest = torch.full((h * w,), torch.inf, device=device).scatter_reduce(0, pixel, z[inside], "amin")
    first = z[inside] == nearest[pixel]
    pixel, inside = pixel[first], inside[first]
    inverse, normal = torch.zeros(h * w, device=device), torch.zeros(3, h * w, device=device)
    # the point lies anywhere in the pixel: its plane is intersected with the ray through the pixel center
    normals_camera = normals[inside] @ view.cam_from_world[:, :3].T
    rays = ray_grid(view).reshape(3, -1)[:, pixel].T
    along = (normals_camera * rays).sum(dim=1)
    offset = (normals_camera * camera[inside]).sum(dim=1)
    inverse[pixel] = torch.where(offset.abs() > 1e-9, along / offset, torch.zeros_like(along)).clamp(min=0.0)
    normal[:, pixel] = normals_camera.T
    return planes_through(view, inverse.view(h, w), normal.view(3, h, w))
