"""Zarr arrays written whole and read back as numpy. Other modules do not call Zarr themselves.

That an array opens does not mean that it is complete: readers trust manifests (``pipeline.storage.run``) only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from quoin.pipeline.core.errors import QuoinError

MAX_CHUNK_BYTES = 32 << 20


def open_local_group(path: Path) -> zarr.Group:
    """The Zarr v3 group at ``path``, made where absent."""
    return zarr.open_group(str(path), mode="a", zarr_format=3)


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
    except (ValueError, RuntimeError) as error:  # of the checksum, or of decompressing
        hint = "redo its stage with --force"
        raise QuoinError(f"The run's store is damaged: {error}", where=array.store_path, hint=hint) from error


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """The array itself, for reading parts of it."""
    node = group.get(name)
    if not isinstance(node, zarr.Array):
        raise QuoinError("The run's store lacks an array", where=name, hint="redo its stage with --force")
    return node


def delete_node(group: zarr.Group, name: str) -> None:
    """Remove an array or a group with all below it, where it exists."""
    if name in group:
        del group[name]
