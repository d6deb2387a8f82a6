"""The parts of the explained page that show kinds of maps by name: where each text is seen, and attention by layer and head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from multiway.data.source import Source
from multiway.explain.kinds import KINDS
from multiway.explain.look import Explanation, HeatMap, explain_pairs
from multiway.explain.overlay import drawn_part, with_heat
from multiway.explain.pairs import Look, chosen_heads, chosen_layers
from multiway.hub.model import Model
from multiway.workflows.explain_figures import Panel, panels
from multiway.workflows.explain_sections import Drawn, Given, Section
from multiway.workflows.fusion import spread

__all__ = ["Shown", "caption_section", "kind_sections", "map_panel"]

_WORDS = 8  # of a text that get a map
_MOST = 12  # layers and heads in a figure


class Shown:
    """What was seen of pictures and texts.

    Attributes:
        sections: in order.
        absent: what the model has nothing to show for, and why.
        arrays: `picture-1/text-1/grad-cam/heat`, ...; where no text was given, `picture-1/...`.
    """

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.absent: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}


def kind_sections(
    model: Model, given: Sequence[Given], texts: Sequence[str], kinds: Sequence[str] | None, look: Look
) -> Shown:
    """Every text in every picture.

    Args:
        model: whose maps they are.
        given: pictures.
        texts: what is looked for; empty for nothing, which leaves kinds that ask for none.
        kinds: names; None for all that the model has, without saying of every other why it has not.
        look: how.

    Raises:
        CannotShow: if the model has nothing to show of a kind that was named.
    """
    shown = Shown()
    pictures = [one.picture for one in given]
    for number, text in enumerate(texts or [""]):
        found = explain_pairs(model, pictures, [text] * len(pictures) if text else None, kinds, look)
        shown.absent += [f"{kind}: {why}" for kind, why in found[0].absent.items() if not number]
        where = f"/text-{number + 1}" if texts else ""
        for place, own in enumerate(found):
            shown.arrays |= {f"picture-{place + 1}{where}/{name}": array for name, array in own.arrays().items()}
        if found[0].maps:
            shown.sections.append(_section(given, found, text, number + 1))
            # Heads know little of the text; those of the first one stand for all.
            shown.sections += [] if number or kinds is None else _head_sections(given, found, look)
    return shown


def caption_section(models: Sequence[tuple[str, Model]], source: Source, count: int = 2) -> Section | None:
    """Captions looked for in their own pictures: a row for each model, by every kind that it has. None where none reads texts.

    Args:
        models: with their names.
        source: whose pictures are taken, evenly spread.
        count: how many.
    """
    able = [(name, model) for name, model in models if {"encode_text", "encode_image"} <= set(model.abilities())]
    chosen = spread([row for row in range(len(source)) if source.row(row).captions], count)
    figures = []
    for number, row in enumerate(chosen if able else []):
        picture, caption = source.image(row), source.row(row).captions[0]
        shown: list[list[Panel | None]] = []
        for name, model in able:
            own = explain_pairs(model, [picture], [caption])[0]
            given = Given.of(name, picture, model.processor.view)
            shown.append([given.panel, *(map_panel(given, kind, each.heat, kind) for kind, each in own.maps.items())])
        figures.append(Drawn(f"captions-{number + 1}.png", panels(shown), caption))
    if not figures:
        return None
    return Section(
        "Where captions are seen",
        "Held-out captions looked for in their own pictures, by every kind of map that there is, each on a scale of its own; `multiway "
        "explain` says what each is, shows single words, and measures which to believe.",
        figures,
    )


def map_panel(one: Given, kind: str, heat: Tensor, title: str) -> Panel:
    """A map over its picture."""
    return Panel(with_heat(one.square, drawn_part(kind, heat).numpy()), title)


def _section(given: Sequence[Given], found: Sequence[Explanation], text: str, number: int) -> Section:
    figures = []
    for place, (one, own) in enumerate(zip(given, found, strict=True)):
        name = f"maps-{number}-{place + 1}.png" if text else f"maps-{place + 1}.png"
        figures.append(Drawn(name, panels(_rows(one, own)), one.name))
    floor = "Of attention, transport and cosines what exceeds the map's median is drawn, since every patch gets some. "
    return Section(
        f"Where “{text}” is seen" if text else "Maps of the pictures",
        f"Red for much, blue below zero, each map on a scale of its own: a picture that has nothing to do with the text has maps too. "
        f"{floor}Where words have maps of their own they follow.",
        figures,
        {f"maps{f' of {text}' if text else ''}": [_numbers(one, own) for one, own in zip(given, found, strict=True)]},
        notes=tuple((kind, KINDS[kind].says) for kind in found[0].maps),
    )


def _rows(one: Given, own: Explanation) -> list[list[Panel | None]]:
    """The picture and every map of the whole; then a row for each kind with maps of words."""
    whole = [map_panel(one, kind, each.heat, f"{kind}\n{_score(each)}".strip()) for kind, each in own.maps.items()]
    rows: list[list[Panel | None]] = [[one.panel, *whole]]
    for kind, each in own.maps.items():
        words = list(each.each_word())[:_WORDS]
        if words:
            rows.append([None, *(map_panel(one, kind, heat, f"{kind}\n{word.text}") for word, heat in words)])
    return rows


def _score(own: HeatMap) -> str:
    short = {
        "log-odds of a match": "log-odds",
        "transport distance": "distance",
        "log-probability of its class": "log p",
        "log-probability of the text": "log p",
    }
    if own.score is None:
        return ""
    if own.chosen:
        return f"{own.chosen} {own.score:.0%}"
    name, above, _ = own.score_name.partition(" above")
    return f"{short.get(name, name)}{' vs others' if above else ''} {own.score:.2f}".replace("-0.00", "0.00").replace(
        " -", " −"
    )


def _numbers(one: Given, own: Explanation) -> dict[str, object]:
    kinds: dict[str, object] = {}
    for kind, each in own.maps.items():
        kinds[kind] = {
            "score": None if each.score is None else round(each.score, 4),
            "score_name": each.score_name,
            **({"chosen": each.chosen} if each.chosen else {}),
            "best_patches": [
                {"word": word.text, "start": word.start, "stop": word.stop, "row": row, "column": column, "value": round(value, 4)}
                for word, (row, column), value in each.best_patches()
            ],
        }  # fmt: skip
    return {"picture": one.name, "kinds": kinds}


def _head_sections(given: Sequence[Given], found: Sequence[Explanation], look: Look) -> list[Section]:
    sections = []
    for kind in found[0].maps:
        if found[0][kind].by_head is not None:
            sections.append(_heads(given, [each[kind] for each in found], kind, look))
    return sections


def _heads(given: Sequence[Given], maps: Sequence[HeatMap], kind: str, look: Look) -> Section:
    first = maps[0].by_head
    assert first is not None
    count, heads = first.shape[:2]
    layers = chosen_layers(look.layers, count, range(count))[:_MOST]
    some = chosen_heads(look.heads, heads)[:_MOST]
    figures = []
    for place, (one, own) in enumerate(zip(given, maps, strict=True)):
        assert own.by_head is not None
        rows: list[list[Panel | None]] = []
        for layer in layers:
            each = [Panel(own.by_head[layer, head].numpy(), f"layer {layer}\nhead {head}") for head in some]
            rows.append([one.panel if layer == layers[0] else None, *each])
        figures.append(Drawn(f"{kind}-heads-{place + 1}.png", panels(rows), one.name))
    left = "" if len(layers) * len(some) == count * heads else " Others are in maps.npz."
    return Section(
        f"{kind.capitalize()} by layer and head",
        "From the first layer to the last, bright for much, each map on a scale of its own; layers and heads are counted from 0."
        + (" Of the text the mean over its tokens is shown." if KINDS[kind].asks else "")
        + left,
        figures,
    )
