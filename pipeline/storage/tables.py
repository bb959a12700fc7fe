"""Tables of a run (tables/<name>.parquet): the one writer and the one reader of Parquet, which tells a damaged file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quoin.pipeline.core.errors import first_line
from quoin.pipeline.storage.layout import damaged_file_error
from quoin.pipeline.storage.run import Run

# tables/train_<block>, by train: a row for each metric that was measured at a step, seconds after the block began
METRIC_SCHEMA = pa.schema(
    [("step", pa.int64()), ("seconds", pa.float64()), ("name", pa.string()), ("value", pa.float64())]
)


def write_table(run: Run, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> None:
    """Write tables/<name>.parquet, replacing what was there; without a ``schema`` it is that of the rows."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), run.table(name))


def read_table(
    run: Run, name: str, schema: pa.Schema, *, filters: list[tuple] | None = None, optional: Collection[str] = ()
) -> pa.Table:
    """The columns of ``schema`` in tables/<name>.parquet; QuoinError where it lacks one, or cannot be read.

    Those that are ``optional`` may be missing.
    """
    file = f"tables/{name}.parquet"
    return read_parquet(run.file(file), file, schema, filters=filters, optional=optional)


def read_parquet(
    path: Path, name: str, schema: pa.Schema, *, filters: list[tuple] | None = None, optional: Collection[str] = ()
) -> pa.Table:
    """The columns of ``schema`` in the table at ``path``, which the run calls ``name``."""
    try:
        missing = set(optional) - set(pq.read_schema(path).names) if optional else set()
        schema = pa.schema([field for field in schema if field.name not in missing])
        table = pq.read_table(path, columns=schema.names, filters=filters).select(schema.names).cast(schema)
        table.validate(full=True)
    except FileNotFoundError as error:
        raise damaged_file_error(name, "this table is missing") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise damaged_file_error(name, f"this table cannot be read ({first_line(error)})") from error
    return table
