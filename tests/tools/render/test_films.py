"""Rendering a run: two blocks look like one, skipped blocks are not opened for nothing, films and held-out photos."""

import functools
import itertools

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at, pixel_grid, rays_world
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import Block, Partition, read_partition, write_partition
from quoin.stages.train.data.photo_set import BlockFrame
from quoin.stages.train.trained_block import build_ray_renderer
from quoin.tools.render.films import FilmConfig, RenderCamera, film_cameras, render_film, render_held_out, render_views
from tests.fixtures.ball_model import ball_model
from tests.fixtures.synthetic import (
    commit,
    faces_camera,
    make_run,
    posed_points,
    pyramid,
    ring_of_cameras,
    sphere_points,
)

LATTICE = Lattice((-2.0, -2.0, -2.0), 0.125, 8)  # four bricks a side
CENTRE, RADIUS = np.array([0.1, 0.05, 0.0]), 1.0
VIEW = RenderCamera(look_at(np.array([4.0, 1.0, 1.0]), CENTRE), np.array([50.0, 50, 24, 18]), 48, 36)


def boxes(*cuts):
    """Cores that tile the lattice, cut at these bricks along x."""
    edges = [0, *cuts, 4]
    return [BrickBox((a, 0, 0), (b, 4, 4)) for a, b in itertools.pairwise(edges)]


def ball_run(folder, cores, n_photos=5, held_out=()):
    run = make_run(folder, "ingest", "pose")
    posed = posed_points(
        ring_of_cameras(n_photos, 4.0, 1.0), sphere_points(100), faces_camera, size=(32, 24), focal_px=30.0
    )
    posed_images.write_posed(run, posed)
    for index in range(n_photos):
        photo = np.full((24, 32, 3), 40 * index, np.uint8)
        posed_images.write_photo(run, index, pyramid(photo), np.full((24, 32), 255, np.uint8))
    blocks = [Block(f"b{i}", core, 1, np.arange(5), np.ones(5)) for i, core in enumerate(cores)]
    corners = LATTICE.box_world(BrickBox((0, 0, 0), (4, 4, 4)))
    write_partition(run, Partition(LATTICE, blocks, *corners, np.array(held_out, np.int64)))
    commit(run, "partition")
    commit(run, "train")
    return run


def opener(run, opened=None):
    """Opens every block as one whose model knows the ball."""

    @functools.cache
    def open_block(block_id):
        if opened is not None:
            opened.append(block_id)
        block = read_partition(run).block(block_id)
        frame = BlockFrame.from_bounds(*LATTICE.box_world(block.outer))
        return build_ray_renderer(*ball_model(frame, CENTRE, RADIUS), frame, 4, "cpu", fast=False)

    return open_block


def truth():
    origin, directions = rays_world(VIEW.cam_from_world, VIEW.intrinsics, pixel_grid(VIEW.width, VIEW.height))
    to = CENTRE - origin
    along = directions @ to
    off = np.sqrt(to @ to - along**2).reshape(36, 48)
    near = along - np.sqrt(np.maximum(RADIUS**2 - off.ravel() ** 2, 0.0))
    normal = (origin + near[:, None] * directions - CENTRE) / RADIUS
    return off, (near * (directions @ VIEW.cam_from_world[2, :3])).reshape(36, 48), normal.reshape(36, 48, 3)


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3)])
def test_a_ball_has_its_depth_and_normals_whatever_the_blocks(tmp_path, cuts):
    run = ball_run(tmp_path, boxes(*cuts))
    [seen] = render_views(run, [VIEW], opener(run), Reporter())
    off, depth, normal = truth()
    hit = off < 0.9 * RADIUS
    assert hit.sum() > 300
    error = np.abs(seen.depth_m - depth)[hit]
    assert np.quantile(error, 0.98) < 0.03
    assert np.quantile((seen.normal * normal).sum(axis=2)[hit], 0.02) > 0.98
    assert (seen.depth_m[off > 1.15 * RADIUS] == 0).all()
    assert (seen.normal[off > 1.15 * RADIUS] == 0).all()


def test_two_blocks_look_like_one(tmp_path):
    one, two = (ball_run(tmp_path / str(len(cores)), cores) for cores in (boxes(), boxes(2)))
    [whole], [parts] = (list(render_views(run, [VIEW], opener(run), Reporter())) for run in (one, two))
    off, _, _ = truth()
    inside = off < 0.9 * RADIUS
    assert np.quantile(np.abs(whole.opacity - parts.opacity)[inside], 0.98) < 0.05
    assert np.quantile(np.abs(whole.depth_m - parts.depth_m)[inside], 0.98) < 0.03
    assert np.abs(whole.opacity - parts.opacity)[off > 1.1 * RADIUS].max() < 0.01


def test_every_block_is_opened_once_for_a_group_of_frames(tmp_path):
    run, opened = ball_run(tmp_path, boxes(2)), []
    seen = list(render_views(run, [VIEW] * 3, opener(run, opened), Reporter()))
    assert sorted(opened) == ["b0", "b1"]
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[0].color, seen[2].color)


def test_a_block_behind_what_is_opaque_is_not_asked(tmp_path):
    run, asked = ball_run(tmp_path, boxes(2)), []

    def open_block(block_id):
        look = opener(run)(block_id)

        def counted(origin, directions, *rest):
            asked.append((block_id, len(directions)))
            return look(origin, directions, *rest)

        return counted

    list(render_views(run, [VIEW], open_block, Reporter()))
    (near, n_near), (far, n_far) = asked
    assert (near, far) == ("b1", "b0"), "the nearer block comes first"
    assert n_far < n_near - 300


def test_held_out_photos_are_rendered_at_their_size_and_shown_beside_them(tmp_path):
    run = ball_run(tmp_path, boxes(2), held_out=(0, 3))
    assert render_held_out(run, opener(run), Reporter()) == [0, 3]
    seen = posed_images.read_rendering(run, 3)
    assert seen.color.shape == (24, 32, 3)
    assert seen.opacity[12, 16] > 0.95
    names = posed_images.read_posed(run).names
    pictures = sorted(path.name for path in (run.path / "views").iterdir())
    assert pictures == [f"{names[0]}.png", f"{names[3]}.png"]
    shown = np.asarray(Image.open(run.path / "views" / pictures[1]))
    assert shown.shape == (24, 4 * 32, 3)
    assert (shown[:, :32] == 120).all()


def test_without_held_out_photos_there_is_a_sentence(tmp_path):
    run = ball_run(tmp_path, boxes())
    with pytest.raises(QuoinError, match=r"This run held out no photos.*hold_out_every"):
        render_held_out(run, opener(run), Reporter())


@pytest.mark.parametrize("path", ["orbit", "photos"])
def test_a_film_has_its_frames(tmp_path, path):
    run = ball_run(tmp_path, boxes(2))
    config = FilmConfig(path=path, output="normals", width=24, height=16, seconds=0.25, frames_per_s=16)
    result = render_film(run, config, tmp_path / "film", opener(run), Reporter())
    assert result.n_frames == len(list((tmp_path / "film").glob("*.png"))) == 4
    frame = np.asarray(Image.open(tmp_path / "film" / "frame_00002.png"))
    assert frame.shape == (16, 24, 3)
    assert (frame[8, 12] != 255).any(), "the ball is in the middle"


def test_a_film_keeps_the_photos_angle_of_view(tmp_path):
    run = ball_run(tmp_path, boxes())
    views = film_cameras(run, FilmConfig(width=320, height=240))
    np.testing.assert_allclose(views[0].intrinsics, [300.0, 300.0, 160.0, 120.0])
