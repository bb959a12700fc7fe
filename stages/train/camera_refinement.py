"""Camera refinement: photometric bundle adjustment by the photoconsistency loss. Off where ``lr.cameras`` is 0.

The warp of a patch into another photo depends on both cameras (``photoconsistency.py``), so the loss has a gradient by
them: the tangent plane of the patch stays in the block, and the photos move. Corrections are in pixels: a unit of each
of the numbers moves the image by about a pixel. Adam takes equal steps in all of them, so they should be independent: a
camera turns about the point it looks at and not about itself, as a turn about itself and a shift look alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quoin.fields.device import mark_dynamic
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, rotation_angles_deg
from quoin.stages.train.data.photo_set import BlockFrame, PhotoSet
from quoin.stages.train.photoconsistency import Patches

RELATIVE_DEPTH_RANGE = 0.25  # typical distance of scene points from the median depth, as a share of it
IMAGE_RADIUS_FOCAL = 0.5  # typical distance of pixels from the middle of the photo, in focal lengths
PRIOR_WEIGHT_PER_PX2 = 0.002  # weight of the mean squared correction, beside 1 − NCC
REFINEMENT_START_SHARE = 0.25  # share of the training in which cameras stay as given
MAX_PLAUSIBLE_PX = 5.0  # half a patch: more is a wrong match, or a wrong initial pose

PosesAndIntrinsics = tuple[Float[Tensor, "k 3 4"], Float[Tensor, "k 4"]]  # cameras from local, intrinsics


class CameraRefinement(nn.Module):
    """Cameras of K photos: the initial ones, and corrections [K, 7] in pixels: turn (x, y, z), shift (x, y, z), zoom.

    Photos with the same initial intrinsics are of one camera and share their zoom. The principal point stays: it is
    hardly distinguishable from a turn.
    """

    initial_poses: Tensor  # [K, 3, 4] camera from local
    intrinsics: Tensor  # [K, 4] fx, fy, cx, cy in pixels
    depth: Tensor  # [K] of the point that a camera turns about
    unit_per_px: Tensor  # [K, 7] radians, lengths and log of the focal length per pixel of correction
    shared_camera_mean: Tensor  # [K, K] mean over photos of one camera

    def __init__(
        self,
        cam_from_local: Float[np.ndarray, "k 3 4"],
        intrinsics: Float[np.ndarray, "k 4"],
        depth: Float[np.ndarray, "k"],
    ) -> None:
        """``depth``: median of the points in a photo."""
        super().__init__()
        _, lens = np.unique(intrinsics, axis=0, return_inverse=True)
        same = lens.reshape(-1, 1) == lens.reshape(1, -1)
        px = 1.0 / intrinsics[:, :2].mean(axis=1)
        turn, roll, shift, near, zoom = (
            px / RELATIVE_DEPTH_RANGE,
            px / IMAGE_RADIUS_FOCAL,
            px * depth,
            px * depth / IMAGE_RADIUS_FOCAL,
            px / IMAGE_RADIUS_FOCAL,
        )
        tensors = {
            "initial_poses": cam_from_local,
            "intrinsics": intrinsics,
            "depth": depth,
            "unit_per_px": np.stack([turn, turn, roll, shift, shift, near, zoom], axis=1),
            "shared_camera_mean": same / same.sum(axis=1),
        }
        for name, values in tensors.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.correction = nn.Parameter(torch.zeros(len(depth), 7))

    def poses(self) -> PosesAndIntrinsics:
        """Refined camera from local and intrinsics: X' = R (X − p) + p + v with p = (0, 0, depth) and f' = f eᶻ.

        R is the turn w by Cayley's formula, a rotation for every w: with a = w/2,
        R = ((1 − |a|²) 1 + 2 a aᵀ + 2 [a]×) / (1 + |a|²).
        """
        by = self.correction * self.unit_per_px
        a, shift = 0.5 * by[:, :3], by[:, 3:6]
        x, y, z = a.unbind(1)
        none = torch.zeros_like(x)
        cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], dim=1).view(-1, 3, 3)
        square = (a * a).sum(dim=1)[:, None, None]
        eye = torch.eye(3, dtype=a.dtype, device=a.device)
        turn = ((1.0 - square) * eye + 2.0 * a[:, :, None] * a[:, None] + 2.0 * cross) / (1.0 + square)
        pivot = torch.stack([none, none, self.depth], dim=1)
        rotation = turn @ self.initial_poses[:, :, :3]
        moved = torch.einsum("kij,kj->ki", turn, self.initial_poses[:, :, 3] - pivot) + pivot + shift
        zoom = torch.exp(self.shared_camera_mean @ by[:, 6:])
        return (
            torch.cat([rotation, moved[:, :, None]], dim=2),
            torch.cat([self.intrinsics[:, :2] * zoom, self.intrinsics[:, 2:]], dim=1),
        )

    def forward(self) -> tuple[Float[Tensor, "k 3 4"], Float[Tensor, "k 3 3"], Float[Tensor, "k 3"]]:
        """Refined ``pixel_from_local``, ``local_from_pixel`` and ``centers`` of a PhotoSet."""
        pose, intrinsics = self.poses()
        rotation, focal, middle = pose[:, :, :3], intrinsics[:, :2], intrinsics[:, 2:]
        pixel_from_local = torch.cat(
            [focal[:, :, None] * pose[:, :2] + middle[:, :, None] * pose[:, 2:], pose[:, 2:]], 1
        )
        across = rotation[:, :2].transpose(1, 2) / focal[:, None]  # pixel to direction: Rᵀ K⁻¹
        ahead = rotation[:, 2] - (across @ middle[:, :, None])[:, :, 0]
        centers = -torch.einsum("kji,kj->ki", rotation, pose[:, :, 3])
        return pixel_from_local, torch.cat([across, ahead[:, :, None]], dim=2), centers

    def mark_dynamic(self) -> None:
        """Allow the number of photos to differ between blocks without compiling again."""
        for tensor in (self.initial_poses, self.intrinsics, self.depth, self.unit_per_px, self.correction):
            mark_dynamic(tensor, 0)
        mark_dynamic(self.shared_camera_mean, 0, 1)

    @torch.no_grad()
    def write_to(self, photos: PhotoSet) -> None:
        """Copy the refined cameras to the photos."""
        for buffer, values in zip(
            (photos.pixel_from_local, photos.local_from_pixel, photos.centers), self(), strict=True
        ):
            buffer.copy_(values)

    @torch.no_grad()
    def displacement_px(self) -> Float[Tensor, "k"]:
        """Displacement of the image by the refinement of each camera, in pixels (``mean_displacement_px``)."""
        return mean_displacement_px((self.initial_poses, self.intrinsics), self.poses(), self.depth)

    def prior_loss(self) -> Float[Tensor, ""]:
        """Mean squared correction, weighted: keeps photos with few patches at their initial cameras."""
        return PRIOR_WEIGHT_PER_PX2 * (self.correction * self.correction).sum(dim=1).mean()


def refine_patches(
    cameras: CameraRefinement, patches: Patches, photo: Int[Tensor, "n"]
) -> tuple[Patches, Float[Tensor, "n 3"]]:
    """The patches of ``photo`` as functions of the cameras; and the centers of those photos."""
    pixel_from_local, local_from_pixel, centers = cameras()
    n, s = patches.source.shape
    reference = _rows(torch.cat([local_from_pixel.flatten(1), centers], dim=1), photo)
    ray_from_pixel, center = reference[:, :9].view(n, 3, 3), reference[:, 9:]
    projection = _rows(pixel_from_local.flatten(1), patches.source.reshape(-1)).view(n, s, 3, 4)
    turn = projection[..., :3] @ ray_from_pixel[:, None]
    shift = torch.einsum("nsij,nj->nsi", projection[..., :3], center) + projection[..., 3]
    return patches._replace(ray_from_pixel=ray_from_pixel, turn=turn, shift=shift), center


def _rows(table: Float[Tensor, "k c"], row: Int[Tensor, "n"]) -> Float[Tensor, "n c"]:
    # a product instead of a look-up: its backward pass adds in the same order every time
    return (row[:, None] == torch.arange(len(table), device=row.device)).to(table) @ table


def mean_displacement_px(
    initial_poses: PosesAndIntrinsics, now: PosesAndIntrinsics, depth: Float[Tensor, "k"]
) -> Float[Tensor, "k"]:
    """Displacement of a photo's points between two cameras (poses and intrinsics), in pixels.

    Root mean square over five directions, the middle and four at IMAGE_RADIUS_FOCAL from it, each at the ``depth`` and
    RELATIVE_DEPTH_RANGE nearer and farther.
    """
    (pose, intrinsics), (now_pose, now_intrinsics) = initial_poses, now
    side = IMAGE_RADIUS_FOCAL * torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).to(depth)
    direction = torch.cat([side, torch.ones_like(side[:, :1])], dim=1)
    near_far = torch.tensor([1.0 - RELATIVE_DEPTH_RANGE, 1.0, 1.0 + RELATIVE_DEPTH_RANGE]).to(depth)
    points = depth[:, None, None, None] * near_far[:, None, None] * direction
    points = points.flatten(1, 2)  # in the camera as given
    initial_px = points[..., :2] / points[..., 2:] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]
    local = (points - pose[:, None, :, 3]) @ pose[:, :, :3]
    points = local @ now_pose[:, :, :3].transpose(1, 2) + now_pose[:, None, :, 3]
    refined_px = points[..., :2] / points[..., 2:] * now_intrinsics[:, None, :2] + now_intrinsics[:, None, 2:]
    return ((refined_px - initial_px) ** 2).sum(dim=2).mean(dim=1).sqrt()


# -- the table of refined cameras --------------------------------------------------------------------------------------


@torch.no_grad()
def refined_camera_rows(
    cameras: CameraRefinement, frame: BlockFrame, names: list[str], level: np.ndarray
) -> list[dict[str, Any]]:
    """A row per photo: its refined camera in the world, at full size, and the difference from the initial one.

    ``level`` [K]: pyramid level of each photo in the training.
    """
    pose, intrinsics = (tensor.double().cpu().numpy() for tensor in cameras.poses())
    initial_poses = frame.to_cam_from_world(cameras.initial_poses.double().cpu().numpy())
    now = frame.to_cam_from_world(pose)
    columns = {
        "photo": names,
        "cam_from_world": now.reshape(-1, 12).tolist(),
        "intrinsics": (intrinsics * 2.0 ** level[:, None]).tolist(),
        "displacement_px": cameras.displacement_px().tolist(),
        "rotation_deg": rotation_angles_deg(now[:, :, :3], initial_poses[:, :, :3]).tolist(),
        "translation_m": np.linalg.norm(centers_world(now) - centers_world(initial_poses), axis=1).tolist(),
        "focal_percent": (100.0 * (intrinsics[:, 0] / cameras.intrinsics[:, 0].cpu().numpy() - 1.0)).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_refined_cameras(path: Path, rows: list[dict[str, Any]], report: Reporter, name: str) -> None:
    """Write the table, log how far cameras moved, and warn of photos that moved implausibly far."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    parts = []
    for key, unit in (
        ("displacement_px", "px"),
        ("rotation_deg", "degrees"),
        ("translation_m", "m"),
        ("focal_percent", "% of focal length"),
    ):
        size = np.abs([row[key] for row in rows])
        parts.append(f"{np.median(size):.2g} {unit} (at most {size.max():.2g})")
    report.log(name, f"cameras moved by {', '.join(parts)} in the median")
    far = [row["photo"] for row in rows if row["displacement_px"] > MAX_PLAUSIBLE_PX]
    if far:
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        report.log(
            name,
            f"cameras moved by more than {MAX_PLAUSIBLE_PX:g} px, which is implausible; check their poses: "
            f"{', '.join(far[:5])}{more}",
            "warning",
        )
