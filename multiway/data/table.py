"""Tables on disk (JSON Lines, JSON, CSV, TSV, Parquet) as records with the place each came from.

The format follows the file's suffix. Whatever makes the table itself doubtful (bad JSON, wrong encoding, a quote that
is never closed) is a `DataError` here, since rows after it cannot be trusted; what is wrong inside one record is the
reader's business.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from multiway.data.source import DataError

__all__ = ["TABLE_SUFFIXES", "Record", "Table", "WrongWidth"]

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

_PEEK = 1000  # records whose fields are looked at to learn the columns of a format without a header


@dataclass(frozen=True)
class WrongWidth:
    """Stands in for a record whose line has another number of columns than the header."""

    found: int
    expected: int


@dataclass(frozen=True)
class Record:
    """One row of a table: `where` names file and line; `values` are the columns, or why they cannot be told apart."""

    where: str
    values: dict[str, Any] | WrongWidth


class Table:
    """A table file.

    Args:
        path: its suffix says the format.

    Attributes:
        columns: names of the columns, in order; for JSON, the fields of the first thousand records.

    Raises:
        DataError: if there is no such file, its format is unknown, it is empty or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = path.suffix.lower()
        if self.suffix not in TABLE_SUFFIXES:
            raise DataError(
                f"{path.name}: cannot read a table of type {path.suffix or 'none'}; expected {', '.join(TABLE_SUFFIXES)}"
            )
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; correct the path")
        self.columns = self._columns()
        if not self.columns:
            raise DataError(f"{path.name}: the file has no rows; nothing can be read from it")

    def records(self, columns: tuple[str, ...]) -> Iterator[Record]:
        """All rows in order; formats that store columns apart read only those asked for."""
        if self.suffix == ".parquet":
            return self._parquet(columns)
        return {".csv": self._csv, ".tsv": self._tsv, ".json": self._json}.get(self.suffix, self._json_lines)()

    def _columns(self) -> tuple[str, ...]:
        if self.suffix == ".parquet":
            return tuple(self._parquet_file().schema_arrow.names)
        if self.suffix in (".csv", ".tsv"):
            header = next(self._split_lines(), None)
            return tuple(header[1]) if header else ()
        found: dict[str, None] = {}
        for record in islice(self.records(()), _PEEK):
            assert isinstance(record.values, dict)
            found.update(dict.fromkeys(record.values))
        return tuple(found)

    # --- text

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Number from 1 and text of each line, decoded one by one so that a wrong byte has an address."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise DataError(
                            f"{self.path.name}: the file is UTF-16; expected UTF-8, convert it: iconv -f UTF-16 -t UTF-8 {self.path.name}"
                        )
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path.name}, line {number}: byte {error.object[error.start]:#04x} at column {error.start + 1} is not "
                        f"UTF-8; convert the file (if it is Latin-1: iconv -f LATIN1 -t UTF-8 {self.path.name})"
                    ) from error

    def _json_lines(self) -> Iterator[Record]:
        for number, line in self._lines():
            if line.strip():
                where = f"{self.path.name}, line {number}"
                yield Record(where, self._object(self._parse(line, where), where))

    def _json(self) -> Iterator[Record]:
        listed = self._parse("".join(line for _, line in self._lines()), self.path.name)
        if not isinstance(listed, list):
            raise DataError(
                f"{self.path.name}: the file holds one {type(listed).__name__}; expected a list of objects, a picture and its captions each"
            )
        for number, value in enumerate(listed, 1):
            where = f"{self.path.name}, row {number}"
            yield Record(where, self._object(value, where))

    @staticmethod
    def _parse(text: str, where: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: this is not valid JSON ({error}); correct it or write the file again") from error

    @staticmethod
    def _object(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(
                f'{where}: found {value!r:.40}; expected an object such as {{"image": "a.jpg", "caption": "a cat"}}'
            )
        return value

    def _csv(self) -> Iterator[Record]:
        return self._with_header()

    def _tsv(self) -> Iterator[Record]:
        return self._with_header()

    def _with_header(self) -> Iterator[Record]:
        rows = self._split_lines()
        next(rows, None)
        for number, row in rows:
            if not row:
                continue
            where = f"{self.path.name}, line {number}"
            wide = len(row) == len(self.columns)
            yield Record(where, dict(zip(self.columns, row)) if wide else WrongWidth(len(row), len(self.columns)))

    def _split_lines(self) -> Iterator[tuple[int, list[str]]]:
        """Line number on which each row begins, and its fields.

        CSV has quotes, and with them fields of several lines. TSV by definition has none, and captions of scraped text
        are full of stray ones; only a field that is quoted as a whole is unwrapped, since some programs write such.
        """
        if self.suffix == ".tsv":
            for number, line in self._lines():
                text = line.rstrip("\r\n")
                yield number, [_unwrapped(field) for field in text.split("\t")] if text else []
            return
        reader = csv.reader((line for _, line in self._lines()), strict=True)
        while True:
            first = reader.line_num + 1
            # The module's limit of 128 KiB per field would end the file at one long caption. It is raised only while a
            # row is being read, and put back, because it belongs to the whole process.
            limit = csv.field_size_limit(1 << 30)
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{self.path.name}, line {first}: the row cannot be split into columns ({error}); close its quotes, "
                    f'and double those inside a caption: "a ""quoted"" word"'
                ) from error
            finally:
                csv.field_size_limit(limit)
            yield first, row

    # --- Parquet

    def _parquet_file(self) -> Any:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise DataError(
                f"{self.path.name}: reading Parquet needs pyarrow; pip install 'multiway[parquet]'"
            ) from error
        try:
            return parquet.ParquetFile(self.path)
        except (OSError, ValueError, _arrow_error()) as error:
            raise DataError(
                f"{self.path.name}: this is not a readable Parquet file ({error}); write it again"
            ) from error

    def _parquet(self, columns: tuple[str, ...]) -> Iterator[Record]:
        file = self._parquet_file()
        for name in columns:
            kind = str(file.schema_arrow.field(name).type)
            if "binary" in kind:
                raise DataError(
                    f"{self.path.name}: column `{name}` holds bytes ({kind}), pictures stored inside the table; expected paths: "
                    "save the pictures as files, or as WebDataset shards, and name them here"
                )
        number = 0
        try:
            for batch in file.iter_batches(columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(f"{self.path.name}, row {number}", values)
        except (OSError, ValueError, OverflowError, _arrow_error()) as error:
            raise DataError(f"{self.path.name}: cannot be read after row {number} ({error}); write it again") from error


def _arrow_error() -> type[Exception]:
    """What all of pyarrow's own errors are, some of them nothing else."""
    found: type[Exception] = importlib.import_module("pyarrow").ArrowException
    return found


def _unwrapped(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else field
