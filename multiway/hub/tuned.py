"""What a model that was tuned for a task is asked: answers, verdicts, choices and regions. A part of `hub.model.Model`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.hub.captions import spelt
from multiway.nn.generate import Generation

__all__ = ["Tuned"]

Part = TypeVar("Part")


class _Runs(Protocol):
    """What a model has that these need."""

    method: Any
    processor: Any

    def abilities(self) -> tuple[str, ...]: ...

    @property
    def device(self) -> torch.device: ...

    def by_rows(self, count: int, ask: Callable[[Tensor], Part]) -> list[Part]: ...


class Tuned:
    """Scores from pictures and texts that were encoded with `tokens=True`, row by row, on the CPU in float32."""

    @property
    def answers(self: _Runs) -> tuple[str, ...]:
        """What `answer` chooses among."""
        require(self.method, ("answer",), "answer")
        return self.method.answers  # type: ignore[no-any-return]

    @property
    def verdicts(self: _Runs) -> tuple[str, ...]:
        """What `judge` decides between."""
        require(self.method, ("judge",), "judge")
        return self.method.verdicts  # type: ignore[no-any-return]

    @property
    def classes(self: _Runs) -> tuple[str, ...]:
        """What `classify` sorts pictures into."""
        require(self.method, ("classify",), "classify")
        return self.method.classes  # type: ignore[no-any-return]

    def classify(self: _Runs, images: Encoded) -> Tensor:
        """(B, K) scores of each class for each picture."""
        require(self.method, ("classify",), "classify")
        if not len(images.embedding):
            raise ValueError("nothing to classify: there are no pictures")

        def some(rows: Tensor) -> Tensor:
            return self.method.classify(images.rows(rows).to(self.device)).float().cpu()  # type: ignore[no-any-return]

        return torch.cat(self.by_rows(len(images.embedding), some))

    def answer(self: _Runs, images: Encoded, texts: Encoded) -> Tensor:
        """(B, A) scores of each answer to question i about picture i."""
        return _scored(self, "answer", (images,), texts, lambda ask, shown, text, rows: ask(shown[0], text))

    def write_answers(
        self: _Runs,
        images: Encoded,
        texts: Encoded,
        settings: Generation | None = None,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """An answer to question i about picture i in the model's own words; greedily by default.

        Raises:
            LacksAbility: if it only chooses from a list, or answers nothing.
        """
        require(
            self.method,
            ("write_answers",),
            "write_answers",
            ("answer-writer (multiway finetune RUN --task vqa-generate)",),
        )

        def some(rows: Tensor) -> list[str]:
            shown, asked = images.rows(rows).to(self.device), texts.rows(rows).to(self.device)
            return spelt(
                self.processor.tokenizer,
                self.method.write_answers(shown, asked, settings or Generation(), generator),
            )

        return [text for part in self.by_rows(len(texts.embedding), some) for text in part]

    def judge(self: _Runs, images: Sequence[Encoded], texts: Encoded) -> Tensor:
        """(B, K) scores of each verdict on sentence i, by the i-th picture of each of `images`."""
        return _scored(self, "judge", tuple(images), texts, lambda ask, shown, text, rows: ask(shown, text))

    def choose(self: _Runs, images: Encoded, texts: Encoded) -> Tensor:
        """(B,) scores of text i with picture i."""
        return _scored(self, "choose", (images,), texts, lambda ask, shown, text, rows: ask(shown[0], text))

    def point(self: _Runs, images: Encoded, texts: Encoded, boxes: Tensor) -> Tensor:
        """(B, K) scores of regions, from (B, K, 4) boxes."""

        def ask(point: Callable[..., Tensor], shown: Sequence[Encoded], text: Encoded, rows: Tensor) -> Tensor:
            return point(shown[0], text, boxes[rows].to(self.device))

        return _scored(self, "point", (images,), texts, ask)


def _scored(
    model: _Runs,
    ability: str,
    images: tuple[Encoded, ...],
    texts: Encoded,
    ask: Callable[[Callable[..., Tensor], tuple[Encoded, ...], Encoded, Tensor], Tensor],
) -> Tensor:
    """Row by row, a batch at a time.

    Raises:
        LacksAbility: if the method cannot.
        ValueError: if tokens were not kept, the numbers of rows differ, or there is no row.
    """
    require(model.method, (ability,), ability)
    count = len(texts.embedding)
    if not count:
        raise ValueError(f"nothing to {ability}: there are no texts")
    # A head on two embeddings needs no tokens (the adapter of a dual encoder), unless it looks at regions.
    bare = "fuse" not in model.abilities()
    kept = [side.tokens is not None or (bare and side.has_embedding) for side in (*images, texts)]
    if ability == "point":
        kept[0] = images[0].tokens is not None
    if not all(kept) or any(len(image.embedding) != count for image in images):
        raise ValueError(
            f"{ability} takes as many pictures as texts, encoded with tokens=True; given "
            f"{' and '.join(str(len(image.embedding)) for image in images)} pictures and {count} texts, tokens kept: "
            f"{', '.join(map(str, kept))}"
        )
    method, device = getattr(model.method, ability), model.device

    def some(rows: Tensor) -> Tensor:
        shown = tuple(image.rows(rows).to(device) for image in images)
        return ask(method, shown, texts.rows(rows).to(device), rows).float().cpu()

    return torch.cat(model.by_rows(count, some))
