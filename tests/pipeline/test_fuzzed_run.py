"""Whatever is in the files of a run: reading them gives a value or a QuoinError, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quoin.flows.pipeline import STAGES
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import (
    read_block,
    read_block_model,
    read_held_out,
    read_partition,
    read_sdf_brick,
)
from quoin.pipeline.scene.manhattan import read_manhattan_frame
from quoin.pipeline.scene.mesh_formats import committed_mesh, decode_glb
from quoin.pipeline.scene.photo_table import read_photo_table, read_pose_rows
from quoin.pipeline.scene.ply_format import read_ply_surface, read_vertex_property
from quoin.pipeline.scene.sensor_depth import read_sensor_scale
from quoin.pipeline.scene.world import read_world
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.tables import METRIC_SCHEMA, read_table
from tests.pipeline.test_damaged_run import whole

__all__ = ["whole"]

Reader = Callable[[Run], object]


def read_frame(run: Run) -> None:
    for read in (read_world, read_manhattan_frame, read_sensor_scale):
        read(run)
    posed_images.read_transform(run, "world_from_sfm")


def read_blocks(run: Run) -> None:
    read_partition(run)
    read_block(run, "b000")
    read_held_out(run)


def read_ply(run: Run) -> None:
    path = committed_mesh(run, "mesh.ply")
    read_ply_surface(path)
    read_vertex_property(path, "confidence")


def read_results(run: Run) -> None:
    for stage in STAGES:
        if run.manifest(stage.name):
            try:
                run.result(stage.name, stage.result)
            except QuoinError:
                stage.incomplete(run)


BINARY: dict[str, Reader] = {
    "run.json": read_results,
    "tables/photos.parquet": read_photo_table,
    "tables/poses.parquet": read_pose_rows,
    "tables/train_b000.parquet": lambda run: read_table(run, "train_b000", METRIC_SCHEMA),
    "scene.zarr/poses/zarr.json": posed_images.read_posed,
    "scene.zarr/poses/sizes/c.0.0": posed_images.read_posed,
    "scene.zarr/photos/000000/rgb0/c.0.0.0": lambda run: posed_images.read_photo(run, 0),
    "mesh.ply": read_ply,
    "mesh.glb": lambda run: decode_glb(committed_mesh(run, "mesh.glb").read_bytes()),
}
METADATA: dict[str, Reader] = {
    "run.json": read_results,
    "scene.zarr/zarr.json": posed_images.read_posed,
    "scene.zarr/poses/zarr.json": posed_images.read_posed,
    "scene.zarr/poses/sizes/zarr.json": posed_images.read_posed,
    "scene.zarr/frame/zarr.json": read_frame,
    "scene.zarr/blocks/zarr.json": read_blocks,
    "scene.zarr/blocks/b000/zarr.json": read_blocks,
    "scene.zarr/blocks/b000/sdf/zarr.json": lambda run: read_sdf_brick(run, "b000", 0),
    "scene.zarr/blocks/b000/model/zarr.json": lambda run: read_block_model(run, "b000"),
    "scene.zarr/priors/000000/depth/zarr.json": lambda run: priors.read_depth(run, 0),
}


@pytest.fixture(scope="module")
def run(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    shutil.copytree(whole.path, tmp_path_factory.mktemp("fuzzed") / "run")
    return Run.open(tmp_path_factory.getbasetemp() / "fuzzed0" / "run")


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with some bytes replaced, taken away or put in, or anything else."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 3))):
        at, n = draw(st.integers(0, max(len(data) - 1, 0))), draw(st.integers(0, 8))
        data = data[:at] + draw(st.binary(max_size=8)) + data[at + n :]
    return data


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**15, 10**30]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["..", "../../x", "float64", "|O", "NaN", "\ud800", "bytes", "group", "array", "numcodecs.pickle"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def paths_in(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in a JSON document."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [above, *(path for key, value in below for path in paths_in(value, (*above, key)))]


@st.composite
def changed_json(draw: st.DrawFn, data: bytes) -> bytes:
    """A JSON document in which one value is another, or missing."""
    tree = deepcopy(json.loads(data))
    path = draw(st.sampled_from(paths_in(tree)))
    if not path:
        return json.dumps(draw(VALUES)).encode()
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if draw(st.booleans()):
        parent[path[-1]] = draw(VALUES)
    else:
        del parent[path[-1]]
    return json.dumps(tree).encode()


def fuzz(run: Run, name: str, read: Reader, content: Callable[[bytes], st.SearchStrategy[bytes]], n: int) -> None:
    path = run.path / name
    data = path.read_bytes()
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

    @settings(max_examples=n, suppress_health_check=quiet)
    @given(content(data))
    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        with suppress(QuoinError):
            read(Run.open(run.path))

    try:
        check()
    finally:
        path.write_bytes(data)


N_EXAMPLES = pytest.mark.parametrize(
    "n", [100, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)


@N_EXAMPLES
@pytest.mark.parametrize("name", BINARY)
def test_any_bytes(run: Run, name: str, n: int) -> None:
    fuzz(run, name, BINARY[name], changed_bytes, n)


@N_EXAMPLES
@pytest.mark.parametrize("name", METADATA)
def test_any_metadata(run: Run, name: str, n: int) -> None:
    fuzz(run, name, METADATA[name], changed_json, n)
