"""What `/v1/explain` does with a request: which kinds, what that costs, whether it is too much, and the maps as numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from multiway.config import ConfigError
from multiway.data.tokenizer import Tokenizer
from multiway.explain.kinds import KINDS
from multiway.explain.look import Explanation, HeatMap
from multiway.explain.pairs import Look
from multiway.explain.spans import Word, words_of
from multiway.serve.limits import Limits
from multiway.serve.looking import COSTLY, Looks, drawn, passes
from multiway.serve.problems import Problem
from multiway.serve.schemas import Explain

__all__ = ["Plan", "plan", "written"]


@dataclass(frozen=True)
class Plan:
    """What is shown for a request.

    Attributes:
        kinds: names, in order.
        look: how.
        passes: of each kind, how often it reads the picture.
        absent: kinds that the model has nothing to show for, and why; empty where kinds were named.
    """

    kinds: tuple[str, ...]
    look: Look
    passes: dict[str, int]
    absent: dict[str, str]


def plan(asked: Explain, name: str, looks: Looks, side: int, tokenizer: Tokenizer | None, limits: Limits) -> Plan:
    """What is shown.

    Args:
        asked: the request.
        name: of the model.
        looks: what it has.
        side: of its pictures, in pixels.
        tokenizer: its own; None for one that reads no texts.
        limits: that hold.

    Raises:
        Problem: for kinds that the model has not, and for more work than a request may ask for.
    """
    found = looks.of(asked.text)
    kinds = tuple(dict.fromkeys(asked.kinds)) or looks.usual(asked.text)
    for kind in kinds:
        if kind in found.absent:
            had = f"it has: {', '.join(found.maps)}" if found.maps else "it has none"
            remedy = "send `text`" if kind in looks.told.maps else "name kinds that it has, or none"
            raise Problem("invalid", f"{name} cannot show `{kind}`: {found.absent[kind]}; {had}", remedy)
    if COSTLY not in kinds and (asked.window or asked.stride or asked.baseline != "mean" or asked.score != "auto"):
        raise Problem(
            "invalid",
            f"`window`, `stride`, `baseline` and `score` are of {COSTLY}, which is shown where it is named alone",
            f"send {COSTLY} among `kinds`, or leave them out",
        )
    if asked.against and not asked.text.strip():
        raise Problem("invalid", "`against` holds a text against others, and there is none", "send `text` too")
    try:
        look = Look(
            tuple(asked.layers),
            tuple(asked.heads),
            asked.window,
            asked.stride,
            asked.baseline,
            asked.score,
            limits.batch,
            tuple(asked.against),
        )
        costs = {kind: passes([kind], side, look) for kind in kinds}
    except ConfigError as error:
        raise Problem("invalid", str(error), "leave it out, or send another") from None
    most = max(costs.values(), default=0)
    if most > limits.passes:
        raise Problem(
            "invalid",
            f"{COSTLY} would read the picture {most:,} times; at most {limits.passes:,} are read",
            "send a larger `stride`, a larger `window`, or fewer texts in `against`",
        )
    _require_drawable(asked, found, kinds, tokenizer, limits)
    return Plan(kinds, look, costs, {} if asked.kinds else dict(found.absent))


def _require_drawable(
    asked: Explain, found: Explanation, kinds: tuple[str, ...], tokenizer: Tokenizer | None, limits: Limits
) -> None:
    """Refuse pictures of maps and words that would be more pixels than a picture that is sent may have."""
    count = len(kinds)
    if asked.overlay and asked.each_word and asked.text.strip() and tokenizer is not None:
        count += len(words_of(tokenizer, asked.text)) * sum(found[kind].by_word is not None for kind in kinds)
    pixels = asked.overlay**2 * count
    if pixels > limits.pixels:
        raise Problem(
            "invalid",
            f"{count} maps of {asked.overlay} x {asked.overlay} are {pixels:,} pixels; at most {limits.pixels:,} are drawn",
            "send a smaller `overlay`, fewer `kinds`, or `each_word: false`",
        )


async def written(asked: Explain, own: HeatMap, square: np.ndarray) -> dict[str, Any]:
    """One map as `schemas.Map` has it. Pictures are drawn beside the event loop, one after the other, so that whoever leaves stops it."""
    side, words = asked.overlay, None
    shown = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC) if side else None
    if own.by_word is not None and asked.each_word:
        words = [
            {"text": word.text, "start": word.start, "stop": word.stop, "values": heat.tolist(), "overlay": picture}
            async for (word, heat), picture in _drawn(own, shown)
        ]
    overlay = await asyncio.to_thread(drawn, shown, own.kind, own.heat) if shown is not None else None
    rows, columns = own.heat.shape
    return {
        "says": KINDS[own.kind].says,
        "rows": rows,
        "columns": columns,
        "values": own.heat.tolist(),
        "overlay": overlay,
        "words": words,
        "heads": own.by_head.tolist() if own.by_head is not None and asked.each_head else None,
        "layers": list(own.layers),
        "score": own.score,
        "score_name": own.score_name or None,
        "chosen": own.chosen or None,
    }


async def _drawn(own: HeatMap, shown: Image.Image | None) -> AsyncIterator[tuple[tuple[Word, Tensor], str | None]]:
    for word, heat in own.each_word():
        yield (word, heat), await asyncio.to_thread(drawn, shown, own.kind, heat) if shown is not None else None
