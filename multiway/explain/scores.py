"""Scores of a picture with a text, as maps explain them: of the text alone, or of the text against others.

A similarity is made for comparing: alone it hardly depends on the text. Texts lie in a narrow cone (Liang et al., Mind the Gap,
2022, arXiv 2203.02053), and what raises the similarity to all of them says nothing of this one; Li et al., CLIP Surgery, 2023, arXiv
2304.05653, find CLIP's maps on the background for such features, which all texts share, and take them out by subtracting what other
texts have. With other texts t_1 ... t_K given, a score is here

    S(picture, text) - 1/K sum_k S(picture, t_k)

for every score: the common part goes, and what speaks for this text rather than for those is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded
from multiway.explain.pairs import CannotShow, Pairs

__all__ = ["score_of", "similarity"]


def similarity(method: Any, image: Encoded, text: Encoded, others: Encoded | None = None) -> Tensor:
    """(B,) similarities of picture i and text i, less the mean of those to `others`, in float32.

    Args:
        method: has `compare`.
        image: B pictures.
        text: B texts, or one for all.
        others: any number of texts; None for none.
    """
    count = len(image.embedding)
    if image.has_embedding:
        own = (image.embedding.float() * text.embedding.float().expand(count, -1)).sum(1)
    else:  # compared token by token; every picture with every text would be B times as much
        rows = torch.arange(count, device=text.embedding.device)[:, None]
        one = len(text.embedding) == 1
        own = torch.cat([method.compare(image.rows(row), text if one else text.rows(row)).flatten() for row in rows])
    return own if others is None else own - method.compare(image, others).float().mean(1)


def score_of(pairs: Pairs) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """What can fall when a picture changes.

    Returns:
        From (n, 3, S, S) pictures and (n,) the rows that they are copies of to (n,) scores, and what they are called.

    Raises:
        CannotShow: if the model has no score of a picture, or not the one that was asked for.
    """
    method, able, asked = pairs.method, pairs.able, pairs.look.score
    pairs.require("encode_image", why=f"{method.name} reads no pictures")
    if pairs.texts is None:
        return _of_class(pairs)

    def match(seen: Encoded, said: Encoded) -> Tensor:
        return method.match(seen, said)  # type: ignore[no-any-return]

    def caption(seen: Encoded, said: Encoded) -> Tensor:
        assert said.ids is not None and said.mask is not None
        return method.caption_likelihood(seen, said.ids, said.mask).logp.float().sum(1)  # type: ignore[no-any-return]

    above = " above that of others" if pairs.look.against else ""
    if "match" in able and asked in ("auto", "match"):
        return _against(pairs, match), f"log-odds of a match{above}"
    if "compare" in able and asked in ("auto", "similarity"):
        return _similar(pairs), f"similarity{above}"
    if "caption_likelihood" in able and asked in ("auto", "caption"):
        return _against(pairs, caption), f"log-probability of the text{above}"
    raise CannotShow(
        f"{method.name} has no {'score' if asked == 'auto' else asked} of a picture with a text that could fall"
    )


def _similar(pairs: Pairs) -> Callable[[Tensor, Tensor], Tensor]:
    def score(images: Tensor, rows: Tensor) -> Tensor:
        return similarity(pairs.method, pairs.method.encode_image(images), pairs.text.rows(rows), pairs.others)

    return score


def _against(pairs: Pairs, ask: Callable[[Encoded, Encoded], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A score of pictures read with texts, row by row: the other texts are asked about one after another."""

    def score(images: Tensor, rows: Tensor) -> Tensor:
        seen = pairs.method.encode_image(images)
        own, others = ask(seen, pairs.text.rows(rows)), pairs.others
        if others is None:
            return own
        each = [ask(seen, others.rows(torch.full_like(rows, number))) for number in range(len(pairs.look.against))]
        return own - torch.stack(each).mean(0)

    return score


def _of_class(pairs: Pairs) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Of a classifier without a text, its class."""
    method = pairs.method
    if "classify" not in pairs.able:
        pairs.require_texts()
    best = method.classify(pairs.image).argmax(1)

    def sure(images: Tensor, rows: Tensor) -> Tensor:
        scores = method.classify(method.encode_image(images)).float().log_softmax(1)
        return scores.gather(1, best[rows][:, None])[:, 0]  # type: ignore[no-any-return]

    return sure, "log-probability of its class"
