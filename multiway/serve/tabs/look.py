"""Where a model looks: every kind of map that it has over a picture, of a text, of a word, by layer and head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from multiway.data.view import draw as draw_view
from multiway.explain.kinds import KINDS
from multiway.explain.look import Explanation, HeatMap, explain_pairs
from multiway.explain.pairs import CannotShow, Look
from multiway.explain.spans import Word, words_of
from multiway.serve.looking import COSTLY, drawn, looks_of, passes
from multiway.serve.subject import Refused, Sample, Subject
from multiway.serve.tabs.html import Figure, figures, number
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["ALL", "EVERY", "OWN", "TAB", "Shown", "looked"]

EVERY, ALL, OWN = "all of them", "the whole text", "as usual"
_SIDE = 224  # pixels of a figure, at least
_WORDS = 20  # of a text that can be chosen
_HEADS = 12  # that are shown beside each other

_NOTE = (
    "Red where a map is highest, blue below zero, each on a scale of its own: a picture that has nothing to do with the text has maps "
    "too."
)

Group = tuple[str, list[Figure]]


@dataclass(frozen=True)
class Shown:
    """An answer, and what can be chosen from here on.

    Attributes:
        html: the answer.
        words: the whole text and its words; empty without a text.
        layers, heads: of the kind; empty where it takes none.
        word, layer, head: that were shown.
    """

    html: str
    words: list[str]
    layers: list[str]
    heads: list[str]
    word: str
    layer: str
    head: str


def able(subject: Subject) -> bool:
    """Whether it reads pictures, and something is to be seen of how."""
    return subject.able("encode_image") and looks_of(subject.model).any


def looked(
    subject: Subject,
    path: str | None,
    text: str = "",
    kind: str = EVERY,
    word: str = "",
    layer: str = "",
    head: str = "",
) -> Shown:
    """Look.

    Args:
        path: of the picture.
        text: said of it; empty to look at the picture alone.
        kind: name of one, with its words, layers and heads; `EVERY` for all but the costly one, beside each other.
        word: of the text, as this gave it before; anything else means the whole text.
        layer, head: as this gave it before; anything else means those that the kind takes by itself.

    Raises:
        Refused: without a picture, for a text that is too long, and for a kind that there is not for it.
    """
    text = subject.checked((text or "").strip(), "text")
    picture = subject.opened(path)
    model, view = subject.model, subject.model.processor.view
    kinds = _kinds(subject, kind, text)
    named = _named(subject, text)
    layers, heads = ([OWN, *map(str, range(count))] if count else [] for count in looks_of(model).choices(kind, text))
    word = word if word in named else ALL
    layer, head = layer if layer in layers else OWN, head if head in heads else OWN

    def seen() -> tuple[Explanation, Explanation]:
        look = Look(_numbers(layer), _numbers(head), batch=subject.limits.batch)
        whole = explain_pairs(model, [picture], [text] if text else None, kinds, look)[0]
        # What tells the words of a text not apart is asked about the word as a text of its own.
        apart = [name for name, own in whole.maps.items() if KINDS[name].asks and own.by_word is None]
        if word == ALL or not apart:
            return whole, Explanation("")
        return whole, explain_pairs(model, [picture], [named[word].text], apart, look)[0]

    try:
        whole, alone = subject.compute(seen)
    except CannotShow as error:
        raise Refused(str(error)) from error
    side = max(view.size, _SIDE)
    over = _Over(Image.fromarray(draw_view(picture, view, side)), whole, alone, named.get(word))
    groups = over.every() if kind == EVERY else over.one(kind, _numbers(layer), _numbers(head))
    legend = []
    if kind == EVERY:
        legend = [(name, KINDS[name].says) for name in whole.maps]
        legend += [(f"no {name}", f"{why}.") for name, why in looks_of(model).of(text).absent.items()]
    note = _NOTE if groups else f"{model.name} has nothing to show of a picture by itself."
    html = figures(groups, note, legend)
    return Shown(html, [ALL, *named] if named else [], layers, heads, word if named else "", layer, head)


def _kinds(subject: Subject, kind: str, text: str) -> tuple[str, ...]:
    """Those that are shown.

    Raises:
        Refused: for one that there is not.
    """
    looks = looks_of(subject.model)
    if kind == EVERY:
        return looks.usual(text)
    if kind not in looks.told.maps and kind not in looks.alone.maps:
        raise Refused(f"There is no map {kind!r} of {subject.model.name}; choose {', '.join(looks.told.maps)}.")
    if kind not in looks.of(text).maps:
        raise Refused(f"For {kind}, {looks.of(text).absent[kind]}: {'leave the text out' if text else 'type a text'}.")
    count = passes([kind], subject.model.processor.view.size, Look())
    if count > subject.limits.passes:
        raise Refused(f"{kind} would read the picture {count:,} times; at most {subject.limits.passes:,} are read.")
    return (kind,)


def _named(subject: Subject, text: str) -> dict[str, Word]:
    """Words with their places: one that occurs twice is two. What is no word, a comma say, is left out."""
    tokenizer = subject.model.processor.tokenizer
    if not text or tokenizer is None or not _reads(subject):
        return {}
    words = enumerate(words_of(tokenizer, text), 1)
    found = {f"{place}. {word.text}": word for place, word in words if any(map(str.isalnum, word.text))}
    return dict(list(found.items())[:_WORDS])


def _reads(subject: Subject) -> bool:
    """Whether a text makes a difference."""
    return any(KINDS[kind].asks for kind in looks_of(subject.model).told.maps)


def _numbers(choice: str) -> tuple[int, ...]:
    return (int(choice),) if choice.isdecimal() else ()


@dataclass(frozen=True)
class _Over:
    """What was seen, drawn over the square of a picture that the model sees, so that maps lie where they belong.

    Attributes:
        square: of the picture.
        seen: maps of the text, or of the picture.
        alone: of the chosen word as a text of its own.
        word: that was chosen; None for the whole text.
    """

    square: Image.Image
    seen: Explanation
    alone: Explanation
    word: Word | None

    def every(self) -> list[Group]:
        """All kinds beside each other: what the text makes of them, and what it does not."""
        told = {kind: own for kind, own in self.seen.maps.items() if KINDS[kind].asks or own.by_word is not None}
        own = [self._under(kind, each.heat, _title(each)) for kind, each in self.seen.maps.items() if kind not in told]
        shown = [
            figure
            for kind, each in told.items()
            for figure in self._of_word(kind, each, kind, f"{kind} of the word alone")
        ]
        where = "the text" if self.word is None else f"“{self.word.text}”"
        about = [
            f"Where {where} is seen.",
            *_sentences(told.values()),
            *_sentences(self.alone.maps.values(), f" of {where} alone"),
        ]
        groups = [(" ".join(about), shown)] if shown else []
        return groups + ([("Of the picture itself, whatever is said of it.", own)] if own else [])

    def one(self, kind: str, layers: tuple[int, ...], heads: tuple[int, ...]) -> list[Group]:
        """One kind: of the whole, of the word or of each word; then by layer and head."""
        own = self.seen[kind]
        title = _title(own) if own.chosen or not self.seen.text else ALL if KINDS[kind].asks else kind
        shown = [self._under(kind, own.heat, title)]
        if self.word is not None:
            shown += self._of_word(kind, own, self.word.text, f"{self.word.text} alone")
        else:
            words = [(word, heat) for word, heat in own.each_word() if any(map(str.isalnum, word.text))]
            shown += [self._under(kind, heat, word.text) for word, heat in words[:_WORDS]]
        about = " ".join(
            [KINDS[kind].says, *_sentences([own]), *_sentences(self.alone.maps.values(), " of the word alone")]
        )
        return [(about, shown), *self._heads(own, layers, heads)]

    def _of_word(self, kind: str, own: HeatMap, title: str, alone: str) -> list[Figure]:
        if self.word is None:
            return [self._under(kind, own.heat, title)]
        if own.by_word is not None:
            return [self._under(kind, own.by_word[own.words.index(self.word)], title)]
        if kind in self.alone.maps:
            return [self._under(kind, self.alone[kind].heat, alone)]
        return []

    def _heads(self, own: HeatMap, layers: tuple[int, ...], heads: tuple[int, ...]) -> list[Group]:
        """A row for each layer that was looked at; of one head, all layers."""
        if own.by_head is None:
            return []
        count, width = own.by_head.shape[:2]
        chosen = layers or (tuple(range(count)) if heads else own.layers)
        places = [(layer, head) for layer in chosen for head in heads or range(width)][:_HEADS]
        titles = [f"layer {layer}, head {head}" for layer, head in places]
        shown = [self._under(own.kind, own.by_head[at], title) for at, title in zip(places, titles, strict=True)]
        return [(f"By layer and head{', mean over the text' if own.by_word is not None else ''}.", shown)]

    def _under(self, kind: str, heat: Tensor, title: str) -> Figure:
        return Figure(drawn(self.square, kind, heat), title)


def _title(own: HeatMap) -> str:
    return f"{own.kind}: {own.chosen} {own.score:.0%}" if own.chosen and own.score is not None else own.kind


def _sentences(maps: Iterable[HeatMap], of: str = "") -> list[str]:
    """The scores that are explained, each once, and what of."""
    found = {each.score_name: each.score for each in maps if each.score is not None and not each.chosen}
    odds = "log-odds of a match"
    more = {} if of else {odds: "; above 0 a pair is the likelier"}
    return [
        f"{name[:1].upper()}{name[1:]}{of}: {number(score, 2, sign=name == odds)}{more.get(name, '')}."
        for name, score in found.items()
    ]


def _said(sample: Sample | None) -> str:
    return "" if sample is None else sample.caption or sample.question


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    gr, looks = ui.gr, looks_of(subject.model)
    inputs, right = ui.columns()
    reads = _reads(subject)
    had = list(dict.fromkeys([*looks.told.maps, *looks.alone.maps]))
    cost = passes([COSTLY], subject.model.processor.view.size, Look())
    kinds = [EVERY, *((f"{kind} ({cost} passes)" if kind == COSTLY else kind, kind) for kind in had)]
    begin = [ALL, *_named(subject, _said(ui.first))]
    with inputs:
        picture = ui.picture()
        text = ui.words("Text", _said(ui.first) if reads else "")
        text.visible = reads
        kind = gr.Radio(kinds, value=EVERY, label="Map")
        # Folded up, so that on a phone the answer stays near.
        word = _choice(gr, "Word", begin, reads and len(begin) > 1)
        with gr.Row(elem_classes=["mw-choices"]):
            layer, head = _choice(gr, "Layer", [OWN], False), _choice(gr, "Head", [OWN], False)
        button = ui.button("Look")
    with right:
        answer = ui.answer()
    pairs = zip(ui.files, subject.samples, strict=True)
    rows = [[file, _said(sample)] if reads else [file] for file, sample in pairs]
    ui.samples(rows, [picture, text] if reads else [picture])

    def work(*given: Any) -> tuple[Any, ...]:
        found = looked(subject, *given)
        return (
            found.html,
            gr.Dropdown(choices=found.words or [ALL], value=found.word or ALL, visible=len(found.words) > 1),
            gr.Dropdown(choices=found.layers or [OWN], value=found.layer, visible=bool(found.layers)),
            gr.Dropdown(choices=found.heads or [OWN], value=found.head, visible=bool(found.heads)),
        )

    # `input`, not `change`: the answer sets the choices itself.
    asked = [button.click, text.submit, kind.input, word.input, layer.input, head.input]
    ui.on(asked, work, [picture, text, kind, word, layer, head], [answer, word, layer, head])


def _choice(gr: Any, name: str, begin: list[str], visible: bool) -> Any:
    return gr.Dropdown(begin, value=begin[0], label=name, visible=visible, filterable=False, min_width=110)


TAB = Tab("look", "Look", able, draw)
