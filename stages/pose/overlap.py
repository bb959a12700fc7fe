"""Which photos see the same things: features, proposed pairs, verified matches."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stages.pose.config import PoseConfig
from stages.pose.descriptors import DescriptorReader
from stages.pose.frame import enu_m
from stages.pose.model import Camera
from stages.pose.pairs import consecutive, exhaustive, nearest, unique_pairs
from stages.pose.retrieval import look_alikes
from stages.pose.working import write_copies, write_masks
from stages.pose.workshop import Photo, Workshop, counter

Array = np.ndarray

SEQUENCE_WINDOW = 3  # photos before and after in name order that a large collection is matched with


def find_features(
    shop: Workshop, config: PoseConfig, photos: list[Photo], cameras: list[Camera], camera_of: list[int]
) -> tuple[list[int], int]:
    """SIFT of every photo: number of keypoints per photo, and how many masks were used."""
    with shop.report.task("pose/copies", len(photos), "photos") as advance:
        files = write_copies(photos, shop.images, shop.threads, advance)
    n_masks = write_masks(photos, files, shop.masks, shop.threads)
    masked = sum(bool(photo["mask_path"]) for photo in photos)
    if 0 < masked < len(photos):
        shop.report.log("pose", f"Masks for {masked} of {len(photos)} photos; the others are used whole")
    job: dict[str, Any] = {
        "cameras": [camera.as_json() for camera in cameras],
        "photos": [
            {"id": photo["photo_id"], "file": file, "camera": camera}
            for photo, file, camera in zip(photos, files, camera_of, strict=True)
        ],
        "masks": str(shop.masks) if n_masks else "",
        "max_edge_px": config.max_edge_px,
        "max_features": config.max_features,
    }
    with shop.report.task("pose/features", len(photos), "photos") as advance:
        result = shop.persistent("features", job, counter(r"Processed file \[(\d+)/", advance))
        advance(len(photos))
    return result["n_features"], n_masks


def propose(shop: Workshop, config: PoseConfig, photos: list[Photo], places: Float[Array, "n d"]) -> Int[Array, "m 2"]:
    """Pairs of photo ids to match: all of a small collection, else neighbours in ``places``, by looks and by name."""
    count, ids = len(photos), np.array([photo["photo_id"] for photo in photos])
    if count <= config.exhaustive_max_photos:
        return ids[exhaustive(count)]
    reader = DescriptorReader(shop.database)
    try:
        with shop.report.task("pose/retrieval", count, "photos") as advance:
            alike = look_alikes(lambda i: reader(int(ids[i])), count, config.neighbours, shop.seed, advance)
    finally:
        reader.close()
    near = nearest(places, config.neighbours)
    return ids[unique_pairs(np.concatenate([near, alike, consecutive(count, SEQUENCE_WINDOW)]))]


def gps_places(photos: list[Photo]) -> Float[Array, "n 2"]:
    """East and north in metres from the middle of all photos with GPS; NaN for the others."""
    geodetic = np.array([[p["latitude_deg"], p["longitude_deg"], 0.0] for p in photos])
    known = np.isfinite(geodetic).all(axis=1)
    places = np.full((len(photos), 2), np.nan)
    if known.any():
        places[known] = enu_m(geodetic[known], np.median(geodetic[known], axis=0))[:, :2]
    return places


def match_pairs(shop: Workshop, pairs: Int[Array, "m 2"]) -> Int[Array, "k 4"]:
    """Match pairs of photos: photo a, photo b, matches, verified inliers of every pair that has matches."""
    files = {int(path.stem): path.name for path in shop.images.iterdir()}
    listing = shop.folder / "pairs.txt"
    listing.write_text("".join(f"{files[a]} {files[b]}\n" for a, b in pairs.tolist()))
    block = int(np.clip(len(pairs) // 40, 50, 1225))
    with shop.report.task("pose/matching", len(pairs), "pairs") as advance:
        job = {"pairs_file": str(listing), "block_size": block}
        on_line = counter(r"Processing block \[(\d+)/", lambda number: advance(min((number - 1) * block, len(pairs))))
        result = shop.persistent("matching", job, on_line)
        advance(len(pairs))
    return np.array(result["pairs"], np.int64).reshape(-1, 4)
