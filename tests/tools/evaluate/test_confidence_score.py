"""Confidence is scored against errors that the test has made itself."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from quoin.tools.evaluate.confidence_score import score_confidence
from quoin.tools.evaluate.reference_surface import SurfaceGeometry
from quoin.tools.evaluate.score import score_surface

TRUTH = trimesh.creation.icosphere(subdivisions=4)
REFERENCE = SurfaceGeometry(np.array(TRUTH.vertices), np.array(TRUTH.faces, np.int64))


def spoiled() -> tuple[SurfaceGeometry, np.ndarray]:
    """A ball that is too small, by 0 at the top to 0.1 at the bottom, and that error [v]."""
    error = 0.1 * (1 - REFERENCE.vertices[:, 2]) / 2
    return SurfaceGeometry(REFERENCE.vertices * (1 - error)[:, None], REFERENCE.faces), error


def test_errors_fall_with_a_confidence_that_knows_them_and_rise_with_one_that_lies() -> None:
    mesh, error = spoiled()
    scored = score_surface(mesh, REFERENCE, (0.04, 0.2), n_samples=4000)
    told = score_confidence(mesh, 1 - 10 * error, REFERENCE, scored, n_samples=4000)
    assert told is not None
    # heights of an even sphere are uniform: quarter k of the vertices has errors about 0.1 (k + 1/2) / 4
    np.testing.assert_allclose([p.mean_m for p in told.parts], [0.0875, 0.0625, 0.0375, 0.0125], atol=0.004)
    assert [p.precision[0] for p in told.parts] == pytest.approx([0, 0, 0.6, 1], abs=0.1)
    assert all(p.precision[1] == 1 for p in told.parts)
    assert told.parts[0].high <= told.parts[1].low
    assert sum(p.n_vertices for p in told.parts) == len(mesh.vertices)
    assert told.confident_share == pytest.approx(0.53, abs=0.03)  # the upper half is larger
    assert told.confident[0].precision > scored.scores[0].precision + 0.3
    assert told.confident[0].recall == pytest.approx(scored.scores[0].recall, abs=0.02)
    lies = score_confidence(mesh, 10 * error, REFERENCE, scored, n_samples=4000)
    assert lies is not None
    assert [p.mean_m for p in lies.parts] == pytest.approx([p.mean_m for p in told.parts][::-1], abs=0.002)
    assert lies.confident[0].precision < scored.scores[0].precision


def test_a_mesh_beside_the_reference_has_nothing_to_judge_and_a_doubtful_one_no_confident_part() -> None:
    mesh, error = spoiled()
    far = SurfaceGeometry(mesh.vertices + 50, mesh.faces)
    scored = score_surface(far, REFERENCE, (0.1,), n_samples=1000)
    assert score_confidence(far, error, REFERENCE, scored, n_samples=1000) is None
    none = score_confidence(mesh, np.zeros(len(error)), REFERENCE, scored, n_samples=1000)
    assert none is not None
    assert none.confident_share == 0.0
    assert none.confident[0].f_score == 0.0
