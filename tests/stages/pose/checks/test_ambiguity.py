"""Models laid over themselves, made by hand, and such as are not: only the former are told."""

from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at, to_camera
from quoin.stages.pose.checks.ambiguity import compare_photos, find_conflicting_side, find_contradicted_pairs
from quoin.stages.pose.checks.disambiguation import (
    describe_contradictions,
    find_binding_pairs,
    map_with_disambiguation,
    split_conflicting,
)
from quoin.stages.pose.checks.registration import filter_photos
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import Component, Workspace
from tests.stages.pose.room import CAMERA

N = 5  # photos of each side


def model_of(seen_backdrops: list[list[int]], found: float = 0.7, seed: int = 0) -> SparseModel:
    """Photos on an arc before a facade; photo i sees it and the backdrops ``seen_backdrops[i]``, a share of each.

    All backdrops lie in the same place behind the facade, as they do where a model is folded.
    """
    rng = np.random.default_rng(seed)
    facade = np.column_stack([rng.uniform(-2, 2, 300), np.zeros(300), rng.uniform(0, 2, 300)])
    n_backdrops = 1 + max(max(seen) for seen in seen_backdrops)
    backdrops = [
        np.column_stack([rng.uniform(-7, 7, 300), rng.uniform(6, 7, 300), rng.uniform(3, 6, 300)])
        for _ in range(n_backdrops)
    ]
    points = np.concatenate([facade, *backdrops])
    kind = np.repeat(np.arange(-1, n_backdrops), 300)
    angles = np.radians(np.linspace(-25, 25, len(seen_backdrops)))
    poses = np.array([look_at(np.array([7 * np.sin(a), -7 * np.cos(a), 1.5]), np.array([0, 0, 1.8])) for a in angles])
    observed, pixels = np.zeros((len(points), len(poses)), bool), np.zeros((len(points), len(poses), 2))
    for k, (pose, seen) in enumerate(zip(poses, seen_backdrops, strict=True)):
        cam = to_camera(pose, points)
        pixels[:, k] = CAMERA.img_from_cam(cam[:, :2] / cam[:, 2:])
        inside = ((pixels[:, k] > 0) & (pixels[:, k] < [CAMERA.width, CAMERA.height])).all(axis=1)
        observed[:, k] = inside & np.isin(kind, [-1, *seen]) & (rng.uniform(size=len(points)) < found)
    observed &= (observed.sum(axis=1) >= 2)[:, None]
    alive = observed.any(axis=1)
    point, photo = np.nonzero(observed[alive])
    return SparseModel(
        photo_ids=np.arange(len(poses)) + 2,
        cam_from_sfm=poses,
        camera_index=np.zeros(len(poses), np.int64),
        cameras=[CAMERA],
        points_sfm=points[alive],
        point_colors=np.zeros((alive.sum(), 3), np.uint8),
        track_offsets=np.concatenate([[0], np.cumsum(observed[alive].sum(axis=1))]),
        track_photo=photo,
        track_xy=pixels[alive][point, photo],
    )


FOLDED = model_of([[k % 2] for k in range(2 * N)])  # front and back photos by turns


def sides_of(model: SparseModel) -> set[frozenset[int]] | None:
    side = find_conflicting_side(compare_photos(model), len(model.photo_ids))
    return None if side is None else {frozenset(np.flatnonzero(side)), frozenset(np.flatnonzero(~side))}


@pytest.mark.parametrize(("seed", "found"), [(0, 0.6), (1, 0.7), (2, 1.0)])
def test_two_facades_in_one_place(seed: int, found: float) -> None:
    back = np.random.default_rng(seed).permutation(np.arange(2 * N) < N)
    model = model_of([[int(b)] for b in back], found, seed)
    assert sides_of(model) == {frozenset(np.flatnonzero(back)), frozenset(np.flatnonzero(~back))}


@pytest.mark.parametrize(("seed", "found"), [(0, 0.3), (1, 0.6), (2, 1.0)])
def test_one_scene_is_whole(seed: int, found: float) -> None:
    """Also where photos find different parts of what there is, as photos of different times do."""
    assert sides_of(model_of([[0, 1]] * 2 * N, found, seed)) is None


def test_single_photos_of_elsewhere_are_no_side() -> None:
    assert sides_of(model_of([[0]] * 8 + [[1]] * 2)) is None


def test_photos_that_see_both_hold_the_others_together() -> None:
    """A backdrop that changed half-way, with photos that know both states: no fold."""
    assert sides_of(model_of([[0]] * 4 + [[0, 1]] * 4 + [[1]] * 4)) is None


def pairs_of(model: SparseModel, inliers: int) -> np.ndarray:
    a, b = np.triu_indices(len(model.photo_ids), 1)
    return np.column_stack([model.photo_ids[a], model.photo_ids[b], np.full((len(a), 2), inliers)])


def test_pairs_across_are_put_aside_unless_the_poses_contradict_them() -> None:
    side = np.arange(2 * N) % 2 == 1
    pairs = pairs_of(FOLDED, 100)
    pairs[0, 3] = 10_000  # photos 2 and 3, front and back: of these hardly any is a point of the model
    wrong = find_binding_pairs(FOLDED, side, compare_photos(FOLDED), pairs)
    assert len(wrong) == N * N - 1
    assert ((wrong[:, 0] - wrong[:, 1]) % 2 == 1).all()
    assert [2, 3] not in wrong.tolist()


def test_sides_become_components(tmp_path) -> None:
    parts = split_conflicting(Shop(), [Component("", filter_photos(FOLDED, 15))], 15)
    assert [p.n_photos for p in parts] == [N, N]
    assert {frozenset(p.filtered.model.photo_ids % 2) for p in parts} == {frozenset([0]), frozenset([1])}
    whole = [Component("", filter_photos(model_of([[0]] * 8), 15))]
    assert split_conflicting(Shop(), whole, 15) == whole


def test_torn_pairs_are_told() -> None:
    pairs = pairs_of(FOLDED, 60)
    assert len(find_contradicted_pairs(FOLDED, pairs)[0]) == 0
    names = [f"{i}.jpg" for i in range(2 * N + 2)]
    assert describe_contradictions(FOLDED, pairs, names) is None
    pairs[[0, 1, 2], 3] = 9000  # the first photo with three others
    contradicted_pairs, n_strong = find_contradicted_pairs(FOLDED, pairs)
    assert (contradicted_pairs.tolist(), n_strong) == ([[2, 3], [2, 4], [2, 5]], 45)
    text, share = describe_contradictions(FOLDED, pairs, names) or ("", 0.0)
    assert share == 3 / 45
    assert text.startswith("3 of 45 strong pairs of photos contradict the poses (2.jpg, 3.jpg")
    pairs[2, 3] = 49  # too weak to count
    assert describe_contradictions(FOLDED, pairs, names) is None
    unregistered = np.array([[0, 1, 500, 400]])
    assert len(find_contradicted_pairs(FOLDED, unregistered)[0]) == 0


class Shop(Workspace):
    """Without a folder: remembers how many pairs were put aside."""

    def __init__(self) -> None:
        self.report, self.database, self.forgotten = Reporter(), Path("database.db"), 0

    def without_pairs(self, pairs: np.ndarray, name: str) -> Workspace:
        del name
        self.forgotten += len(pairs)
        return self


NAMES = [f"{i}.jpg" for i in range(2 * N + 2)]


@pytest.mark.parametrize("mended", [True, False])
def test_a_fold_is_mapped_again_or_parted(mended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    good = model_of([[0, 1]] * 9)
    models = iter([FOLDED, good] if mended else [FOLDED] * 9)
    monkeypatch.setattr(
        "quoin.stages.pose.checks.disambiguation.map_photos",
        lambda *_: ([Component("", filter_photos(next(models), 15))], "incremental"),
    )
    workspace = Shop()
    components, _ = map_with_disambiguation(workspace, PoseConfig(), pairs_of(FOLDED, 100), NAMES)
    assert workspace.forgotten >= N * N
    assert [c.n_photos for c in components] == ([9] if mended else [N, N])
    assert "5 photos (" in components[0].warnings[0]
    assert "and 1 more) were laid over others that look the same" in components[0].warnings[0]


def test_where_pairs_are_torn_the_mapper_that_tears_fewer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model_of([[0]] * 10)
    pairs = pairs_of(whole, 60)
    loose = whole.keep_observations(whole.track_photo != 4)  # the poses bear out none of this photo's pairs

    def mapped(workspace: Workspace, config: PoseConfig, *_: object) -> tuple[list[Component], str]:
        other = config.mapper == "global"
        return [Component("", filter_photos(whole if other else loose, 0))], "global" if other else "incremental"

    monkeypatch.setattr("quoin.stages.pose.checks.disambiguation.map_photos", mapped)
    components, mapper = map_with_disambiguation(Shop(), PoseConfig(), pairs, NAMES)
    assert (mapper, components[0].warnings) == ("global", [])
    components, mapper = map_with_disambiguation(Shop(), PoseConfig(mapper="incremental"), pairs, NAMES)
    assert mapper == "incremental"
    assert "9 of 45 strong pairs of photos contradict the poses (6.jpg" in components[0].warnings[0]
