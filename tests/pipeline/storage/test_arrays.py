"""Arrays come back as they were written; a region another writer may own is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import arrays

DTYPES = [np.uint8, np.int64, np.float16, np.float32, np.float64, np.bool_]


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    return arrays.open_local_group(tmp_path / "scene.zarr")


@given(data=st.data())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    values = data.draw(hnp.arrays(dtype, shape))
    path = tmp_path_factory.mktemp("store") / "scene.zarr"
    arrays.write_array(arrays.open_local_group(path), "a/b", values)
    back = arrays.read_array(arrays.open_local_group(path), "a/b")
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_a_second_write_replaces_shape_and_type(group: zarr.Group):
    arrays.write_array(group, "a", np.ones((4, 3)), attrs={"unit": "m"})
    arrays.write_array(group, "a", np.zeros(2, np.int64))
    assert arrays.read_array(group, "a").dtype == np.int64
    assert dict(arrays.open_array(group, "a").attrs) == {}


def test_large_arrays_are_cut_into_chunks_of_bounded_size(group: zarr.Group, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrays, "MAX_CHUNK_BYTES", 1000)
    values = np.arange(1000, dtype=np.float64).reshape(100, 10)
    arrays.write_array(group, "a", values)
    assert arrays.open_array(group, "a").chunks == (12, 10)
    np.testing.assert_array_equal(arrays.read_array(group, "a"), values)


def test_attributes_say_that_an_array_was_written_to_its_end(group: zarr.Group, monkeypatch: pytest.MonkeyPatch):
    arrays.write_array(group, "whole", np.ones(3), attrs={"level": 1})
    assert arrays.open_array(group, "whole").attrs["level"] == 1

    def killed(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zarr.Array, "__setitem__", killed)
    for name in ("whole", "new"):  # an older one is not taken for the new one either
        with pytest.raises(KeyboardInterrupt):
            arrays.write_array(group, name, np.ones(3), attrs={"level": 1})
        assert "level" not in arrays.open_array(group, name).attrs


def test_an_array_that_is_missing_says_which(group: zarr.Group):
    group.require_group("poses")
    for name in ("absent", "poses", "poses/absent"):
        with pytest.raises(QuoinError) as caught:
            arrays.read_array(group, name)
        assert caught.value.where == name


def test_delete_takes_all_below_and_minds_no_absence(group: zarr.Group):
    arrays.write_array(group, "a/b/c", np.ones(3))
    arrays.write_array(group, "a2", np.ones(3))
    arrays.delete_node(group, "a")
    arrays.delete_node(group, "a")
    assert "a" not in group
    assert arrays.read_array(group, "a2").shape == (3,)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float16, np.int64])
def test_a_byte_that_is_turned_is_told(tmp_path, kind):
    group = arrays.open_local_group(tmp_path / "s")
    arrays.write_array(group, "a/b", np.arange(200).reshape(40, 5).astype(kind))
    [chunk] = tmp_path.rglob("c.*")
    whole = chunk.read_bytes()
    for place in range(0, len(whole), 7):
        chunk.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(QuoinError, match=r"damaged.*a/b"):
            arrays.read_array(group, "a/b")
    chunk.write_bytes(whole[:-9])
    with pytest.raises(QuoinError, match="damaged"):
        arrays.read_array(group, "a/b", slice(0, 2))
    chunk.write_bytes(whole)
    assert (arrays.read_array(group, "a/b", 3) == np.arange(15, 20)).all()


@pytest.mark.parametrize("values", [np.arange(1, 1001.0).reshape(10, 100), np.zeros((10, 100))])
def test_a_chunk_that_is_gone_is_named_with_the_stage_to_redo(tmp_path, values):
    group = arrays.open_local_group(tmp_path / "s")
    arrays.write_array(group, "blocks/b0/sdf", values, chunks=(3, 100))
    chunks = sorted((tmp_path / "s" / "blocks" / "b0" / "sdf").glob("c.*"))
    assert len(chunks) == 4, "those of zeros, and the one that ends beyond the array, too"
    chunks[1].unlink()
    for rows in (..., 4):
        with pytest.raises(QuoinError, match=r"the chunk c\.1\.0 .* is missing.*'blocks/b0/sdf'.*--force train"):
            arrays.read_array(group, "blocks/b0/sdf", rows)
    np.testing.assert_array_equal(arrays.read_array(group, "blocks/b0/sdf", slice(6, 10)), values[6:10])
    arrays.write_array(group, "blocks/b0/sdf", values)
    np.testing.assert_array_equal(arrays.read_array(group, "blocks/b0/sdf"), values)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"zarr_format": 3, "node_type": "array"}', "\x00" * 300])
def test_metadata_that_is_damaged_is_named(tmp_path, text):
    group = arrays.open_local_group(tmp_path / "s")
    arrays.write_array(group, "priors/000001/depth", np.ones((3, 4), np.float32))
    (tmp_path / "s/priors/000001/depth/zarr.json").write_text(text)
    with pytest.raises(QuoinError, match=r"damaged: .*(metadata|missing)"):
        arrays.read_array(arrays.open_local_group(tmp_path / "s"), "priors/000001/depth")
