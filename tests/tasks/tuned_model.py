"""A stand-in for a tuned model: it knows which picture and which words it is asked about, and says what a rule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded
from multiway.data.annotated.files import ExampleFiles

Rule = Callable[..., Sequence[float]]


class Numbered:
    """Pictures that are a number."""

    def __init__(self, count: int = 250) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        return Image.new("L", (1, 1), index)


@dataclass
class TunedModel:
    """Scores by `rule(*pictures, text)`, or with boxes `rule(picture, text, box)` of each.

    Attributes:
        calls: how many pictures, and how many texts, were encoded at each call.
    """

    rule: Rule
    names: tuple[str, ...] = ()
    able: tuple[str, ...] = ("answer", "judge", "choose", "point")
    texts: list[str] = field(default_factory=list)
    calls: dict[str, list[int]] = field(default_factory=lambda: {"image": [], "text": []})

    @property
    def answers(self) -> tuple[str, ...]:
        return self.names

    @property
    def verdicts(self) -> tuple[str, ...]:
        return self.names

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", *self.able)

    def encode_image(self, images: Sequence[Image.Image], tokens: bool = False) -> Encoded:
        assert tokens
        self.calls["image"].append(len(images))
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])  # type: ignore[arg-type]
        return Encoded(torch.zeros(len(images), 0), numbers.view(-1, 1, 1))

    def encode_text(self, texts: Sequence[str], tokens: bool = False) -> Encoded:
        assert tokens
        self.calls["text"].append(len(texts))
        start = len(self.texts)
        self.texts += texts
        numbers = torch.arange(start, len(self.texts), dtype=torch.float32)
        return Encoded(torch.zeros(len(texts), 0), numbers.view(-1, 1, 1))

    def _asked(self, images: Sequence[Encoded], texts: Encoded) -> list[tuple[Any, ...]]:
        rows = torch.cat([each.tokens[:, 0] for each in images], 1).int().tolist()  # type: ignore[index]
        said = texts.tokens[:, 0, 0].int().tolist()  # type: ignore[index]
        return [(*pictures, self.texts[text]) for pictures, text in zip(rows, said, strict=True)]

    def answer(self, images: Encoded, texts: Encoded) -> Tensor:
        return torch.tensor([self.rule(*row) for row in self._asked((images,), texts)])

    def judge(self, images: Sequence[Encoded], texts: Encoded) -> Tensor:
        return torch.tensor([self.rule(*row) for row in self._asked(images, texts)])

    def choose(self, images: Encoded, texts: Encoded) -> Tensor:
        return torch.tensor([float(self.rule(*row)) for row in self._asked((images,), texts)])  # type: ignore[arg-type]

    def point(self, images: Encoded, texts: Encoded, boxes: Tensor) -> Tensor:
        asked = self._asked((images,), texts)
        return torch.tensor(
            [
                [float(self.rule(*row, tuple(box))) for box in own]  # type: ignore[arg-type]
                for row, own in zip(asked, boxes.tolist(), strict=True)
            ]
        )


def numbered(kind: Any, rows: Sequence[Any], labels: tuple[str, ...] = (), split: str = "val") -> Any:
    """Examples about pictures that are a number."""
    return ExampleFiles("numbered", split, kind, rows, Numbered(), labels)


def one(names: Sequence[str], name: str) -> list[float]:
    """Scores of which `name`'s is highest."""
    return [float(each == name) for each in names]
