"""Normals of depth maps."""

import numpy as np

from quoin.stages.priors.stereo.normals import depth_normals


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
