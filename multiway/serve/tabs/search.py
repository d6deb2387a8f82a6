"""Search: pictures for words, for a picture, or for both, with their scores."""

from __future__ import annotations

from typing import Any

from multiway.data.source import BadRow
from multiway.data.thumbnail import picture_uri
from multiway.serve.find import rerank
from multiway.serve.index import Hit, IndexFault
from multiway.serve.search import PictureIndex
from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import Card, cards, number
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["TAB", "searched"]

_SIDE = 200  # pixels of a picture that was found
_READ = 50  # of the best, that are read with the words for a match


def able(subject: Subject) -> bool:
    """Whether there is something to search, by words at least."""
    return subject.index is not None and subject.able("encode_image", "encode_text", "compare")


def searched(
    subject: Subject, words: str, path: str | None = None, weight: float = 0.5, top: float = 8, match: bool = False
) -> str:
    """The nearest pictures, as cards.

    Args:
        words: may be empty where there is a picture.
        path: of an uploaded picture, or None.
        weight: of the words where there is a picture too.
        top: how many.
        match: whether the best are read together with the words, and ranked by that.

    Raises:
        Refused: for an empty query, or more hits than the server gives.
    """
    words = subject.checked((words or "").strip(), "text")
    picture = subject.opened(path) if path else None
    if not words and picture is None:
        raise Refused("The query is empty: type what to look for, or show it.")
    if match and not words:
        raise Refused("A match is one of words and picture, and there are no words: type some.")
    top = int(top)
    if not 1 <= top <= subject.limits.top:
        raise Refused(f"{top} pictures were asked for; the server gives 1 to {subject.limits.top}.")
    found, note = subject.compute(lambda: _found(subject, words, picture, weight, top, match))
    return cards(found, note)


def _found(subject: Subject, words: str, picture: Any, weight: float, top: int, match: bool) -> tuple[list[Card], str]:
    index = subject.index
    assert index is not None
    hits = index.find(words, picture, weight, max(top, _READ) if match else top)
    by = subject.measure
    if match:
        hits, by = rerank(subject.model, words, hits[:_READ], index.picture)[:top], "match"
    return [_card(hit, index, by) for hit in hits], _note(index, subject.place, by, words, picture, weight)


def _card(hit: Hit, index: Any, by: str) -> Card:
    try:
        shown = picture_uri(index.picture(hit), _SIDE)
    except (BadRow, IndexFault):
        shown = ""
    return Card(shown, number(hit.score), hit.caption)


def _note(index: Any, place: str, by: str, words: str, picture: Any, weight: float) -> str:
    if by == "match":
        return (
            f"Of {place}, ranked by reading picture and words together: log-odds that the two are a pair; above 0 a pair is "
            "the likelier."
        )
    said = "the words" if picture is None else "both" if words else "the picture"
    middle = ""
    if isinstance(index, PictureIndex):
        scores = index.similarities(words, picture, weight)
        middle = f"; the middle one of the {len(scores):,} has {number(float(scores.median()))}"
    scale = " (1: the same direction, 0: nothing in common)" if by == "cosine" else ""
    return f"Of {place}, by {by} with {said}{scale}{middle}."


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    gr = ui.gr
    inputs, right = ui.columns()
    with inputs:
        words = ui.words("What to look for", ui.first.caption if ui.first is not None else "")
        with gr.Accordion("Look for a picture too", open=False, visible=subject.embeds):
            picture = ui.picture("Picture to look for", begin=False)
            weight = gr.Slider(0, 1, 0.5, step=0.05, label="Weight of the words beside the picture")
        top = gr.Slider(1, min(40, subject.limits.top), 8, step=1, label="How many")
        match = gr.Checkbox(
            False, label="Read the best together with the words", info="slower, better", visible=subject.able("match")
        )
        button = ui.button("Search")
    with right:
        answer = ui.answer()
    ui.samples(
        [[sample.caption] for sample in subject.samples if sample.caption], [words], "Captions of held-out pictures"
    )

    def work(*given: Any) -> str:
        return searched(subject, *given)

    ui.on([button.click, words.submit], work, [words, picture, weight, top, match], answer)


TAB = Tab("search", "Search", able, draw)
