"""The one place that touches Zarr: arrays written whole or by aligned regions, read back as numpy.

Arrays are created once, by the driver. A chunk or shard has one writer; a region that cuts one is refused.
That an array opens does not mean it is complete: readers trust manifests (``pipeline.storage.run``) only.
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


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    chunks: tuple[int, ...] | None = None,
    fill_value: Any = 0,
) -> zarr.Array:
    """A new array at ``name`` ("blocks/b0/sdf"), replacing what was there."""
    kind = np.dtype(dtype)
    return group.create_array(
        name,
        shape=shape,
        dtype=kind,
        chunks=chunks or _chunks(shape, kind),
        compressors=_codecs(kind),
        chunk_key_encoding={"name": "default", "separator": "."},  # files, not folders five deep
        fill_value=fill_value,
        overwrite=True,
    )


def write_array(
    group: zarr.Group,
    name: str,
    values: Any,
    *,
    chunks: tuple[int, ...] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole array at ``name``, replacing what was there; it has its ``attrs`` once all of it is written."""
    data = np.asarray(values)
    array = create_array(group, name, data.shape, data.dtype, chunks=chunks)
    if data.size:
        array[...] = data
    if attrs:
        array.update_attributes(dict(attrs))  # at once: attrs.update would put them one by one


def write_rows(array: zarr.Array, start: int, values: np.ndarray) -> None:
    """Write rows ``start : start + len(values)``; refuses a region not aligned to whole chunks of the first axis.

    The last chunk may be a part: a region that ends with the array is whole.
    """
    step = (array.shards or array.chunks)[0]
    stop = start + len(values)
    if stop > array.shape[0]:
        raise QuoinError(f"Rows {start}:{stop} lie beyond the {array.shape[0]} there are", where=array.name)
    if start % step or (stop % step and stop != array.shape[0]):
        raise QuoinError(
            f"Rows {start}:{stop} cut a chunk of {step} rows that another writer may own",
            where=array.name,
            hint="write whole chunks",
        )
    array[start:stop] = values


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
