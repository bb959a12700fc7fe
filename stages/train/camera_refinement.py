"""Cameras that training corrects: photometric bundle adjustment by the patch term. Off where ``rates.cameras`` is 0.

How a patch is seen by another photo depends on both cameras (``patch.py``), so the patch loss has a slope by them:
the surface around the patch, a plane, stays where it is in the block, and the photos move. A correction is in pixels:
a unit of each of its numbers moves what the photo shows by about a pixel. Adam steps equally far in all of them, so
each should move the picture in a way of its own: a camera turns about what it looks at and not about itself, for a
turn about itself and a shift to the side look alike, and one would have to undo the other.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quoin.fields.compile import mark_dynamic
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.photoconsistency import Patches

RELATIVE_DEPTH_RANGE = (
    0.25  # how far from the middle depth things lie, as a share of it: what a turn about it is seen by
)
IMAGE_RADIUS_FOCAL = (
    0.5  # how far from the middle of the photo, in focal lengths: what roll, nearing and zoom are seen by
)
PRIOR_WEIGHT_PER_PX2 = 0.002  # what a square pixel of correction costs, in the mean over the photos, beside 1 − NCC
REFINEMENT_START_SHARE = 0.25  # share of the training in which cameras stay: the surface comes first
PosesAndIntrinsics = tuple[Float[Tensor, "k 3 4"], Float[Tensor, "k 4"]]  # cameras from local, intrinsics


class CameraRefinement(nn.Module):
    """Cameras of K photos: as given, and their correction [K, 7] in pixels: turn (x, y, z), shift (x, y, z), zoom.

    Photos that start with the same intrinsics are of one camera and share their zoom. The principal point stays: it
    can hardly be told from a turn.
    """

    initial_poses: Tensor  # [K, 3, 4] camera from local
    intrinsics: Tensor  # [K, 4] fx, fy, cx, cy in pixels
    depth: Tensor  # [K] of what a camera turns about
    unit_per_px: Tensor  # [K, 7] radians, lengths and log of the focal length in a pixel of correction
    shared_camera_mean: Tensor  # [K, K] takes the mean over photos of one camera

    def __init__(
        self,
        cam_from_local: Float[np.ndarray, "k 3 4"],
        intrinsics: Float[np.ndarray, "k 4"],
        depth: Float[np.ndarray, "k"],
    ) -> None:
        """``depth``: the middle one of what a photo shows."""
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
        """Camera from local and intrinsics, corrected: X' = R (X − p) + p + v with p = (0, 0, depth) and f' = f eᶻ.

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
        """``pixel_from_local``, ``local_from_pixel`` and ``centers`` of a PhotoSet, corrected."""
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
        """Let the number of photos differ from block to block without compiling anew."""
        for tensor in (self.initial_poses, self.intrinsics, self.depth, self.unit_per_px, self.correction):
            mark_dynamic(tensor, 0)
        mark_dynamic(self.shared_camera_mean, 0, 1)

    @torch.no_grad()
    def write_to(self, photos: PhotoSet) -> None:
        """Let the photos look through these cameras from now on."""
        for buffer, values in zip(
            (photos.pixel_from_local, photos.local_from_pixel, photos.centers), self(), strict=True
        ):
            buffer.copy_(values)

    @torch.no_grad()
    def displacement_px(self) -> Float[Tensor, "k"]:
        """How far each camera has moved what it shows, in pixels (``mean_displacement_px``)."""
        return mean_displacement_px((self.initial_poses, self.intrinsics), self.poses(), self.depth)

    def prior_loss(self) -> Float[Tensor, ""]:
        """A pull towards the given cameras; it decides for photos that few patches show."""
        return PRIOR_WEIGHT_PER_PX2 * (self.correction * self.correction).sum(dim=1).mean()


def refine_patches(
    cameras: CameraRefinement, patches: Patches, photo: Int[Tensor, "n"]
) -> tuple[Patches, Float[Tensor, "n 3"]]:
    """The patches of ``photo`` as functions of the cameras; and the centres of those photos."""
    pixel_from_local, local_from_pixel, centers = cameras()
    n, s = patches.source.shape
    reference = _rows(torch.cat([local_from_pixel.flatten(1), centers], dim=1), photo)
    ray_from_pixel, center = reference[:, :9].view(n, 3, 3), reference[:, 9:]
    projection = _rows(pixel_from_local.flatten(1), patches.source.reshape(-1)).view(n, s, 3, 4)
    turn = projection[..., :3] @ ray_from_pixel[:, None]
    shift = torch.einsum("nsij,nj->nsi", projection[..., :3], center) + projection[..., 3]
    return patches._replace(ray_from_pixel=ray_from_pixel, turn=turn, shift=shift), center


def _rows(table: Float[Tensor, "k c"], row: Int[Tensor, "n"]) -> Float[Tensor, "n c"]:
    # a product, not a reading: its backward pass adds up in the same order every time
    return (row[:, None] == torch.arange(len(table), device=row.device)).to(table) @ table


def mean_displacement_px(
    initial_poses: PosesAndIntrinsics, now: PosesAndIntrinsics, depth: Float[Tensor, "k"]
) -> Float[Tensor, "k"]:
    """How far what a photo shows moves between two cameras (poses and intrinsics), in pixels.

    Root mean square over five directions, the middle and four to the sides by IMAGE_RADIUS_FOCAL, each at the ``depth``
    and RELATIVE_DEPTH_RANGE nearer and farther.
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
