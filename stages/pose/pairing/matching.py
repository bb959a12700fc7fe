"""Which photos see the same things: features, proposed pairs, verified matches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.stages.pose.colmap import step_arguments
from quoin.stages.pose.colmap.descriptors import DescriptorReader
from quoin.stages.pose.colmap.image_copies import write_copies
from quoin.stages.pose.colmap.sparse_model import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.frame.world_frame import enu_m, middle_geodetic
from quoin.stages.pose.pairing.expansion import first_pairs, in_rounds
from quoin.stages.pose.pairing.pairs import consecutive, doubling, exhaustive, nearest, unique_pairs
from quoin.stages.pose.pairing.retrieval import look_alikes
from quoin.stages.pose.pairing.shared_matching import share_features, share_matches
from quoin.stages.pose.workspace import Photo, Workshop, counter, ignore

Array = np.ndarray

SEQUENCE_WINDOW = 1  # photos before and after, in the order of names and of time, that a photo is first matched with
FRAMES_APART = 8  # frames of a clip that far apart, of those taken, are first matched: half a picture's width and more
FEW_FRAMES = 60  # frames of clips up to which every pair is matched: most of a walk shows nothing of its beginning
KEPT_ALIKE = 100  # photos most like a photo that are remembered


def find_features(
    shop: Workshop, config: PoseConfig, photos: list[Photo], cameras: list[Camera], camera_of: list[int]
) -> tuple[list[int], int]:
    """SIFT of every photo: number of keypoints per photo, and how many masks were used."""
    with shop.report.task("pose/copies", len(photos), "photos") as advance:
        files = write_copies(photos, shop.images, shop.threads, advance)
    job, n_masks = step_arguments.features(shop, config, photos, files, cameras, camera_of)
    masked = sum(bool(photo["mask_path"]) for photo in photos)
    if 0 < masked < len(photos):
        shop.report.log("pose", f"Masks for {masked} of {len(photos)} photos; the others are used whole")
    with shop.report.task("pose/features", len(photos), "photos") as advance:
        on_line = counter(r"Processed file \[(\d+)/", advance)
        if shop.hands is not None:
            share_features(shop, shop.hands, job, cameras, advance)
            on_line = ignore
        result = shop.persistent("features", job, on_line)
        advance(len(photos))
    return result["n_features"], n_masks


def find_pairs(
    shop: Workshop, config: PoseConfig, photos: list[Photo], places: Float[Array, "n d"]
) -> Int[Array, "k 4"]:
    """Photo a, photo b, matches, verified inliers: of all pairs of a small collection, of the likely ones of a large.

    First neighbours in ``places``, by looks, names and time; then, in rounds, what the verified ones suggest. A
    collection with more than a few frames of clips is a large one: their order says what to match, and looks find
    where a walk comes back to its beginning. Hands may rest then: mapping may take hours.
    """
    found = _find_pairs(shop, config, photos, places)
    if shop.hands is not None:
        shop.hands.rest()
    return found


def _find_pairs(
    shop: Workshop, config: PoseConfig, photos: list[Photo], places: Float[Array, "n d"]
) -> Int[Array, "k 4"]:
    count, ids = len(photos), np.array([photo["photo_id"] for photo in photos])
    n_frames = sum(bool(photo.get("clip")) for photo in photos)
    if count <= config.exhaustive_max_photos and n_frames <= FEW_FRAMES:
        return match_pairs(shop, ids[exhaustive(count)])
    reader = DescriptorReader(shop.database)
    try:
        with shop.report.task("pose/retrieval", count, "photos") as advance:
            alike = look_alikes(lambda i: reader(int(ids[i])), count, KEPT_ALIKE, shop.seed, shop.threads, advance)
    finally:
        reader.close()
    found = np.zeros((0, 4), np.int64)

    def verify(pairs: Int[Array, "m 2"], number: int) -> Bool[Array, "m"]:
        nonlocal found
        found = match_pairs(shop, ids[pairs], f"pose/matching round {number}")
        good = {(a, b) for a, b, _, inliers in found.tolist() if inliers}
        return np.array([pair in good for pair in map(tuple, ids[pairs].tolist())], bool)

    first = [nearest(places, config.neighbours), first_pairs(alike), in_turn(photos)]
    tried = in_rounds(alike, unique_pairs(np.concatenate(first)), 2 * config.neighbours, verify)
    text = f"{len(tried.pairs)} of {count * (count - 1) // 2} pairs were matched, {int(tried.verified.sum())} verified"
    shop.report.log("pose", text)
    return found


def in_turn(photos: list[Photo]) -> Int[Array, "m 2"]:
    """Pairs of rows of photos that follow each other by name, in a clip, or by the time of taking within an hour."""
    times = np.array([np.datetime64(photo.get("taken_at") or "NaT", "s") for photo in photos])
    by_time = np.argsort(times, kind="stable")  # those that tell none come last
    followed = by_time[consecutive(len(photos), SEQUENCE_WINDOW)]
    soon = times[followed[:, 1]] - times[followed[:, 0]] <= np.timedelta64(1, "h")
    return unique_pairs(np.concatenate([consecutive(len(photos), SEQUENCE_WINDOW), followed[soon], in_clips(photos)]))


def in_clips(photos: list[Photo]) -> Int[Array, "m 2"]:
    """Pairs of rows of frames of one clip, up to FRAMES_APART frames apart by the time in it."""
    found = [np.zeros((0, 2), np.int64)]
    for clip in sorted({photo.get("clip") or "" for photo in photos} - {""}):
        rows = [row for row, photo in enumerate(photos) if photo.get("clip") == clip]
        by_time = np.array(sorted(rows, key=lambda row: photos[row]["time_s"]))
        found.append(by_time[doubling(len(rows), FRAMES_APART)])
    return unique_pairs(np.concatenate(found))


def gps_places(photos: list[Photo]) -> Float[Array, "n 2"]:
    """East and north in metres from the middle of all photos with GPS; NaN for the others."""
    geodetic = np.array([[p["latitude_deg"], p["longitude_deg"], 0.0] for p in photos])
    known = np.isfinite(geodetic).all(axis=1)
    places = np.full((len(photos), 2), np.nan)
    if known.any():
        places[known] = enu_m(geodetic[known], middle_geodetic(geodetic[known]))[:, :2]
    return places


def match_pairs(shop: Workshop, pairs: Int[Array, "m 2"], task: str = "pose/matching") -> Int[Array, "k 4"]:
    """Match pairs of photos: photo a, photo b, matches, verified inliers of every pair matched by now with matches."""
    files = {int(path.stem): path.name for path in shop.images.iterdir()}
    job = step_arguments.matching(shop, files, pairs)
    block = job["block_size"]
    with shop.report.task(task, len(pairs), "pairs") as advance:
        on_line = counter(r"Processing block \[(\d+)/", lambda number: advance(min((number - 1) * block, len(pairs))))
        if shop.hands is not None:
            share_matches(shop, shop.hands, pairs, advance)
            on_line = ignore
        result = shop.persistent("matching", job, on_line)
        advance(len(pairs))
    return np.array(result["pairs"], np.int64).reshape(-1, 4)
