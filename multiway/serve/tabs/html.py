"""Answers of the web page as HTML: cards of pictures, bars, a table of similarities, figures, and what went wrong.

Everything is escaped: captions, labels and names of files come from strangers. Pictures are inside, so that nothing is fetched and
no file is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader

__all__ = ["Bar", "Card", "Figure", "bars", "cards", "figures", "matrix", "number", "plots", "problem", "said"]


@dataclass(frozen=True)
class Card:
    """A picture that was found: its data URI (empty if it cannot be shown), its score, and its caption."""

    picture: str
    score: str
    caption: str


@dataclass(frozen=True)
class Bar:
    """A name with a number: in words, and as a share of the longest bar, in [0, 1]."""

    name: str
    value: str
    share: float


@dataclass(frozen=True)
class Figure:
    """A picture as a data URI, and what is under it."""

    picture: str
    title: str


@cache
def _templates() -> Environment:
    found = Environment(loader=PackageLoader("multiway.serve"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters["number"] = number
    return found


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number for people: with a minus that is one, and none before zeros."""
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")


def _drawn(part: str, **given: Any) -> str:
    return _templates().get_template("tabs.html.j2").render(part=part, **given)


def cards(found: Sequence[Card], note: str) -> str:
    """Pictures, best first."""
    return _drawn("cards", found=found, note=note)


def bars(rows: Sequence[Bar], note: str, head: str = "") -> str:
    """Names with numbers, best first; a line over them, and one under them."""
    return _drawn("bars", rows=rows, note=note, head=head)


def matrix(pictures: Sequence[str], texts: Sequence[str], scores: Sequence[Sequence[float]], note: str) -> str:
    """A table of every picture (a data URI) with every text; the best of each row and of each column is marked."""
    flat = [score for row in scores for score in row]
    low, high = min(flat), max(flat)
    cells = [[(score, (score - low) / ((high - low) or 1.0), score == max(row)) for score in row] for row in scores]
    best = [max(row[column] for row in scores) for column in range(len(texts))]
    return _drawn("matrix", pictures=pictures, texts=texts, cells=cells, best=best, note=note)


def figures(
    groups: Sequence[tuple[str, Sequence[Figure]]], note: str = "", legend: Sequence[tuple[str, str]] = ()
) -> str:
    """Groups of figures, each under its own sentence; what their names mean can be unfolded."""
    return _drawn("figures", groups=groups, note=note, legend=legend)


def said(lines: Sequence[tuple[str, str]], note: str = "") -> str:
    """Texts that a model wrote, each with a remark."""
    return _drawn("said", lines=lines, note=note)


def plots(
    drawn: Sequence[tuple[str, str]], facts: Sequence[tuple[str, str]], findings: Sequence[tuple[str, str]]
) -> str:
    """Curves as SVG that was drawn here, facts about the run, and what the doctor says of it."""
    return _drawn("plots", drawn=drawn, facts=facts, findings=findings)


def problem(message: str) -> str:
    """What went wrong and what to do about it."""
    return _drawn("problem", message=message)
