"""Columns to Parquet and back. Reading a stranger's table for training is `table.py`'s; this is for tables that are ours."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiway.data.source import DataError

__all__ = [
    "TYPES",
    "read_columns",
    "require_pyarrow",
    "rows_in",
    "table_of",
    "vectors_of",
    "write_columns",
    "write_table",
]

TYPES = {
    "row": "int64",
    "image_id": "int64",
    "key": "string",
    "where": "string",
    "caption": "string",
    "captions": "list",
    "given": "list",
    "score": "float32",
    "scores": "scores",
    "source": "int32",
}
"""What the columns of our tables hold, by name; a column of vectors says by its array."""


def require_pyarrow(what: str) -> None:
    """Refuse early where pyarrow is missing.

    Args:
        what: needs it, for the message.

    Raises:
        DataError: naming the extra to install.
    """
    _arrow("pyarrow", what)


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> int:
    """Write a table; the same columns give the same bytes, by the same version of pyarrow.

    Args:
        columns: of equal length, named as in `TYPES`; a two-dimensional array becomes a column of fixed-size lists.

    Returns:
        The number of rows.
    """
    return write_table(path, table_of(columns))


def write_table(path: Path, table: Any) -> int:
    """Write a `pyarrow.Table`; returns the number of its rows."""
    _arrow("pyarrow.parquet", path.name).write_table(table, path)
    return int(table.num_rows)


def table_of(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> Any:
    """A `pyarrow.Table` of the columns that `write_columns` takes."""
    arrow = _arrow("pyarrow", "a table of columns")
    kinds = {
        "int32": arrow.int32(),
        "int64": arrow.int64(),
        "float32": arrow.float32(),
        "string": arrow.string(),
        "list": arrow.list_(arrow.string()),
        "scores": arrow.list_(arrow.float32()),
    }
    made = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
            made[name] = arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            made[name] = arrow.array(values, type=kinds[TYPES[name]])
    return arrow.table(made)


def read_columns(path: Path, names: Sequence[str] | None = None) -> Any:
    """A `pyarrow.Table`, of the named columns or all.

    Raises:
        DataError: if it cannot be read, or lacks one.
    """
    parquet, arrow = _arrow("pyarrow.parquet", path.name), _arrow("pyarrow", path.name)
    try:
        return parquet.read_table(path, columns=None if names is None else list(names))
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise DataError(f"{path}: the table cannot be read ({error}); make it again") from error


def vectors_of(table: Any, name: str) -> np.ndarray:
    """(n, D) of a column of fixed-size lists."""
    column = table.column(name).combine_chunks()
    width = column.type.list_size
    return np.asarray(column.flatten()).reshape(-1, width)


def rows_in(path: Path) -> int:
    """How many rows a table has, by its footer."""
    return int(_arrow("pyarrow.parquet", path.name).ParquetFile(path).metadata.num_rows)


def _arrow(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{what} needs pyarrow, which is not installed; pip install 'multiway[parquet]'") from error
