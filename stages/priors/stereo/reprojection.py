"""What other photos believe, as planes of this photo."""

from __future__ import annotations

import torch

from quoin.stages.priors.stereo.hypotheses import Planes, plane_normals, planes_through
from quoin.stages.priors.stereo.views import View, ray_grid


def carried(view: View, others: list[tuple[View, Planes]]) -> Planes:
    """The planes of other photos at the pixels their points fall into, the nearest where several do; w = 0 elsewhere.

    Planes with w = 0 are left out.
    """
    h, w = view.gray.shape
    device = view.gray.device
    found = [(torch.zeros(0, 3, device=device), torch.zeros(0, 3, device=device))]
    for other, planes in others:
        known = planes.w > 0
        camera = (ray_grid(other) / planes.w.clamp(min=1e-9))[:, known].T
        normal = plane_normals(planes, other)[:, known].T
        rotation, translation = other.cam_from_world[:, :3], other.cam_from_world[:, 3]
        found.append(((camera - translation) @ rotation, normal @ rotation))
    points, normals = (torch.cat(parts) for parts in zip(*found, strict=True))
    camera = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    k, z = view.intrinsics, camera[:, 2]
    column, row = ((camera[:, :2] / z.clamp(min=1e-6)[:, None]) * k[:2] + k[2:]).floor().unbind(1)
    inside = torch.nonzero((z > 1e-6) & (column >= 0) & (column < w) & (row >= 0) & (row < h))[:, 0]
    pixel = (row[inside] * w + column[inside]).long()
    nearest = torch.full((h * w,), torch.inf, device=device).scatter_reduce(0, pixel, z[inside], "amin")
    first = z[inside] == nearest[pixel]
    pixel, inside = pixel[first], inside[first]
    inverse, normal = torch.zeros(h * w, device=device), torch.zeros(3, h * w, device=device)
    # the point lies somewhere in the pixel: its plane is carried to the pixel's centre
    turned = normals[inside] @ view.cam_from_world[:, :3].T
    rays = ray_grid(view).reshape(3, -1)[:, pixel].T
    along = (turned * rays).sum(dim=1)
    offset = (turned * camera[inside]).sum(dim=1)
    inverse[pixel] = torch.where(offset.abs() > 1e-9, along / offset, torch.zeros_like(along)).clamp(min=0.0)
    normal[:, pixel] = turned.T
    return planes_through(view, inverse.view(h, w), normal.view(3, h, w))
