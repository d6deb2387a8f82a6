"""Captions: what a model writes about a picture."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch

from multiway.nn.generate import Generation
from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import number, said
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["TAB", "WAYS", "captioned"]

WAYS: dict[str, tuple[str, str]] = {
    "the likeliest (beam search)": ("beam", "the likeliest first"),
    "word by word (greedy)": ("greedy", "the likeliest word each time"),
    "drawn (nucleus)": ("nucleus", "drawn from the likeliest 90 % of the words"),
}
"""How texts are written: the choice, the strategy, and what is said of it."""

_TEXTS = 3


def able(subject: Subject) -> bool:
    """Whether it writes about pictures."""
    return subject.able("encode_image", "generate")


def captioned(subject: Subject, path: str | None, way: str = "", prompt: str = "", seed: float = 0) -> str:
    """Captions of a picture, each with how near it is to the picture where the model can tell.

    Args:
        path: of the picture.
        way: of `WAYS`.
        prompt: words that the caption begins with; may be empty.
        seed: of draws.

    Raises:
        Refused: without a picture, or for a way that there is not.
    """
    if way and way not in WAYS:
        raise Refused(f"There is no way {way!r} to write; choose {' or '.join(WAYS)}.")
    strategy, how = WAYS[way] if way else next(iter(WAYS.values()))
    prompt = subject.checked((prompt or "").strip(), "beginning")
    picture = subject.opened(path)
    settings = Generation(
        cast(Literal["greedy", "beam", "nucleus"], strategy),
        max_length=min(40, subject.limits.tokens),
        texts=1 if strategy == "greedy" else _TEXTS,
        beams=_TEXTS,
    )

    def written() -> list[tuple[str, str]]:
        model = subject.model
        encoded = model.encode_image([picture], tokens=True)
        found = list(dict.fromkeys(model.generate(encoded, settings, [prompt] if prompt else None, int(seed or 0))[0]))
        return [(text, remark) for text, remark in zip(found, _remarks(subject, encoded, found), strict=True)]

    note = f"Written {'from “' + prompt + '” on, ' if prompt else ''}{how}."
    if subject.able("match", "encode_text"):
        note += " Log-odds that picture and caption are a pair, read together; above 0 a pair is the likelier."
    elif subject.able("compare", "encode_text"):
        note += f" {subject.measure.capitalize()} of picture and caption, each read by itself."
    return said(subject.compute(written), note)


def _remarks(subject: Subject, image: Any, texts: list[str]) -> list[str]:
    """What the model itself thinks of each caption beside its picture."""
    model = subject.model
    if not subject.able("encode_text") or not texts or not all(text.strip() for text in texts):
        return [""] * len(texts)
    same = torch.zeros(len(texts), dtype=torch.int64)
    if subject.able("match"):
        odds = model.match(image.rows(same), model.encode_text(texts, tokens=True)).tolist()
        return [f"match {number(each, 2, sign=True)}" for each in odds]
    if subject.able("compare"):
        scores = model.compare(image, model.encode_text(texts))[0].tolist()
        return [f"{subject.measure} {number(each)}" for each in scores]
    return [""] * len(texts)


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    inputs, right = ui.columns()
    with inputs:
        picture = ui.picture()
        way = ui.gr.Radio(list(WAYS), value=next(iter(WAYS)), label="How it is written")
        prompt = ui.words("Beginning", info="may be empty; the caption goes on from there")
        seed = ui.gr.Number(0, precision=0, minimum=0, label="Seed of what is drawn")
        button = ui.button("Write")
    with right:
        answer = ui.answer()
    ui.samples([[file] for file in ui.files], [picture])

    def work(*given: Any) -> str:
        return captioned(subject, *given)

    ui.on([button.click, prompt.submit], work, [picture, way, prompt, seed], answer)


TAB = Tab("caption", "Caption", able, draw)
