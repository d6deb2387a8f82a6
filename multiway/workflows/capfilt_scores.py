"""CapFilt's reading of one picture after another: what is said of it, what the captioner writes, and how well each matches.

Li et al., BLIP, 2022, arXiv 2201.12086, section 3.3. Nothing is decided here: a score is kept beside every caption, so that
another threshold costs no second pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from multiway.abilities import Encoded, require
from multiway.data.source import BadRow, KnowsTruth, Row, Source, stable_id
from multiway.nn.generate import Generation
from multiway.tasks.embed import encode_images, encode_texts

__all__ = ["Caption", "Cleaner", "ModelCleaner", "Scored", "read_scores", "score_rows", "write_scores"]

Origin = Literal["web", "synthetic"]


@dataclass(frozen=True)
class Caption:
    """One caption of one picture.

    Attributes:
        text: the words.
        origin: `web` came with the picture, `synthetic` was written by the captioner.
        match: probability, by the filter, that the two belong together.
        true: whether it is true of the picture; None where the data do not know.
    """

    text: str
    origin: Origin
    match: float
    true: bool | None = None


@dataclass(frozen=True)
class Scored:
    """One picture with everything that was said of it.

    Attributes:
        row: number in the source.
        key: the source's name for the row.
        noise: what was done to its web captions, by the data's own record; empty where there is none.
        captions: web ones first; none if the picture cannot be read.
        unreadable: why not; empty if it can.
    """

    row: int
    key: str
    noise: str = ""
    captions: tuple[Caption, ...] = ()
    unreadable: str = ""


class Cleaner(Protocol):
    """A captioner and a filter."""

    def write(self, source: Source, rows: Sequence[int], seed: int) -> list[list[str]]:
        """Captions for the pictures of some rows, a list for each."""

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        """Probability that picture rows[i] and texts[i] belong together; equal rows stand together."""


class ModelCleaner:
    """Two trained models, or one in both parts.

    Args:
        captioner: able to `generate`; None where nothing is to be written.
        judge: able to `match`.
        settings: how captions are written.

    Raises:
        LacksAbility: if a model cannot do its part.
    """

    def __init__(self, captioner: Any, judge: Any, settings: Generation) -> None:
        if captioner is not None:
            require(captioner, ("encode_image", "generate"), "capfilt, captioner", ("blip",))
        require(judge, ("encode_image", "encode_text", "match"), "capfilt, filter", ("albef", "blip", "vlmo"))
        self.captioner, self.judge, self.settings = captioner, judge, settings
        self._last: tuple[Any, tuple[int, ...], Encoded] | None = None

    def write(self, source: Source, rows: Sequence[int], seed: int) -> list[list[str]]:
        """See `Cleaner`."""
        return self.captioner.generate(self._pictures(self.captioner, source, rows), self.settings, seed=seed)  # type: ignore[no-any-return]

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        """See `Cleaner`."""
        if not texts:
            return []
        distinct = list(dict.fromkeys(rows))
        pictures = self._pictures(self.judge, source, distinct)
        words = encode_texts(self.judge, texts, tokens=True)
        place = {row: number for number, row in enumerate(distinct)}
        at = torch.tensor([place[row] for row in rows])
        # A picture's tokens stand once for all of its captions; repeated, they fill the memory.
        parts = torch.arange(len(rows)).split(256)
        odds = [self.judge.match(pictures.rows(at[part]), words.rows(part)) for part in parts]
        return torch.cat(odds).double().sigmoid().tolist()  # type: ignore[no-any-return]

    def _pictures(self, model: Any, source: Source, rows: Sequence[int]) -> Encoded:
        """The pictures' tokens; kept until others are asked for, since one model may play both parts."""
        if self._last is None or self._last[0] is not model or self._last[1] != tuple(rows):
            self._last = (model, tuple(rows), encode_images(model, source, rows, tokens=True))
        return self._last[2]


def score_rows(
    source: Source, rows: Sequence[int], cleaner: Cleaner, synthetic: bool, seed: int, chunk: int = 256
) -> Iterator[Scored]:
    """Read some rows, write captions for them and match everything, `chunk` pictures at a time.

    What is drawn for a chunk depends on the seed and its first row alone, so that neither ranks nor an interruption change
    a caption.
    """
    for start in range(0, len(rows), chunk):
        some = list(rows[start : start + chunk])
        try:
            yield from _score(source, some, cleaner, synthetic, seed)
        except BadRow:
            whole, broken = _readable(source, some)
            scored = {each.row: each for each in (*_score(source, whole, cleaner, synthetic, seed), *broken)}
            yield from (scored[row] for row in some)


def _score(source: Source, rows: Sequence[int], cleaner: Cleaner, synthetic: bool, seed: int) -> list[Scored]:
    if not rows:
        return []
    written: list[list[str]] = [[] for _ in rows]
    if synthetic:
        written = cleaner.write(source, rows, stable_id(f"capfilt {seed} {rows[0]}"))
    said = [source.row(row) for row in rows]
    pairs = [
        (row, text, origin)
        for row, given, own in zip(rows, said, written, strict=True)
        for origin, texts in (("web", given.captions), ("synthetic", own))
        for text in texts
        if text.strip()  # a captioner may end before it began
    ]
    match = cleaner.match(source, [row for row, _, _ in pairs], [text for _, text, _ in pairs])
    knows = source if isinstance(source, KnowsTruth) else None
    captions: dict[int, list[Caption]] = {row: [] for row in rows}
    for (row, text, origin), probability in zip(pairs, match, strict=True):
        true = None if knows is None else knows.holds(row, text)
        captions[row].append(Caption(text, origin, round(probability, 6), true))  # type: ignore[arg-type]
    return [_scored(row, given, captions[row], knows) for row, given in zip(rows, said, strict=True)]


def _scored(row: int, given: Row, captions: Sequence[Caption], knows: KnowsTruth | None) -> Scored:
    return Scored(row, given.key, "" if knows is None else knows.noise_kind(row), tuple(captions))


def _readable(source: Source, rows: Sequence[int]) -> tuple[list[int], list[Scored]]:
    """Rows whose pictures can be read, and a record for each of the others."""
    whole, broken = [], []
    for row in rows:
        try:
            source.image(row)
            whole.append(row)
        except BadRow as error:
            broken.append(Scored(row, source.row(row).key, unreadable=str(error)))
    return whole, broken


def write_scores(path: Path, scored: Iterable[Scored]) -> None:
    """One JSON object a line, written aside and renamed: a file that is there is whole."""
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8") as file:
        for each in scored:
            file.write(json.dumps(asdict(each), ensure_ascii=False) + "\n")
    aside.replace(path)


def read_scores(path: Path) -> Iterator[Scored]:
    """What `write_scores` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            value = json.loads(line)
            yield replace(Scored(**value), captions=tuple(Caption(**each) for each in value["captions"]))
