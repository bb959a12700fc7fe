"""A floor that stereo knows half of, and a ball on it: the rest is the floor's plane, and the ball is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
from quoin.pipeline.geometry.planes import PlaneSet
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.manhattan import ManhattanFrame, write_manhattan_frame
from quoin.pipeline.scene.priors import depth_from_planes, read_plane_index, read_scene_planes
from quoin.stages.priors import planar_regions as regions
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.estimation import add_planar_regions
from quoin.stages.priors.planar_regions import PlanarParams, depth_normals, downsample_depth
from tests.fixtures import ball_scene

UP, WALLS = np.array([0.0, 0.0, 1.0]), np.eye(3)[:2]
N_PHOTOS = 5


def truth(posed, index):
    """Depth along z, and whether the pixel shows the floor."""
    width, height = posed.sizes[index]
    pose = posed.cam_from_world[index]
    origin, directions = rays_world(pose, posed.intrinsics[index], pixel_grid(width, height))
    distance = ball_scene.cast(origin, directions)
    hit = np.isfinite(distance)
    points = origin + directions * np.where(hit, distance, 0.0)[:, None]
    depth = np.where(hit, distance * (directions @ pose[2, :3]), 0.0).reshape(height, width)
    return depth, (hit & (np.abs(points[:, 2]) < 1e-6)).reshape(height, width)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    run = ball_scene.make_run(tmp_path_factory.mktemp("bare"), n_photos=N_PHOTOS)
    posed = posed_images.read_posed(run)
    for index in range(N_PHOTOS):
        depth, floor = truth(posed, index)
        hidden = np.zeros(depth.shape, bool)
        hidden[:, 40:120] = True
        priors.write_depth(run, index, np.where(hidden & floor, 0.0, depth), 0)
    write_manhattan_frame(run, ManhattanFrame(UP, WALLS, np.ones(2), np.full(2, N_PHOTOS), 0.9))
    near = [[other for other in range(N_PHOTOS) if other != index] for index in range(N_PHOTOS)]
    with pytest.MonkeyPatch.context() as patch:  # the floor is a quarter of the pictures, half of it known
        patch.setattr(regions, "PLANAR_PARAMS", PlanarParams(min_added_share=0.1))
        found = add_planar_regions(run, PriorsConfig(), near, list(range(N_PHOTOS)), Reporter(), {}, "cpu")
    return run, posed, found


def test_the_hidden_floor_has_the_depth_of_its_plane(laid_out):
    run, posed, (n_planes, share) = laid_out
    assert n_planes >= 1
    assert share > 0.05
    for index in range(N_PHOTOS):
        depth, floor = truth(posed, index)
        known, planes = priors.read_depth(run, index)[0], read_scene_planes(run)
        shown = depth_from_planes(
            read_plane_index(run, index).plane_index, planes, posed.cam_from_world[index], posed.intrinsics[index]
        )
        asked = floor & (known == 0)
        assert (shown[known > 0] == 0).all()
        assert (shown[asked] > 0).mean() > 0.7
        assert np.median(np.abs(shown / np.maximum(depth, 1e-9) - 1)[asked & (shown > 0)]) < 0.003


def test_labels_tell_the_floor_from_what_stands_on_it(laid_out):
    run, posed, _ = laid_out
    for index in range(N_PHOTOS):
        depth, floor = truth(posed, index)
        shown = priors.read_full_size_labels(run, index, posed.sizes[index])
        assert (shown[floor] == labels.FLOOR).mean() > 0.8
        assert (shown[(depth > 0) & ~floor] == labels.OTHER).mean() > 0.7


def test_where_planes_add_little_nothing_is_kept(tmp_path):
    run = ball_scene.make_run(tmp_path, n_photos=3)
    posed = posed_images.read_posed(run)
    for index in range(3):
        depth, floor = truth(posed, index)
        hidden = np.zeros(depth.shape, bool)
        hidden[:, 60:75] = True
        priors.write_depth(run, index, np.where(hidden & floor, 0.0, depth), 0)
    write_manhattan_frame(run, ManhattanFrame(UP, WALLS, np.ones(2), np.full(2, 3), 0.9))
    _, share = add_planar_regions(run, PriorsConfig(), [[1, 2], [0, 2], [0, 1]], [0, 1, 2], Reporter(), {}, "cpu")
    assert share == 0.0
    assert read_plane_index(run, 0) is None
    assert priors.read_labels(run, 0) is None


@pytest.mark.parametrize(("known_as", "asked"), [(labels.SKY, []), (labels.UNKNOWN, [0, 5])])
def test_no_photo_is_laid_out_in_vain(tmp_path, monkeypatch, known_as, asked):
    """Sky that is known leaves nothing silent; else the first photos show what there is to be had."""
    run = ball_scene.make_run(tmp_path, n_photos=6)
    posed = posed_images.read_posed(run)
    for index in range(6):
        priors.write_depth(run, index, truth(posed, index)[0], 0)
        sky = truth(posed, index)[0] == 0
        assert sky.mean() > regions.PLANAR_PARAMS.min_added_share
        priors.write_labels(run, index, np.where(sky, known_as, labels.OTHER).astype(np.uint8), 0)
    write_manhattan_frame(run, ManhattanFrame(UP, WALLS, np.ones(2), np.full(2, 3), 0.9))
    monkeypatch.setattr(regions, "PLANAR_PARAMS", PlanarParams(n_probe_photos=2))
    seen = []
    monkeypatch.setattr(regions.PlanarRegionStereo, "label_planes", lambda own, index: (seen.append(index), 0.0)[1])
    near = [[k for k in range(6) if k != index] for index in range(6)]
    _, share = add_planar_regions(run, PriorsConfig(), near, list(range(6)), Reporter(), {}, "cpu")
    assert (share, seen) == (0.0, asked)
    assert read_plane_index(run, 0) is None


def test_less_is_enough_in_a_scene_that_ends_at_walls(tmp_path, monkeypatch):
    run = ball_scene.make_run(tmp_path, n_photos=3)
    for index in range(3):
        priors.write_depth(run, index, truth(posed_images.read_posed(run), index)[0], 0)
    write_manhattan_frame(run, ManhattanFrame(UP, WALLS, np.ones(2), np.full(2, 3), 0.9))
    directions = np.concatenate([UP[None], WALLS, -UP[None], -WALLS])
    asked = [[1, 2], [0, 2], [0, 1]], [0, 1, 2], directions
    assert regions.PlanarRegionStereo(run, *asked, "cpu").min_added_share == regions.PLANAR_PARAMS.min_added_share, (
        "the ball is seen from outside"
    )
    wall = PlaneSet(WALLS[:1], np.array([-3.0]), np.ones(1))
    monkeypatch.setattr(regions, "bounding_planes", lambda *_: wall)
    assert (
        regions.PlanarRegionStereo(run, *asked, "cpu").min_added_share == regions.PLANAR_PARAMS.min_added_share_indoors
    )


def test_without_any_depth_nothing_is_found(tmp_path):
    run = ball_scene.make_run(tmp_path, n_photos=3, width=64, height=48)
    for index in range(3):
        priors.write_depth(run, index, np.zeros((48, 64), np.float32), 0)
    write_manhattan_frame(run, ManhattanFrame(UP, WALLS, np.ones(2), np.full(2, 3), 0.9))
    found = add_planar_regions(run, PriorsConfig(), [[1, 2], [0, 2], [0, 1]], [0, 1, 2], Reporter(), {}, "cpu")
    assert found == (0, 0.0)
    assert read_plane_index(run, 0) is None


def test_without_a_frame_of_walls_nothing_is_done(tmp_path):
    run = ball_scene.make_run(tmp_path, n_photos=3, width=64, height=48)
    assert add_planar_regions(run, PriorsConfig(), [[1], [0], [0]], [0, 1, 2], Reporter(), {}, "cpu") == (0, 0.0)
    write_manhattan_frame(
        run, ManhattanFrame(UP, np.zeros((0, 3)), np.zeros(0), np.zeros(0, int), 0.1, "lines go every way")
    )
    assert add_planar_regions(run, PriorsConfig(), [[1], [0], [0]], [0, 1, 2], Reporter(), {}, "cpu") == (0, 0.0)
    assert read_plane_index(run, 0) is None


def test_the_middle_of_what_is_known_stands_for_larger_pixels():
    depth = np.zeros((4, 6), np.float32)
    depth[:2, :2] = [[1, 2], [3, 0]]
    depth[:2, 2] = 5.0
    depth[3, 5] = 7.0
    assert downsample_depth(depth, 1, (2, 3)).tolist() == [[2, 5, 0], [0, 0, 0]]
    assert downsample_depth(depth, 0, (4, 6)).tolist() == depth.tolist()


def test_what_a_mask_covers_is_not_silent(laid_out):
    run = laid_out[0]
    photos = regions.PlanarRegionStereo(run, [[] for _ in range(N_PHOTOS)], [0], np.eye(3), "cpu")
    before = photos._no_depth(0)[0]
    levels = [posed_images.read_photo(run, 0, level) for level in range(posed_images.PYRAMID_LEVELS)]
    mask = posed_images.read_mask(run, 0)
    covered = mask.copy()
    covered[:, :80] = 0
    posed_images.write_photo(run, 0, levels, covered)
    after = photos._no_depth(0)[0]
    posed_images.write_photo(run, 0, levels, mask)
    assert before[:, :80].any()
    assert not after[:, :80].any()
    np.testing.assert_array_equal(after[:, 80:], before[:, 80:])


def test_normals_of_a_depth_map_are_those_of_its_plane_and_stop_at_its_edge():
    y, x = np.mgrid[:20, :30]
    rays = np.stack([(x - 15) / 30.0, (y - 10) / 30.0, np.ones((20, 30))], axis=-1)
    normal = np.array([0.2, -0.3, -1.0]) / np.linalg.norm([0.2, -0.3, -1.0])
    depth = -1.5 / (rays @ normal)
    depth[:, 20:] *= 1.5  # another surface, behind
    points = rays * depth[..., None]
    found, there = depth_normals(points, np.ones((20, 30), bool))
    assert not there[:, [0, 19, 20, 29]].any()
    assert there[1:-1, 1:19].all()
    assert np.abs(found[there] - normal).max() < 1e-6
