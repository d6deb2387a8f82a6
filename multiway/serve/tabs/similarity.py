"""Several pictures beside several texts: how like each picture is to each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multiway.data.thumbnail import picture_uri
from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import matrix
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["MATCH", "TAB", "compared"]

MATCH = "read together (match)"
_BEGIN = 4  # pictures that the tab begins with


def able(subject: Subject) -> bool:
    """Whether it says of any picture and text how well they go together."""
    return subject.able("encode_image", "encode_text") and (subject.able("compare") or subject.able("match"))


def ways(subject: Subject) -> list[str]:
    """How it can say so."""
    return [
        *([f"each by itself ({subject.measure})"] if subject.able("compare") else []),
        *([MATCH] if subject.able("match") else []),
    ]


def compared(subject: Subject, paths: Sequence[str] | None, texts: str, way: str = "") -> str:
    """The table.

    Args:
        paths: of the pictures.
        texts: one on each line.
        way: of `ways`; by default the first.

    Raises:
        Refused: without pictures or texts, or with too many.
    """
    known = ways(subject)
    if way and way not in known:
        raise Refused(f"There is no way {way!r} to compare; choose {' or '.join(known)}.")
    way = way or known[0]
    if not paths:
        raise Refused("There is no picture yet: drop some into the frame.")
    if len(paths) > subject.limits.pictures:
        raise Refused(f"There are {len(paths)} pictures; at most {subject.limits.pictures} are compared.")
    # A comma belongs to a sentence here: texts stand on lines.
    lines = subject.lines(f"{texts or ''}\n", "text", min(subject.limits.texts, 32))
    pictures = [subject.opened(path, f"picture {number}") for number, path in enumerate(paths, 1)]

    def scored() -> list[list[float]]:
        model, match = subject.model, way == MATCH
        seen = model.encode_image(pictures, tokens="only" if match else False)
        read = model.encode_text(lines, tokens="only" if match else False)
        if not match:
            scores: list[list[float]] = model.compare(seen, read).tolist()
            return scores
        row, column = torch.meshgrid(torch.arange(len(pictures)), torch.arange(len(lines)), indexing="ij")
        odds = model.match(seen.rows(row.flatten()), read.rows(column.flatten()))
        return odds.reshape(row.shape).tolist()  # type: ignore[no-any-return]

    what = (
        "Log-odds that picture and text are a pair, read together; above 0 a pair is the likelier."
        if way == MATCH
        else "Cosine: 1 the same direction, 0 nothing in common."
        if subject.embeds
        else "Similarity of picture and text, each read by itself."
    )
    note = f"{what} Bold: the best text for a picture; ↑: the best picture for a text. The bluer, the higher."
    return matrix([picture_uri(picture, 96) for picture in pictures], lines, subject.compute(scored), note)


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    inputs, right = ui.columns()
    known = ways(subject)
    with inputs:
        pictures = ui.pictures("Pictures", _BEGIN)
        said = "\n".join(dict.fromkeys(each.caption for each in subject.samples[:_BEGIN] if each.caption))
        texts = ui.words("Texts", said, lines=4, info="one on each line")
        way = ui.gr.Radio(known, value=known[0], label="Compared", visible=len(known) > 1)
        button = ui.button("Compare")
    with right:
        answer = ui.answer()

    def work(*given: Any) -> str:
        return compared(subject, *given)

    ui.on([button.click], work, [pictures, texts, way], answer)


TAB = Tab("similarity", "Similarity", able, draw)
