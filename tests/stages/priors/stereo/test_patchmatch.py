"""Stereo on an analytic scene: slanted and curved surfaces recovered, wrong planes not believed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.fields.device import compile_function
from quoin.pipeline.geometry.cameras import look_at, pixel_grid, rays_world
from quoin.stages.priors.stereo.consistency import geometric_consistency
from quoin.stages.priors.stereo.hypotheses import (
    INVALID_COST,
    MATCHING_PARAMS,
    PlaneHypotheses,
    facing_cosine,
    local_contrast,
    make_windows,
    pack_bilinear_taps,
    plane_cost,
    plane_normals,
    planes_through,
    reproject_planes,
    sensor_planes,
    upsample_planes,
)
from quoin.stages.priors.stereo.patchmatch import PATCHMATCH_PARAMS, PatchMatch
from quoin.stages.priors.stereo.views import StereoView, ray_grid
from tests.fixtures import ball_scene

WIDTH, HEIGHT = 160, 120


def picture(angle, gain=1.0):
    """A view of the ball scene and its true depth map (0 where nothing is hit)."""
    pose = look_at(np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.6]), np.array([0, 0, 0.4]))
    intrinsics = np.array([150.0, 150.0, WIDTH / 2, HEIGHT / 2])
    origin, directions = rays_world(pose, intrinsics, pixel_grid(WIDTH, HEIGHT))
    distance = ball_scene.cast(origin, directions)
    hit = np.isfinite(distance)
    points = origin + directions * np.where(hit, distance, 0)[:, None]
    gray = np.where(hit, ball_scene.texture(points).mean(axis=1), 0.7) * gain
    depth = np.where(hit, distance * (directions @ pose[2, :3]), 0)
    tensors = (gray.reshape(HEIGHT, WIDTH), intrinsics, pose)
    view = StereoView(*(torch.tensor(t, dtype=torch.float32) for t in tensors))
    return view, torch.tensor(depth.reshape(HEIGHT, WIDTH), dtype=torch.float32)


def half(view):
    gray = view.gray.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(dim=(1, 3))
    return StereoView(gray, view.intrinsics / 2, view.cam_from_world)


INVERSE_RANGE = (1 / 5.5, 1 / 1.4)


def true_planes(view, depth):
    """The planes of a depth map, their slants from its differences."""
    w = torch.where(depth > 0, 1 / depth.clamp(min=0.1), 0.0)
    b, a = torch.gradient(w)
    return PlaneHypotheses(w, a, b)


@pytest.fixture(scope="module")
def pictures():
    return [picture(a, g) for a, g in ((0.0, 1.0), (0.22, 0.8), (-0.22, 0.6), (0.4, 1.0), (-0.4, 0.9))]


@pytest.fixture(scope="module")
def searched(pictures):
    """Planes of the first view, found from coarse to fine."""
    search, generator = None, torch.Generator().manual_seed(0)
    for view in (half, lambda v: v):
        reference, *sources = (view(p[0]) for p in pictures)
        finer_search = PatchMatch(reference, sources, 6, INVERSE_RANGE, generator)
        if search is None:
            finer_search.plane_sweep(torch.tensor([0.0, 0, 1]))
        else:
            finer_search.start(upsample_planes(search.planes, reference.gray.shape))
        search = finer_search
        for number in range(4):
            search.propagate(PATCHMATCH_PARAMS.propagation_reaches_px[number % 2])
            search.refine_slant()
            search.perturb(0.5**number)
    return search


def test_depth_of_a_ball_on_a_floor(pictures, searched):
    true = pictures[0][1]
    known = (true > 0) & (searched.cost < 0.4)
    error = ((1 / searched.planes.w - true).abs() / true)[known]
    assert known[true > 0].float().mean() > 0.6
    assert float(error.median()) < 0.002
    assert float((error < 0.01).float().mean()) > 0.9


def test_normals_of_a_floor(pictures, searched):
    view, true = pictures[0]
    rays = ray_grid(view) * true
    world = torch.einsum("ij,jhw->ihw", view.cam_from_world[:, :3].T, rays - view.cam_from_world[:, 3, None, None])
    floor = (true > 0) & (world[2].abs() < 1e-3) & (searched.cost < 0.3)
    up = view.cam_from_world[:, :3] @ torch.tensor([0.0, 0, 1])
    cosine = torch.einsum("i,ihw->hw", up, plane_normals(searched.planes, view))[floor]
    assert floor.sum() > 1000
    assert float(cosine.median()) > np.cos(np.radians(10))


def test_true_planes_cost_less_than_moved_ones(pictures):
    reference, *sources = (p[0] for p in pictures)
    known = make_windows(reference, sources, 6)
    true = true_planes(reference, pictures[0][1])
    cost = [plane_cost(PlaneHypotheses(*(f.reshape(-1) * k for f in true)), known) for k in (1.0, 1.03, 0.97)]
    asked = (pictures[0][1].reshape(-1) > 0) & (cost[0] < 1)
    assert float(cost[0][asked].median()) < 0.1
    for moved in cost[1:]:
        assert float((moved > cost[0])[asked].float().mean()) > 0.9


def test_agreement_believes_right_planes_and_drops_wrong_ones(pictures):
    views, planes = [p[0] for p in pictures[:3]], [true_planes(*p) for p in pictures[:3]]
    true = pictures[0][1]
    count, mean, _ = geometric_consistency(views[0], planes[0], views[1:], planes[1:])
    believed = count >= 1
    assert believed[true > 0].float().mean() > 0.7
    assert float(((mean - true).abs() / true.clamp(min=0.1))[believed].median()) < 0.003
    wrong, _, _ = geometric_consistency(views[0], PlaneHypotheses(*(f / 1.1 for f in planes[0])), views[1:], planes[1:])
    assert (wrong >= 1)[true > 0].float().mean() < 0.05


def test_others_see_through_what_is_too_near_and_not_through_what_is_right_or_hidden(pictures):
    views, planes = [p[0] for p in pictures[:3]], [true_planes(*p) for p in pictures[:3]]
    known = pictures[0][1] > 0
    share = []
    for factor in (1.0, 1.25, 0.8):  # of inverse depth: as it is, too near, too far
        moved = PlaneHypotheses(*(f * factor for f in planes[0]))
        share.append(
            float((geometric_consistency(views[0], moved, views[1:], planes[1:])[2] >= 1)[known].float().mean())
        )
    assert share[0] < 0.06  # at outlines, where slopes are wrong
    assert share[1] > 0.6
    assert share[2] < 0.1
    count, mean, through = geometric_consistency(views[0], planes[0], [], [])
    assert not count.any()
    assert not through.any()
    torch.testing.assert_close(mean[known], pictures[0][1][known], rtol=1e-4, atol=1e-4)


def test_planes_of_a_sensor_have_its_depths_and_the_slopes_of_the_surface(pictures):
    view, true = pictures[0]
    found, right = sensor_planes(true), true_planes(view, true)
    torch.testing.assert_close(found.w, right.w)
    known = (true > 0) & (facing_cosine(right, view) > 0.3)
    angle = (plane_normals(found, view) * plane_normals(right, view)).sum(dim=0)[known]
    assert float((angle > np.cos(np.radians(5))).float().mean()) > 0.85
    assert not found.w[true == 0].any()
    jump = torch.where(torch.arange(20) < 10, 1.0, 2.0).expand(12, 20).contiguous()
    assert not sensor_planes(jump).a.any()


def test_what_neighbours_believe_is_carried_over(pictures):
    view, true = pictures[0]
    planes = reproject_planes(view, [(p[0], true_planes(*p)) for p in pictures[1:3]])
    known = (planes.w > 0) & (true > 0)
    assert known.float().mean() > 0.4
    assert float(((1 / planes.w - true).abs() / true)[known].median()) < 0.003
    normals = plane_normals(planes, view), plane_normals(true_planes(view, true), view)
    assert float((normals[0] * normals[1]).sum(dim=0)[known].median()) > 0.99


def test_carrying_keeps_the_nearest():
    view = StereoView(torch.zeros(4, 6), torch.tensor([2.0, 2.0, 3.0, 2.0]), torch.eye(4)[:3])
    flat = torch.zeros(4, 6)
    near, far = (PlaneHypotheses(torch.full((4, 6), w), flat, flat) for w in (0.5, 0.25))
    torch.testing.assert_close(reproject_planes(view, [(view, far), (view, near)]).w, near.w)
    assert float(reproject_planes(view, [(view, near._replace(w=flat))]).w.max()) == 0


@settings(deadline=None)
@given(
    st.floats(0.1, 2.0), st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.integers(0, WIDTH // 2 - 1), st.integers(0, 59)
)
def test_planes_and_normals_are_the_same_thing(inverse, tilt_x, tilt_y, column, row):
    """A plane through its own normals is itself; finer, it has the same inverse depth at the same place."""
    view = half(picture(0.0)[0])
    normal = torch.nn.functional.normalize(torch.tensor([np.sin(tilt_x), np.sin(tilt_y), -1.5]).float(), dim=0)
    rays = ray_grid(view)
    distance = normal @ (rays[:, row, column] / inverse)
    w = torch.einsum("i,ihw->hw", normal, rays) / distance  # one plane, everywhere
    planes = planes_through(view, w, normal[:, None, None].expand_as(rays))
    seen = w > 1e-3
    torch.testing.assert_close(planes.a[:, :-1], w[:, 1:] - w[:, :-1], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(planes.b[:-1], w[1:] - w[:-1], atol=1e-5, rtol=1e-3)
    found = plane_normals(planes, view)
    assert float((found * normal[:, None, None]).sum(dim=0).abs()[seen].min()) > 0.999
    cosine = (rays * normal[:, None, None]).sum(dim=0).abs() / rays.norm(dim=0)
    torch.testing.assert_close(facing_cosine(planes, view)[seen], cosine[seen], atol=2e-3, rtol=0)
    fine = upsample_planes(planes, (HEIGHT, WIDTH)).w.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(dim=(1, 3))
    torch.testing.assert_close(fine, w, atol=1e-5, rtol=1e-4)


def test_contrast_is_local():
    gray = torch.full((20, 30), 0.5)
    gray[:, :10] = torch.rand(20, 10)
    found = local_contrast(gray)
    assert float(found[:, 12:].max()) < 1e-3
    assert float(found[5, 5]) == pytest.approx(float(gray[3:8, 3:8].std(correction=0)), abs=1e-4)


def test_four_grays_in_one_number():
    gray = torch.rand(5, 7)
    four = pack_bilinear_taps(gray).long() & 0xFFFFFFFF
    level = (gray * 255).round().long()
    assert torch.equal(four & 255, level)
    assert torch.equal((four >> 8 & 255)[:, :-1], level[:, 1:])
    assert torch.equal((four >> 16 & 255)[:-1], level[1:])
    assert torch.equal((four >> 24)[:-1, :-1], level[1:, 1:])


def test_one_source_may_explain_a_pixel_but_none_cannot(pictures):
    """Matched in one source, a pixel costs the single view penalty more than in two; matched in none, INVALID_COST."""
    (reference, depth), source = pictures[0], pictures[1][0]
    planes = PlaneHypotheses(*(f.reshape(-1) for f in true_planes(reference, depth)))
    one, twice = (plane_cost(planes, make_windows(reference, [source] * n, 6)) for n in (1, 2))
    matched = (depth.reshape(-1) > 0) & (twice < 0.5)
    torch.testing.assert_close(one[matched], twice[matched] + MATCHING_PARAMS.single_view_penalty)
    away = source._replace(cam_from_world=source.cam_from_world * torch.tensor([[-1.0], [1.0], [-1.0]]))
    assert float(plane_cost(planes, make_windows(reference, [away], 6)).min()) == INVALID_COST


@pytest.mark.compiled
def test_compiled_cost_is_the_eager_one(pictures):
    reference, *sources = (p[0] for p in pictures)
    known = make_windows(reference, sources, 6)
    planes = PlaneHypotheses(*(f.reshape(-1) for f in true_planes(*pictures[0])))
    torch.testing.assert_close(
        compile_function(plane_cost, "cpu")(planes, known), plane_cost(planes, known), atol=1e-2, rtol=0
    )
