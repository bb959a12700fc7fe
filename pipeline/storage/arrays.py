"""Zarr arrays written whole and read back as numpy. Other modules do not call Zarr themselves.

Zarr reads a chunk that is not there as zeros. Here every chunk is written, and one that is missing is an error.
That an array opens does not mean that it is complete: readers trust manifests (``pipeline.storage.run``) only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from quoin.pipeline.storage.layout import damaged_array_error

MAX_CHUNK_BYTES = 32 << 20
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
    """The Zarr v3 group at the root of a store, made where absent; QuoinError where its metadata cannot be read."""
    try:
        return zarr.open_group(store=store, mode="a", zarr_format=3)
    except _DAMAGE as error:
        raise damaged_array_error("zarr.json", f"the metadata of scene.zarr cannot be read ({error})") from error


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
    try:
        return np.asarray(array[rows])
    except _DAMAGE as error:
        raise damaged_array_error(array.path, f"{error}") from error


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """The array itself, for reading parts of it."""
    path = f"{group.path}/{name}".lstrip("/")
    try:
        node = group.get(name)
    except _DAMAGE as error:
        raise damaged_array_error(path, f"the metadata of this array cannot be read ({error})") from error
    if not isinstance(node, zarr.Array):
        raise damaged_array_error(path, "this array is missing")
    return node


def delete_node(group: zarr.Group, name: str) -> None:
    """Remove an array or a group with all below it, where it exists."""
    if name in group:
        del group[name]
