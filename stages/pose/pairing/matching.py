"""Features of photos, and verified matches of pairs of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import DescriptorReader
from quoin.stages.pose.colmap.image_copies import write_image_copies
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.pairs import (
    exhaustive_pairs,
    first_round_pairs,
    match_in_rounds,
    nearest_pairs,
    sequential_pairs,
    unique_pairs,
)
from quoin.stages.pose.pairing.retrieval import photo_similarity
from quoin.stages.pose.pairing.shared_matching import share_features, share_matching
from quoin.stages.pose.workspace import (
    Workspace,
    extraction_arguments,
    matching_arguments,
    no_op,
    progress_from_log,
)

Array = np.ndarray

MAX_EXHAUSTIVE_FRAMES = (
    60  # frames of clips up to which every pair is matched: most of a walk shows nothing of its beginning
)
MAX_SIMILAR_PHOTOS = 100  # photos most like a photo that are remembered


def find_features(
    workspace: Workspace, config: PoseConfig, photos: list[PhotoRow], cameras: list[Camera], camera_of: list[int]
) -> tuple[list[int], int]:
    """Find SIFT features of every photo; returns the number of keypoints per photo, and how many photos have a mask."""
    with workspace.report.task("pose/copies", len(photos), "photos") as advance:
        files = write_image_copies(photos, workspace.images, workspace.threads, advance)
    job, n_masks = extraction_arguments(workspace, config, photos, files, cameras, camera_of)
    masked = sum(bool(photo.mask_path) for photo in photos)
    if 0 < masked < len(photos):
        workspace.report.log("pose", f"Masks for {masked} of {len(photos)} photos; the others are used whole")
    with workspace.report.task("pose/features", len(photos), "photos") as advance:
        on_log_line = progress_from_log(r"Processed file \[(\d+)/", advance)
        if workspace.n_workers > 1:
            share_features(workspace, job, cameras, advance)
            on_log_line = no_op
        result = workspace.run_colmap_with_retry("extract_features", job, on_log_line)
        advance(len(photos))
    return result["n_features"], n_masks


def find_pairs(
    workspace: Workspace, config: PoseConfig, photos: list[PhotoRow], positions: Float[Array, "n d"]
) -> Int[Array, "k 4"]:
    """Table of matched pairs: photo a, photo b, matches, verified inliers.

    A small collection is matched exhaustively. In a large one, or one with many frames of clips, the first round has
    neighbors by ``positions``, by similarity, by name and by time; verified pairs propose the next rounds. Similarity
    also finds where a walk comes back to its beginning.
    """
    count, ids = len(photos), np.array([photo.photo_id for photo in photos])
    n_frames = sum(bool(photo.clip) for photo in photos)
    if count <= config.exhaustive_max_photos and n_frames <= MAX_EXHAUSTIVE_FRAMES:
        return match_pairs(workspace, ids[exhaustive_pairs(count)])
    reader = DescriptorReader(workspace.database)
    try:
        with workspace.report.task("pose/retrieval", count, "photos") as advance:
            similarity = photo_similarity(
                lambda i: reader(int(ids[i])), count, MAX_SIMILAR_PHOTOS, workspace.seed, workspace.threads, advance
            )
    finally:
        reader.close()
    pair_table = np.zeros((0, 4), np.int64)

    def verify(pairs: Int[Array, "m 2"], number: int) -> Bool[Array, "m"]:
        nonlocal pair_table
        pair_table = match_pairs(workspace, ids[pairs], f"pose/matching round {number}")
        verified_pairs = {(a, b) for a, b, _, inliers in pair_table.tolist() if inliers}
        return np.array([pair in verified_pairs for pair in map(tuple, ids[pairs].tolist())], bool)

    first = [nearest_pairs(positions, config.neighbors), first_round_pairs(similarity), sequential_pairs(photos)]
    tried_pairs = match_in_rounds(similarity, unique_pairs(np.concatenate(first)), 2 * config.neighbors, verify)
    n_pairs, n_verified = count * (count - 1) // 2, int(tried_pairs.verified.sum())
    text = f"{len(tried_pairs.pairs)} of {n_pairs} pairs were matched, {n_verified} verified"
    workspace.report.log("pose", text)
    return pair_table


def match_pairs(workspace: Workspace, pairs: Int[Array, "m 2"], task: str = "pose/matching") -> Int[Array, "k 4"]:
    """Match pairs of photos; returns the table of all pairs with matches so far, also those of earlier calls."""
    files = {int(path.stem): path.name for path in workspace.images.iterdir()}
    job = matching_arguments(workspace, files, pairs)
    block = job["block_size"]
    with workspace.report.task(task, len(pairs), "pairs") as advance:
        on_log_line = progress_from_log(
            r"Processing block \[(\d+)/", lambda number: advance(min((number - 1) * block, len(pairs)))
        )
        if workspace.n_workers > 1:
            share_matching(workspace, pairs, advance)
            on_log_line = no_op
        result = workspace.run_colmap_with_retry("match_images", job, on_log_line)
        advance(len(pairs))
    return np.array(result["pairs"], np.int64).reshape(-1, 4)
