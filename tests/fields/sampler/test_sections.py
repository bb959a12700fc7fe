"""Even samples and the sections between them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from quoin.fields.sampler.sections import section_lengths, sections_between, stratified_samples
from tests.fixtures.rays import ray_segments


@given(st.integers(0, 1000), st.integers(2, 20))
def test_every_stratum_holds_one_sample(seed, n_samples):
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(8, generator=generator, dtype=torch.float64)
    far = near + 0.1 + torch.rand(8, generator=generator, dtype=torch.float64)
    jitter = torch.rand(8, n_samples, generator=generator, dtype=torch.float64)
    distance, length = stratified_samples(near, far, jitter)
    stratum = ((distance - near[:, None]) / (far - near)[:, None] * n_samples).floor()
    assert (stratum == torch.arange(n_samples)).all()
    assert (length > 0).all()


def test_one_jitter_for_all_samples_of_a_ray_keeps_them_equidistant():
    distance, length = stratified_samples(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([[0.25]]).expand(1, 4))
    torch.testing.assert_close(distance, torch.tensor([[1.125, 1.625, 2.125, 2.625]]))
    torch.testing.assert_close(length, torch.full((1, 4), 0.5))


def test_sections_around_samples_meet_midway():
    length = section_lengths(torch.tensor([[1.0, 2.0, 4.0, 4.5]]))
    torch.testing.assert_close(length, torch.tensor([[1.0, 1.5, 1.25, 0.5]]))


def test_sections_between_edges_tile_the_ray():
    middle, length = sections_between(torch.tensor([[1.0, 2.0, 4.0, 4.5]]))
    torch.testing.assert_close(middle, torch.tensor([[1.5, 3.0, 4.25]]))
    torch.testing.assert_close(length, torch.tensor([[1.0, 2.0, 0.5]]))


def test_points_lie_on_their_rays():
    origins, directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.eye(3)[:2]
    points = ray_segments(origins, directions, torch.zeros(2), torch.ones(2)).points(
        torch.tensor([[0.0, 2.0], [1.0, 3.0]])
    )
    assert points.tolist() == [[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [[0.0, 2.0, 0.0], [0.0, 4.0, 0.0]]]
