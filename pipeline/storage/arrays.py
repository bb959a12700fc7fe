"""Zarr arrays written whole and read back as numpy. Other modules do not call Zarr themselves.

Zarr reads a chunk that is not there as zeros. Here every chunk is written, and one that is missing is an error.
That an array opens does not mean that it is complete: readers trust manifests (``pipeline.storage.run``) only.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore

from quoin.pipeline.storage.layout import damaged_array_error, damaged_file_error

MAX_CHUNK_BYTES = 32 << 20
CHECKED_BYTES = 1 << 30  # of an array, from which on it is looked whether all of it is there before memory is taken
METADATA_FILE = "zarr.json"
_CHUNK_KEY = re.compile(r"(.*)/c(\.\d+)*")
# What zarr raises for metadata or chunks that are not what was written, and for checksums.
_DAMAGE = (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError)


class LocalSceneStore(LocalStore):
    """Zarr's store in a folder; a chunk that does not exist is an error."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return require_chunk(key, await super().get(key, prototype, byte_range))


def require_chunk(key: str, value: Any) -> Any:
    """``value``, which a store has at ``key``; QuoinError where that is a chunk and there is none."""
    if value is None and (found := _CHUNK_KEY.fullmatch(key)):
        raise damaged_array_error(found[1], f"the chunk {key.rpartition('/')[2]} of this array is missing")
    return value


def open_local_group(path: Path) -> zarr.Group:
    """The Zarr v3 group at ``path``, made where absent."""
    return open_group(LocalSceneStore(path))


def open_group(store: Store) -> zarr.Group:
    """The Zarr v3 group at the root of a store, made where it is absent.

    It holds nothing itself: where its metadata cannot be read they are written again.
    """
    try:
        return zarr.open_group(store=store, mode="a", zarr_format=3)
    except _DAMAGE:
        sync(store.delete(METADATA_FILE))
        return zarr.open_group(store=store, mode="a", zarr_format=3)


@contextmanager
def translate_damage(path: str, what: str) -> Iterator[None]:
    """Inside, what is raised for stored values that are not what was written becomes a DamagedError of ``path``."""
    try:
        yield
    except _DAMAGE as error:
        raise damaged_array_error(path, f"{what} ({type(error).__name__}: {error})") from error


def _codecs(dtype: np.dtype) -> list[Any]:
    """Compression, and a checksum that every read compares."""
    blosc = BloscCodec(cname="lz4", shuffle="shuffle", typesize=dtype.itemsize)
    return [ZstdCodec(level=1) if dtype == np.uint8 else blosc, Crc32cCodec()]


def _chunks(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Whole trailing axes, and as much of the first axis as fits in MAX_CHUNK_BYTES."""
    if not shape:
        return ()
    row = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
    return (max(1, min(shape[0] or 1, MAX_CHUNK_BYTES // row)), *(max(1, s) for s in shape[1:]))


def write_array(
    group: zarr.Group,
    name: str,
    values: Any,
    *,
    chunks: tuple[int, ...] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole array at ``name`` ("blocks/b0/sdf"), replacing what was there.

    It has its ``attrs`` only once all of it is written.
    """
    data = np.asarray(values)
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks or _chunks(data.shape, data.dtype),
        compressors=_codecs(data.dtype),
        chunk_key_encoding={"name": "default", "separator": "."},  # files, not folders five deep
        fill_value=0,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    if data.size:
        array[...] = data
    if attrs:
        array.update_attributes(dict(attrs))  # at once: attrs.update would write them one by one


def read_array(group: zarr.Group, name: str, rows: Any = ...) -> np.ndarray:
    """A whole array, or ``rows`` of it; QuoinError where it does not exist, or is not what was written."""
    return read_values(open_array(group, name), rows)


def read_values(array: zarr.Array, rows: Any = ...) -> np.ndarray:
    """The array's values, or those of ``rows``; QuoinError where they are not what was written."""
    with translate_damage(array.path, "this array cannot be read"):
        _check_extent(array)
        return np.asarray(array[rows])


def _check_extent(array: zarr.Array) -> None:
    """ValueError where a large array lacks its last chunk: what metadata announce is not allocated unseen."""
    if array.nbytes <= CHECKED_BYTES:
        return
    last_chunk = array.metadata.encode_chunk_key(tuple(count - 1 for count in array.cdata_shape))
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if chunk_bytes > CHECKED_BYTES or not sync((array.store_path / last_chunk).exists()):
        raise ValueError("its metadata announce more than there is")


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """The array itself, for reading parts of it."""
    node = find_node(group, name)
    if not isinstance(node, zarr.Array):
        raise damaged_array_error(_full_path(group, name), "this array is missing")
    return node


def find_node(group: zarr.Group, name: str) -> zarr.Array | zarr.Group | None:
    """The array or group at ``name``, None where there is none; QuoinError where its metadata cannot be read."""
    with translate_damage(_full_path(group, name), "its metadata cannot be read"):
        node = group.get(name)
        if node is None and exists(group, name):  # Zarr takes metadata without their keys for none
            raise ValueError("keys are missing")
        if node is not None and not isinstance(node.metadata.attributes, dict):
            raise ValueError("its attributes are no mapping")
        return node


def exists(group: zarr.Group, name: str) -> bool:
    """Whether there is an array or a group at ``name``, whether it can be read or not."""
    return bool(sync((group.store_path / name / METADATA_FILE).exists()))


def read_attributes(group: zarr.Group, name: str) -> dict[str, Any]:
    """Attributes of the array or group at ``name``; none where it does not exist."""
    node = find_node(group, name)
    return {} if node is None else dict(node.attrs)


def read_npz(path: Path, name: str, keys: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays in a file of np.savez, which the run calls ``name``; DamagedError where one of ``keys`` is missing."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            return {key: saved[key] for key in (keys or saved.files)}
    except (*_DAMAGE, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise damaged_file_error(name, f"this file cannot be read ({type(error).__name__}: {error})") from error


def delete_node(group: zarr.Group, name: str) -> None:
    """Remove an array or a group with all below it, where it exists, whether it can be read or not."""
    del group[name]


def _full_path(group: zarr.Group, name: str) -> str:
    return f"{group.path}/{name}".lstrip("/")
