"""Camera paths of films: an orbit around what the photos look at, or a path through the photos' cameras."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.cameras import centers_world, look_at

Array = np.ndarray

MAX_ORBIT_GAP_RAD = np.pi / 2  # of directions without photos; wider gaps are not crossed
MAX_TWO_OPT_ROUNDS = 30  # improvements of the tour, each over all pairs
MAX_WAYPOINTS = 400  # cameras on a path; of more photos, every n-th


def orbit_path(
    cam_from_world: Float[Array, "n 3 4"], region: Float[Array, "2 3"], n_frames: int
) -> Float[Array, "n_frames 3 4"]:
    """A circle around what the photos look at, at their median distance and height, from the first photo's direction.

    Where no photos were taken over more than 90°, the camera goes back and forth over the arc that they cover.
    """
    centers = centers_world(cam_from_world)
    target = np.clip(focus_point(centers, cam_from_world[:, 2, :3]), region[0], region[1])
    offset = centers - target
    radius, height = float(np.median(np.linalg.norm(offset[:, :2], axis=1))), float(np.median(offset[:, 2]))
    azimuth = np.arctan2(offset[:, 1], offset[:, 0])
    sorted_azimuth = np.sort(azimuth)
    gaps = np.diff(sorted_azimuth, append=sorted_azimuth[0] + 2 * np.pi)
    widest = int(gaps.argmax())
    share = np.arange(n_frames) / n_frames
    if gaps[widest] > MAX_ORBIT_GAP_RAD:
        begin, arc = sorted_azimuth[(widest + 1) % len(sorted_azimuth)], 2 * np.pi - gaps[widest]
        angle = begin + arc * (0.5 - 0.5 * np.cos(2 * np.pi * share))
    else:
        angle = azimuth[0] + 2 * np.pi * share
    where = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(n_frames, height)], axis=1)
    return np.stack([look_at(target + at, target) for at in where])


def focus_point(centers: Float[Array, "n 3"], forward: Float[Array, "n 3"]) -> Float[Array, "3"]:
    """The point nearest to all optical axes: minimum of Σ |(I − d dᵀ)(x − c)|², drawn slightly to the mean centre."""
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    middle = centers.mean(axis=0)
    pull = 1e-3 * len(centers) * np.eye(3)
    return np.linalg.solve(across.sum(axis=0) + pull, np.einsum("nij,nj->i", across, centers) + pull @ middle)


def interpolated_path(cam_from_world: Float[Array, "n 3 4"], n_frames: int) -> Float[Array, "n_frames 3 4"]:
    """A smooth path through the photos' cameras, along a short tour, at constant speed.

    Centres follow a monotone cubic (PCHIP, which does not overshoot), rotations a rotation spline.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.spatial.transform import Rotation, RotationSpline

    order = tour_order(pose_distances(cam_from_world))
    poses = cam_from_world[order[:: -(-len(order) // MAX_WAYPOINTS)]]
    step_lengths = np.diagonal(pose_distances(poses), offset=1)
    poses = poses[np.concatenate([[True], step_lengths > 1e-6])]  # photos from one place count once
    if len(poses) == 1:
        return np.repeat(poses, n_frames, axis=0)
    at = np.concatenate([[0.0], np.cumsum(np.diagonal(pose_distances(poses), offset=1))])
    times = np.linspace(0.0, at[-1], n_frames)
    center = PchipInterpolator(at, centers_world(poses))(times)
    rotation = RotationSpline(at, Rotation.from_matrix(poses[:, :, :3]))(times).as_matrix()
    return np.concatenate([rotation, -np.einsum("nij,nj->ni", rotation, center)[:, :, None]], axis=2)


def pose_distances(cam_from_world: Float[Array, "n 3 4"]) -> Float[Array, "n n"]:
    """Distances between poses: of centres, relative to their mean distance from the mean, plus the angle in radians."""
    centers = centers_world(cam_from_world)
    spread = max(float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean()), 1e-12)
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=2) / spread
    trace = np.einsum("aij,bij->ab", cam_from_world[:, :, :3], cam_from_world[:, :, :3])
    return distance + np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))


def tour_order(distances: Float[Array, "n n"]) -> Int[Array, "n"]:
    """A short open tour: nearest neighbours from the most remote pose on, then 2-opt."""
    left = np.ones(len(distances), bool)
    order = [int(distances.sum(axis=1).argmax())]
    while len(order) < len(distances):
        left[order[-1]] = False
        order.append(int(np.where(left, distances[order[-1]], np.inf).argmin()))
    tour = np.array(order)
    for _ in range(MAX_TWO_OPT_ROUNDS):
        before = _tour_length(tour, distances)
        for i in range(len(tour) - 1):
            # reversing tour[i + 1 .. j] replaces steps i → i + 1 and j → j + 1; the end of the tour is free
            j = np.arange(i + 1, len(tour))
            after = np.minimum(j + 1, len(tour) - 1)
            open_end = j + 1 < len(tour)
            old = distances[tour[i], tour[i + 1]] + distances[tour[j], tour[after]] * open_end
            new = distances[tour[i], tour[j]] + distances[tour[i + 1], tour[after]] * open_end
            best = int((new - old).argmin())
            if new[best] < old[best] - 1e-12:
                tour[i + 1 : j[best] + 1] = tour[i + 1 : j[best] + 1][::-1].copy()
        if _tour_length(tour, distances) >= before - 1e-12:
            break
    return tour


def _tour_length(tour: Int[Array, "n"], distances: Float[Array, "n n"]) -> float:
    return float(distances[tour[:-1], tour[1:]].sum())
