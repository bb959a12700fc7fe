"""``import quoin``: what it imports, what a run gives back, and the example of the docs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import quoin
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.stages.fuse.mesh import Mesh
from tests.fixtures.ply_files import write_ply
from tests.fixtures.synthetic import commit, faces_camera, make_run, posed_points, ring_of_cameras, sphere_points
from tests.flows.conftest import LIGHT_STAGES, ROOT, SOURCE
from tests.stages.pose.room import cameras_around, render


def test_import_is_light_and_every_name_of_the_api_exists():
    code = "import sys, quoin; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "prefect", "zarr", "numpy", "pydantic", "trimesh"} & set(done.stdout.split())
    assert all(getattr(quoin, name) for name in quoin.__all__)
    assert {name for names in quoin._MODULES.values() for name in names} == set(quoin.__all__) <= set(dir(quoin))
    with pytest.raises(AttributeError, match="reconstuct"):
        quoin.reconstuct  # noqa: B018


def test_reconstruct_runs_every_stage_and_goes_on_with_a_run(tmp_path):
    (tmp_path / "photos").mkdir()
    script = """
import quoin
for value in (2000, 2000, 3000):
    run = quoin.reconstruct("photos", "run", settings={"fuse.part_faces": value}, device="cpu", progress=False)
print(run)
try:
    quoin.reconstruct("absent", "other")
except quoin.QuoinError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(LIGHT_STAGES), str(SOURCE)])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == f"RunResults({str(tmp_path / 'run')!r})"
    assert "absent" in second
    began = (tmp_path / "run" / "began.txt").read_text().split()
    assert began.count("ingest") == 1
    assert began.count("fuse") == 2, "kept once, and redone for another value"


@pytest.fixture
def run(tmp_path):
    """A run of two photos, one of them not used, with cameras and a mesh of one triangle."""
    made = make_run(tmp_path)
    photo = PhotoRow("a.jpg", "/photos/a.jpg", photo_id=0)
    write_photo_table(made, [photo, PhotoRow("b.jpg", "/photos/b.jpg").rejected(Reason.UNREADABLE)])
    commit(made, "ingest")
    posed_images.write_posed(made, posed_points(ring_of_cameras(3, 4.0), sphere_points(50), faces_camera))
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    mesh = Mesh(triangle, np.array([[0, 1, 2]], np.int32), colors, {"confidence": np.array([0, 0.5, 1], np.float32)})
    write_ply(made.path / "mesh.ply", mesh, np.tile([0.0, 0.0, 1.0], (3, 1)))
    return made


def test_results_of_a_run_are_read_stage_by_stage(run):
    results = quoin.open_run(run.path)
    assert [(photo.name, photo.state, str(photo.rejection or "")) for photo in results.photos()] == [
        ("a.jpg", "used", ""),
        ("b.jpg", "not used", quoin.Reason.UNREADABLE.text),
    ]
    for read in (results.cameras, results.mesh, results.report):
        with pytest.raises(quoin.QuoinError, match="quoin resume"):
            read()
    commit(run, "pose")
    commit(run, "fuse")
    results = quoin.open_run(str(run.path))
    cameras = results.cameras()
    assert (cameras.cam_from_world.shape, cameras.intrinsics.shape, cameras.sizes.shape) == ((3, 3, 4), (3, 4), (3, 2))
    assert len(cameras.names) == 3
    mesh = results.mesh()
    np.testing.assert_allclose(mesh.vertices[1], [1, 0, 0])
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], np.eye(3) * 255)
    np.testing.assert_allclose(mesh.vertex_attributes["confidence"], [0, 0.5, 1])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(quoin.QuoinError, match="no quoin run here"):
        quoin.open_run(tmp_path)


def test_settings_have_the_names_of_the_command_line():
    from quoin.flows.api import setting_overrides

    overrides = setting_overrides({"train.steps": 4, "pose.known_poses": ROOT, "priors.sky": False})
    settings = quoin.load_settings("draft", overrides)
    assert (settings.train.steps, settings.pose.known_poses, settings.priors.sky) == (4, str(ROOT), False)


@pytest.mark.slow
def test_the_example_of_the_docs_runs(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number, cam_from_world in enumerate(cameras_around(8)):
        Image.fromarray(render(cam_from_world)).save(tmp_path / "photos" / f"{number}.jpg", quality=97)
    spec = importlib.util.spec_from_file_location("example", ROOT / "docs" / "examples" / "reconstruct.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    settings = {"train.steps": 20, "partition.resolution": 48, "priors.stereo_edge_px": 0, "priors.sky": False}
    example.main(str(tmp_path / "photos"), str(tmp_path / "run"), **settings, **{"pose.max_features": 1000})
    assert "faces from" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report == json.loads(quoin.open_run(tmp_path / "run").report().model_dump_json())
