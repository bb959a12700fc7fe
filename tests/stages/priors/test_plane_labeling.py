"""Planes of pixels that nothing can be matched on: a bare room, known only about its edges."""

import numpy as np
import pytest
import torch

from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.geometry.planes import PlaneSet
from quoin.stages.priors.plane_labeling import (
    PlanarView,
    aggregate_costs,
    in_front_of_bounds,
    plane_fields,
    smoothness_costs,
    solve_labeling,
    unary_costs,
)
from quoin.stages.priors.stereo.views import StereoView, ray_grid

HALF = np.array([2.0, 1.5, 1.2])
INWARD = np.concatenate([-np.eye(3), np.eye(3)])  # of the walls at +HALF, then of those at -HALF
ROOM = PlaneSet(INWARD, -np.tile(HALF, 2), np.ones(6))
PAINT = torch.tensor(
    [[0.8, 0.8, 0.7], [0.75, 0.8, 0.8], [0.9, 0.9, 0.9], [0.8, 0.7, 0.8], [0.7, 0.75, 0.7], [0.5, 0.3, 0.2]]
)
NOWHERE = PlaneSet(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
SIZE = (64, 48)


def camera(centre, target):
    pose = torch.tensor(look_at(np.array(centre), np.array(target)), dtype=torch.float32)
    gray = torch.zeros(SIZE[1], SIZE[0])
    return StereoView(gray, torch.tensor([45.0, 45.0, 32.0, 24.0]), pose)


def looked(view):
    """The wall that each pixel shows, and its depth: the farthest of planes that the ray meets is the nearest wall."""
    w, _, _ = plane_fields(ROOM, view)
    nearest = w.max(dim=0)  # inverse depths: from within a convex room the first wall met is the nearest
    return nearest.indices, 1.0 / nearest.values


def photo(view, *, band_px=3):
    """Flat paint on every wall; depth known only within ``band_px`` of where walls meet."""
    wall, depth = looked(view)
    color = PAINT[wall].permute(2, 0, 1)
    edge = torch.zeros_like(wall, dtype=torch.bool)
    edge[:, 1:] |= wall[:, 1:] != wall[:, :-1]
    edge[1:] |= wall[1:] != wall[:-1]
    near = torch.nn.functional.max_pool2d(edge[None].float(), 2 * band_px + 1, 1, band_px)[0] > 0
    known = torch.where(near, depth, torch.zeros_like(depth))
    return PlanarView(StereoView(color.mean(dim=0), *view[1:]), color, known), wall


VIEWS = [camera((0.3 * i - 0.5, -0.8, 0.1 * i), (1.2, 1.2, -0.6)) for i in range(4)]


def test_fields_of_planes_are_their_inverse_depths_and_slopes():
    view = VIEWS[0]
    w, a, b = plane_fields(ROOM, view)
    depth = 1.0 / w
    pose = view.cam_from_world.double().numpy()
    for plane in range(6):
        there = (w[plane] > 0.05).numpy()
        if not there.any():
            continue
        points = ((ray_grid(view) * depth[plane]).permute(1, 2, 0).double().numpy()[there] - pose[:, 3]) @ pose[:, :3]
        assert np.abs(points @ ROOM.normal[plane] - ROOM.offset[plane]).max() < 1e-4
        assert (w[plane, :, 1:] - w[plane, :, :-1]).mean() == pytest.approx(a[plane].item(), abs=1e-5)
        assert (w[plane, 1:] - w[plane, :-1]).mean() == pytest.approx(b[plane].item(), abs=1e-5)


def test_planes_seen_from_behind_do_not_show():
    outside = camera((5.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    w, _, _ = plane_fields(ROOM, outside)
    assert (w[0] < 0).all()  # the wall at x = 2 faces inwards
    assert (w[3] > 0).all()  # the one at x = -2 faces the camera


def test_bare_walls_are_laid_out_from_what_is_known_at_their_edges():
    photos = [photo(view) for view in VIEWS]
    known, wall = photos[1]
    decoys = PlaneSet(
        np.concatenate([ROOM.normal, INWARD[[0, 1, 5]]]),
        np.concatenate([ROOM.offset, [-1.5, -1.1, -0.9]]),  # planes within the room that stand nowhere
        np.repeat([1.0, 0.05], [6, 3]),
    )
    found, margin = solve_labeling(known, [other for other, _ in photos[:1] + photos[2:]], decoys, 10.0, NOWHERE, 0.1)
    bare = known.depth == 0
    assert bare.float().mean() > 0.5
    assert (found == wall)[bare].float().mean() > 0.9
    assert (margin >= 0).all()


def test_no_pixel_shows_what_lies_behind_the_walls_that_bound_the_scene():
    view = VIEWS[1]
    _, depth = looked(view)
    assert in_front_of_bounds(ROOM, 0.1, view, depth[None] + 0.05).all()
    assert not in_front_of_bounds(ROOM, 0.01, view, 1.1 * depth[None]).any()
    known, _ = photo(view, band_px=0)
    unknown = known._replace(depth=torch.zeros_like(depth))
    behind = PlaneSet(ROOM.normal, ROOM.offset - 0.5, ROOM.support)  # a room around the room
    assert (solve_labeling(unknown, [], behind, 10.0, NOWHERE, 0.1)[0] >= 0).float().mean() > 0.5
    assert (solve_labeling(unknown, [], behind, 10.0, ROOM, 0.1)[0] == -1).all()
    outside = camera((5.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert in_front_of_bounds(
        PlaneSet(INWARD[:1], ROOM.offset[:1], np.ones(1)), 0.1, outside, torch.full_like(depth, 0.5)[None]
    ).all()


def test_what_other_photos_see_through_is_not_taken():
    view = VIEWS[0]
    known, _ = photo(view, band_px=0)
    wall, depth = looked(VIEWS[2])
    seeing = PlanarView(VIEWS[2], PAINT[wall].permute(2, 0, 1), depth)
    before = PlaneSet(INWARD[1:2], np.array([-0.4]), np.ones(1))
    w, _, _ = plane_fields(before, view)
    blind = PlanarView(seeing.view, seeing.color, torch.zeros_like(depth))
    asked, free = unary_costs(known, [seeing], w, w > 0.1)[0], unary_costs(known, [blind], w, w > 0.1)[0]
    shown = (w[0] > 0) & (asked < 100)
    assert shown.any()
    assert ((asked - free)[shown] > 0.49).float().mean() > 0.4


def test_turning_is_cheap_at_edges_of_the_picture():
    gray = torch.zeros(10, 10)
    gray[:, 5:] = 0.5
    cost = smoothness_costs(gray)
    assert cost[5, 5] < 0.2 * cost[5, 0]


def test_ways_to_a_pixel_come_from_all_eight_sides():
    """One pixel alone has a reason; what it does to its eight neighbours is the same for all."""
    unary = torch.zeros(2, 5, 5)
    unary[0, 2, 2] = 1.0  # the plane costs there, none does not
    total = aggregate_costs(unary, torch.ones(1, 5, 5), torch.full((5, 5), 0.3))
    around = total[0] - total[1]
    neighbours = torch.cat([around[1:4, 1:4].flatten()[:4], around[1:4, 1:4].flatten()[5:]])
    assert neighbours.min() == pytest.approx(0.3 / 8)
    assert neighbours.max() == pytest.approx(0.3 / 8)


def test_no_planes_is_no_layout():
    known, _ = photo(VIEWS[0])
    none = PlaneSet(np.array([[0.0, 0.0, 1.0]]), np.array([50.0]), np.ones(1))  # above every camera, facing up
    found, _ = solve_labeling(known, [], none, 10.0, NOWHERE, 0.1)
    assert (found == -1).all()
