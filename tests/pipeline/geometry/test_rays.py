"""Rays: unit vectors, the slab test against boxes worked out by hand, and its twin in torch."""

from __future__ import annotations

import numpy as np
import torch

from quoin.fields.sampler import box
from quoin.pipeline.geometry.rays import intersect_ray_box, normalize

LOW, HIGH = np.array([-1.0, -2.0, -3.0]), np.array([1.0, 2.0, 3.0])


def test_normalize() -> None:
    vectors = np.array([[[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(normalize(vectors), [[[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]]])
    assert normalize(vectors.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(normalize(np.array([[0.5, 0.0]]), eps=2.0), [[0.25, 0.0]])


def test_a_ray_crosses_a_box_from_face_to_face() -> None:
    origins = np.array([[-5.0, 0, 0], [0, 0, 0], [0.5, 9, 0], [-5, 2.5, 0], [5, 0, 0]])
    directions = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0], [1, 0, 0], [1, 0, 0]])
    near, far = intersect_ray_box(origins, directions, LOW, HIGH)
    np.testing.assert_allclose(near[:3], [4, 0, 7])
    np.testing.assert_allclose(far[:3], [6, 3, 11])
    np.testing.assert_array_equal(far[3:], near[3:])  # beside the box, and behind the origin


def test_torch_twin_of_the_slab_test() -> None:
    rng = np.random.default_rng(0)
    origins, directions = rng.uniform(-4, 4, (5000, 3)), normalize(rng.normal(size=(5000, 3)))
    directions[:300, 0] = 0.0
    near, far = intersect_ray_box(origins, directions, LOW, HIGH)
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in (origins, directions, LOW, HIGH)]
    twin = box.intersect_ray_box(*tensors)
    near_twin, far_twin, hit_twin = twin.near.numpy(), twin.far.numpy(), twin.hits.numpy()
    clear = np.abs(far - near - 1e-6) > 1e-4  # rays that graze an edge may fall to either side
    np.testing.assert_array_equal(hit_twin[clear], (far > near)[clear])
    hit = (far > near) & clear
    np.testing.assert_allclose(near_twin[hit], near[hit], atol=1e-4)
    np.testing.assert_allclose(far_twin[hit], far[hit], atol=1e-4)
