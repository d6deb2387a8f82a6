"""`multiway.explain(model, image, text, kinds=...)`: maps of a picture, as typed results.

import multiway as mw
seen = mw.explain(mw.load("runs/albef"), "street.jpg", "a red car", kinds=["grad-cam", "occlusion"])
seen["grad-cam"].heat                                        # (rows, columns)
[(word.text, heat) for word, heat in seen["grad-cam"].each_word()]
seen.save("street.npz")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.data.decode import decode
from multiway.explain.kinds import named
from multiway.explain.pairs import CannotShow, Found, Look, Pairs
from multiway.explain.spans import Word, over_words, words_of

__all__ = ["Explanation", "HeatMap", "able_kinds", "explain", "explain_pairs"]


@dataclass(frozen=True)
class HeatMap:
    """One kind of map of one picture. All tensors are float32 on the CPU; rows go down, columns to the right.

    Attributes:
        kind: its name.
        heat: (rows, columns) of the whole text, or of the picture where none is asked about.
        words: of the text, in order; empty for kinds that have one map.
        by_word: (W, rows, columns); None for these.
        by_head: (layers, heads, rows, columns) of attention, of all layers and heads, chosen or not; None for other kinds.
        layers: numbers of the layers that `heat` is the mean over.
        score: what is explained: log-odds of a match, a similarity, a distance; None where nothing is.
        score_name: what it is called.
        chosen: what the map speaks for where the model chose that itself, the class it gives; empty otherwise.
    """

    kind: str
    heat: Tensor
    words: tuple[Word, ...] = ()
    by_word: Tensor | None = None
    by_head: Tensor | None = None
    layers: tuple[int, ...] = ()
    score: float | None = None
    score_name: str = ""
    chosen: str = ""

    def each_word(self) -> Iterator[tuple[Word, Tensor]]:
        """Words with their maps."""
        if self.by_word is not None:
            yield from zip(self.words, self.by_word, strict=True)

    def best_patches(self) -> list[tuple[Word, tuple[int, int], float]]:
        """Of each word the row and column of the patch that it fits best, and how well."""
        columns = self.heat.shape[1]
        best = [(word, int(own.flatten().argmax()), float(own.max())) for word, own in self.each_word()]
        return [(word, divmod(place, columns), value) for word, place, value in best]

    def arrays(self) -> dict[str, np.ndarray]:
        """`heat`, and `word_heat` with the characters of its words, `head_heat` and `score` where there are."""
        found: dict[str, np.ndarray] = {"heat": self.heat.numpy()}
        if self.by_word is not None:
            found["word_heat"] = self.by_word.numpy()
            found["word_spans"] = np.array([(w.start, w.stop) for w in self.words], dtype=np.int64).reshape(-1, 2)
        if self.by_head is not None:
            found["head_heat"] = self.by_head.numpy()
        if self.score is not None:
            found["score"] = np.array(self.score, dtype=np.float32)
        return found


@dataclass(frozen=True)
class Explanation:
    """One picture, with one text or none.

    Attributes:
        text: empty for none.
        maps: by kind, in the order of `KINDS` or as they were asked for.
        absent: kinds that the model has nothing to show for, and why.
    """

    text: str
    maps: dict[str, HeatMap] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, kind: str) -> HeatMap:
        return self.maps[kind]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by `kind/name`, and the text."""
        found = {f"{kind}/{name}": array for kind, own in self.maps.items() for name, array in own.arrays().items()}
        return found | {"text": np.array(self.text)}

    def save(self, path: str | Path) -> None:
        """As `.npz`, which `numpy.load` reads without unpickling anything."""
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]


def explain(
    model: Any, image: Image.Image | str | Path, text: str = "", kinds: Iterable[str] | None = None, **look: Any
) -> Explanation:
    """Look at one picture.

    Args:
        model: what `multiway.load` returns.
        image: a Pillow picture or a path.
        text: what is looked for; empty for nothing.
        kinds: names of maps (`KINDS`); by default all that the model has.
        **look: fields of `Look`: layers, heads, window, stride, baseline, score, batch.

    Raises:
        CannotShow: if the model has nothing to show of a kind that was named; the message names those that it has.
        ConfigError: for an unknown kind, or a layer, head, window or colour that there is not.
        BadRow: if a path leads to no picture.
    """
    picture = image if isinstance(image, Image.Image) else decode(Path(image), str(image))
    return explain_pairs(model, [picture], [text] if text.strip() else None, kinds, Look(**look))[0]


def explain_pairs(
    model: Any,
    pictures: Sequence[Image.Image] | Tensor,
    texts: Sequence[str] | None = None,
    kinds: Iterable[str] | None = None,
    look: Look | None = None,
) -> list[Explanation]:
    """Look at pictures, picture i with text i, in one pass for each kind.

    Args:
        model: as of `explain`.
        pictures: at least one; or (B, 3, H, W) as the model takes them, normalised.
        texts: as many, or None.
        kinds: as of `explain`.
        look: how.
    """
    pairs = Pairs(model, pictures, texts, look or Look())
    asked = None if kinds is None else tuple(kinds)
    found = [Explanation("" if texts is None else texts[row]) for row in range(len(pictures))]
    words = [()] * len(pictures) if texts is None or model.processor.tokenizer is None else _words(model, texts)
    # In full precision, whatever the model computes in: occlusion takes differences of scores, and rounded to bf16 patches that differ
    # would be equally hot.
    with torch.autocast(torch.device(model.device).type, enabled=False):
        for kind in named(asked):
            try:
                own = kind.show(pairs).cpu()
            except CannotShow as error:
                if asked is not None:
                    able = _able(model, pictures[:1], None if texts is None else texts[:1])
                    had = f"it has: {', '.join(able)}" if able else "it has none"
                    raise CannotShow(f"{model.name} cannot show `{kind.name}`: {error}; {had}") from error
                for one in found:
                    one.absent[kind.name] = str(error)
                continue
            for row, one in enumerate(found):
                one.maps[kind.name] = _row(kind.name, own, row, words[row])
    return found


def able_kinds(model: Any, picture: Image.Image, text: str | None = None) -> tuple[str, ...]:
    """Names of the kinds that a model has something to show for, found by showing them."""
    return _able(model, [picture], None if text is None else [text])


def _able(model: Any, pictures: Sequence[Image.Image] | Tensor, texts: Sequence[str] | None) -> tuple[str, ...]:
    # One window as large as the picture: whether occlusion can be shown does not depend on how often it is.
    side = model.processor.view.size
    return tuple(explain_pairs(model, pictures, texts, look=Look(window=side, stride=side))[0].maps)


def _words(model: Any, texts: Sequence[str]) -> list[tuple[Word, ...]]:
    return [words_of(model.processor.tokenizer, text) for text in texts]


def _row(kind: str, found: Found, row: int, words: tuple[Word, ...]) -> HeatMap:
    return HeatMap(
        kind,
        found.heat[row],
        words if found.tokens is not None else (),
        None if found.tokens is None else over_words(found.tokens[row], words),
        None if found.heads is None else found.heads[row],
        found.layers,
        None if found.score is None else float(found.score[row]),
        found.score_name,
        found.chosen[row] if found.chosen else "",
    )
