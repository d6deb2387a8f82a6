"""Where a model looks: its attention, and Grad-CAM of a chosen word, over the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from multiway.data.thumbnail import picture_uri
from multiway.data.view import draw as draw_view
from multiway.explain.attention import over_patches
from multiway.explain.evidence import class_evidence, text_evidence
from multiway.explain.rollout import rollout
from multiway.explain.seen import see
from multiway.explain.words import overlay, word_maps
from multiway.hub.model import Model
from multiway.serve.subject import Sample, Subject
from multiway.serve.tabs.html import Figure, figures, number
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["ALL", "TAB", "looked"]

ALL = "the whole text"
_SIDE = 224  # pixels of a figure, at least
_WORDS = 12  # of a text that can be chosen

Group = tuple[str, list[Figure]]


def able(subject: Subject) -> bool:
    """Whether it reads pictures."""
    return subject.able("encode_image")


def _reads(subject: Subject) -> bool:
    return subject.able("encode_text") and (subject.able("match_with_maps") or subject.able("compare"))


@dataclass(frozen=True)
class _Given:
    """A picture, and the square of it that the model sees, so that maps lie where they belong."""

    picture: Image.Image
    square: Image.Image
    side: int

    def under(self, heat: Tensor, title: str) -> Figure:
        """The square with a map over it."""
        return Figure(picture_uri(overlay(self.square, heat, self.side), self.side), title)


def looked(subject: Subject, path: str | None, text: str = "", word: str = "") -> tuple[str, list[str], str]:
    """Look.

    Args:
        path: of the picture.
        text: said of it; empty for attention alone.
        word: of the text, as this gave it before; anything else means the whole text, or its most telling word.

    Returns:
        HTML; the words that can be chosen; and the one that was.

    Raises:
        Refused: without a picture, or for a text that is too long.
    """
    text = subject.checked((text or "").strip(), "text")
    picture = subject.opened(path)

    def work() -> tuple[list[Group], list[str], str]:
        model = subject.model
        view = model.processor.view
        side = max(view.size, _SIDE)
        given = _Given(picture, Image.fromarray(draw_view(picture, view, side)), side)
        groups: list[Group] = []
        names: list[str] = []
        chosen = ""
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16"):
            if text and subject.able("match_with_maps"):
                group, names, chosen = _matched(model, given, text, word)
                groups.append(group)
            elif text and _reads(subject):
                names, chosen = _choices(text, word)
                groups += _compared(subject, given, text if chosen == ALL else chosen.partition(". ")[2])
            groups += _classified(model, given)
            groups += _attended(model, given)
        return groups, names, chosen

    groups, names, chosen = subject.compute(work)
    if not groups:
        note = f"{subject.model.name} has neither attention nor a map of features that could be shown."
        return figures([], note), names, chosen
    return figures(groups, "Red where a map is highest; each map is on a scale of its own."), names, chosen


def _numbered(words: list[str]) -> list[str]:
    """Words as choices, with their places: one that occurs twice is two. What is no word, a comma say, is left out."""
    found = [f"{number}. {word}" for number, word in enumerate(words, 1) if any(map(str.isalnum, word))]
    return found[:_WORDS]


def _place(name: str) -> int:
    """Of a choice, from 0."""
    return int(name.partition(".")[0]) - 1


def _choices(text: str, word: str) -> tuple[list[str], str]:
    names = [ALL, *_numbered(text.split())]
    return names, word if word in names else ALL


def _matched(model: Model, given: _Given, text: str, word: str) -> tuple[Group, list[str], str]:
    """A fused model: where a word looks while the two are matched."""
    maps = word_maps(model, given.picture, text)
    names = _numbered(list(maps.words))
    # Unless one is chosen, the word whose looking speaks for the match the most.
    chosen = (
        word if word in names else max(names, key=lambda name: float(maps.grad_cam[_place(name)].sum()), default="")
    )
    shown = []
    if chosen:
        at = _place(chosen)
        shown = [given.under(maps.attention[at], "attention"), given.under(maps.grad_cam[at], "Grad-CAM")]
    about = (
        f"“{chosen.partition('. ')[2]}”: left, which patches the word looks at; right, where looking speaks for a match. "
        f"Log-odds that picture and text are a pair: {number(maps.odds, 2, sign=True)}; above 0 a pair is the likelier."
    )
    return (about, shown), names, chosen


def _compared(subject: Subject, given: _Given, words: str) -> list[Group]:
    """A model that reads each by itself: what makes the picture like the words."""
    model = subject.model
    tokens = model.processor.texts([words])
    with torch.no_grad():
        said = model.method.encode_text(tokens.ids.to(model.device), tokens.mask.to(model.device))  # type: ignore[operator]
    found = text_evidence(model.method, model.processor.images([given.picture]).to(model.device), said)
    if found is None:
        return []
    heat, score = found[0][0].cpu(), number(float(found[1][0]))
    about = (
        f"Grad-CAM of “{words}”: where more of what is there would make the two more alike. Their {subject.measure} is {score}; a "
        "picture that has nothing to do with the words has a map too."
    )
    return [(about, [given.under(heat, f"{words} ({score})")])]


def _classified(model: Model, given: _Given) -> list[Group]:
    found = class_evidence(model.method, model.processor.images([given.picture]).to(model.device))
    if found is None:
        return []
    heat, number, share = (each[0].cpu() for each in found)
    name = model.classes[int(number)]
    about = f"What speaks for its class, “{name}”, to which it gives {float(share):.0%}."
    return [(about, [given.under(heat, name)])]


def _attended(model: Model, given: _Given) -> list[Group]:
    """Attention of the network that reads pictures, whatever is said of them."""
    seen = see(model.method, model.processor.images([given.picture]).to(model.device))
    if not seen.attends:
        return []
    try:
        heads = over_patches(seen.blocks[-1])[0].float().cpu()
        flow = over_patches(rollout([each.float() for each in seen.blocks]))[0].cpu()
    except ValueError:  # no square of patches
        return []
    shown = [given.under(heads.mean(0), "last block, mean of heads"), given.under(flow, "rollout through all blocks")]
    shown += [given.under(each, f"head {number}") for number, each in enumerate(heads[:6])] if len(heads) > 1 else []
    even = 1 / heads[0].numel()
    about = f"Attention of the network that reads pictures, above an ordinary patch's; evenly spread each patch has {even:.1%}."
    return [(about, shown)]


def _said(sample: Sample | None) -> str:
    return "" if sample is None else sample.caption or sample.question


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    gr = ui.gr
    inputs, right = ui.columns()
    reads = _reads(subject)
    with inputs:
        picture = ui.picture()
        text = ui.words("Text", _said(ui.first)) if reads else None
        word = gr.Radio([], label="Word", info="press Look first, then choose one of the words", visible=reads)
        button = ui.button("Look")
    with right:
        answer = ui.answer()
    pairs = zip(ui.files, subject.samples, strict=True)
    rows = [[file, _said(sample)] if reads else [file] for file, sample in pairs]
    ui.samples(rows, [picture, text] if reads else [picture])

    def work(*given: Any) -> tuple[str, Any]:
        html, names, chosen = looked(subject, *given)
        return html, gr.Radio(choices=names, value=chosen or None)

    if text is None:
        ui.on([button.click], lambda path: looked(subject, path)[0], [picture], answer)
    else:
        # `input`, not `change`: the answer sets the choices itself.
        ui.on([button.click, text.submit, word.input], work, [picture, text, word], [answer, word])


TAB = Tab("look", "Look", able, draw)
