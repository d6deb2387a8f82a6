"""Rows that are left out when data are opened: what is checked, how they are counted, and when they are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiway.data.source import BadRow, DataError, printable

__all__ = ["CAPTION_CEILING", "REJECTED_CEILING", "Rejected", "clean_captions", "refuse_too_many"]

CAPTION_CEILING = 10_000
"""Characters above which a caption is a page that slipped in, not a caption."""

REJECTED_CEILING = 0.10
"""Share of rows that may be left out before the data as a whole are refused."""

_NAMED = 5  # rejected rows that an error message lists


@dataclass(frozen=True)
class Rejected:
    """One row, or one of its captions, that was left out.

    Attributes:
        where: file and row.
        why: cause and remedy.
    """

    where: str
    why: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.why}").replace("\n", "\\n")  # one line for one row


def clean_captions(
    given: object,
    where: str,
    rejected: list[Rejected],
    longest: int = CAPTION_CEILING,
    remedy: str = "write one or remove the row",
) -> tuple[str, ...]:
    """The usable captions of a row, stripped of white space around them.

    One bad caption among several is left out and noted in `rejected`; a row without any good one is lost.

    Args:
        given: a string or a list of strings, as a stranger's file has them.
        where: file and row.
        rejected: receives the captions that were left out of a row that stays.
        longest: characters of the longest caption that is kept.

    Raises:
        BadRow: if no caption is left, with the complaint about the first.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    good: list[str] = []
    bad: list[Rejected] = []
    for number, caption in enumerate(several, 1):
        complaint = _complaint(caption, longest, remedy)
        if complaint:
            bad.append(Rejected(f"{where}, caption {number}" if len(several) > 1 else where, complaint))
        else:
            good.append(str(caption).strip())
    if not good:
        raise BadRow(bad[0].why if bad else f"the list of captions is empty; {remedy}")
    rejected += bad
    return tuple(good)


def _complaint(caption: object, longest: int, remedy: str) -> str:
    if caption is None or (isinstance(caption, str) and not caption.strip()):
        return f"the caption is empty; {remedy}"
    if not isinstance(caption, str):
        return f"the caption is {caption!r:.60} ({type(caption).__name__}); expected text"
    if len(caption) > longest:
        return f"the caption has {len(caption):,} characters, more than {longest:,}; shorten it or raise the limit"
    if not encodable(caption):
        return "the caption holds half a surrogate pair, which is no character; write the file as valid UTF-8"
    return ""


def encodable(text: str) -> bool:
    """Whether a string can be written as UTF-8; JSON escapes such as `\\ud800` make strings that cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_too_many(lost: Sequence[Rejected], rows: int, name: str, ceiling: float = REJECTED_CEILING) -> None:
    """Refuse data of which too large a share cannot be used.

    Args:
        lost: the rows that were left out.
        rows: how many there were in all.
        name: of the data, for the message.
        ceiling: greatest share of rows that may be left out.

    Raises:
        DataError: naming the first few.
    """
    if not lost or len(lost) <= ceiling * rows:
        return
    named = "".join(f"\n  {each}" for each in lost[:_NAMED])
    more = f"\n  ... and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else ""
    raise DataError(
        f"{name}: {len(lost):,} of {rows:,} rows cannot be used, more than the {ceiling:.0%} that may be left out; "
        f"correct them, or the columns and the images folder that were given:{named}{more}"
    )
