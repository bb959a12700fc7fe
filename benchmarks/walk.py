"""A collection that was never photographed: features of photos taken on a long walk, in a database like COLMAP's.

A photo sees a window of points along the way, each with a descriptor of its own that is a little different in every
photo, and as much clutter again that nobody else sees. Photos are shuffled, so their order tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

POINTS_PER_PHOTO_STEP = 60  # points that come into view, and leave it, from one photo to the next
POINTS_IN_VIEW = 900  # points in view, of which a photo finds
DETECTED_POINTS = 600
CLUTTER_POINTS = 900
MIN_SHARED_POINTS = 100  # points that two photos must both find to count as a verified pair
N_DESCRIPTOR_KINDS = 3000  # of what descriptors look like: points of one kind look much alike, some kinds are common
KIND_SIGMA, SIGHTING_SIGMA = 12.0, 7.0  # within a kind; between two sightings of a point


@dataclass(frozen=True)
class SimulatedWalk:
    """Photo i stands at place ``place[i]`` and sees ``visible_points[i]``, sorted."""

    place: np.ndarray
    visible_points: list[np.ndarray]

    def verified(self, pairs: np.ndarray) -> np.ndarray:
        """Whether the photos of each pair share enough points."""
        is_near = np.abs(self.place[pairs[:, 0]] - self.place[pairs[:, 1]]) * POINTS_PER_PHOTO_STEP < POINTS_IN_VIEW
        return np.array(
            [
                n
                and len(np.intersect1d(self.visible_points[a], self.visible_points[b], assume_unique=True))
                >= MIN_SHARED_POINTS
                for (a, b), n in zip(pairs.tolist(), is_near, strict=True)
            ],
            bool,
        )

    def all_verified(self) -> np.ndarray:
        """All pairs that would be verified, [m, 2]."""
        order = np.argsort(self.place)
        pairs = [
            np.stack([order[:-gap], order[gap:]], axis=1)
            for gap in range(1, min(POINTS_IN_VIEW // POINTS_PER_PHOTO_STEP, len(order)))
        ]
        all_near = np.sort(np.concatenate(pairs), axis=1)
        return all_near[self.verified(all_near)]


def simulate_walk(count: int, database: Path, seed: int = 0) -> SimulatedWalk:
    """Walk along ``count`` places and write the photos' features to ``database``."""
    rng = np.random.default_rng(seed)
    kinds = rng.gamma(0.6, 45.0, (N_DESCRIPTOR_KINDS, 128)).astype(np.float32)
    common = rng.pareto(1.0, N_DESCRIPTOR_KINDS) + 0.1
    common /= common.sum()

    def descriptors(number: int) -> np.ndarray:
        made = kinds[rng.choice(N_DESCRIPTOR_KINDS, number, p=common)] + rng.normal(
            0, KIND_SIGMA, (number, 128)
        ).astype(np.float32)
        return np.clip(made, 0, 255).astype(np.uint8)

    points = descriptors(count * POINTS_PER_PHOTO_STEP + POINTS_IN_VIEW)
    place, visible_points = rng.permutation(count), []
    with pycolmap.Database.open(str(database)) as opened:
        camera_id = opened.write_camera(pycolmap.Camera(model="PINHOLE", width=1000, height=1000, params=[1000] * 4))
        for photo in range(count):
            visible_points.append(
                np.sort(
                    place[photo] * POINTS_PER_PHOTO_STEP + rng.choice(POINTS_IN_VIEW, DETECTED_POINTS, replace=False)
                )
            )
            noisy_descriptors = points[visible_points[-1]] + rng.normal(
                0, SIGHTING_SIGMA, (DETECTED_POINTS, 128)
            ).astype(np.float32)
            both = np.concatenate([np.clip(noisy_descriptors, 0, 255).astype(np.uint8), descriptors(CLUTTER_POINTS)])
            shape = np.concatenate([rng.uniform(0, 1000, (len(both), 2)), rng.pareto(2, (len(both), 2)) + 1], axis=1)
            image = pycolmap.Image(name=f"{photo}.jpg", camera_id=camera_id, image_id=photo + 1)
            opened.write_image(image, use_image_id=True)
            opened.write_keypoints(photo + 1, shape.astype(np.float32))
            sift = pycolmap.FeatureDescriptors(data=both, type=pycolmap.FeatureExtractorType.SIFT)
            opened.write_descriptors(photo + 1, sift)
    return SimulatedWalk(place, visible_points)


def write_noise_photos(count: int, folder: Path, seed: int = 0) -> Path:
    """``count`` small photos, no two alike, for ingest."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for photo in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((256, 192), Image.Resampling.BICUBIC).save(folder / f"{photo:05d}.jpg", quality=85)
    return folder
