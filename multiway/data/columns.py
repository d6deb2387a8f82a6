"""Which column of a table holds what: by the field's usual names, or as given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multiway.data.source import DataError
from multiway.data.table import Table

__all__ = ["CAPTION_COLUMNS", "IMAGE_COLUMNS", "Columns"]

# In order of preference; compared without regard to case.
IMAGE_COLUMNS = (
    "image",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "path",
    "img",
    "img_path",
    "image_file",
    "image_name",
    "file",
)
CAPTION_COLUMNS = (
    "captions",
    "caption",
    "texts",
    "text",
    "title",
    "sentences",
    "sentence",
    "description",
    "alt_text",
    "comment",
)
_OPTIONAL = ("image_id", "label", "split", "key")


@dataclass(frozen=True)
class Columns:
    """Which column holds what; None where the file has no such column."""

    image: str
    caption: str
    image_id: str | None
    label: str | None
    split: str | None
    key: str | None

    @classmethod
    def of(cls, table: Table, image: str | None, caption: str | None) -> Columns:
        """The columns of a table.

        Args:
            image, caption: names, if unusual.

        Raises:
            DataError: listing the columns there are, if one is missing.
        """
        image = _column(table, image, IMAGE_COLUMNS, "picture paths", "--image-column")
        caption = _column(table, caption, CAPTION_COLUMNS, "captions", "--caption-column")
        if image == caption:
            raise DataError(
                f"{table.path.name}: column `{image}` cannot be both picture path and caption; give two different columns"
            )
        others = {name.lower(): name for name in reversed(table.columns) if name not in (image, caption)}
        return cls(image, caption, *(others.get(name) for name in _OPTIONAL))

    @property
    def names(self) -> tuple[str, ...]:
        """All that are to be read."""
        every = (self.image, self.caption, self.image_id, self.label, self.split, self.key)
        return tuple(name for name in every if name is not None)


def _column(table: Table, given: str | None, usual: Sequence[str], what: str, option: str) -> str:
    found = ", ".join(f"`{name}`" for name in table.columns)
    if given:
        if given not in table.columns:
            raise DataError(f"{table.path.name}: there is no column `{given}` for {what}; the file has {found}")
        return given
    lowered = {name.lower(): name for name in reversed(table.columns)}
    for name in usual:
        if name in lowered:
            return lowered[name]
    if len(table.columns) == 1 and re.search(r"[;|\t]", table.columns[0]):
        raise DataError(
            f"{table.path.name}: the columns seem to be separated by something else than a comma ({found}); write commas"
        )
    raise DataError(
        f"{table.path.name}: found no column of {what} among {found}; name it with {option}, or call it one of {', '.join(usual)}"
    )
