"""A stand-in for a model that encodes, matches and fills masks, with answers one can work out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from PIL import Image

from multiway.abilities import Encoded
from multiway.data.source import Row


class Cards:
    """Pictures that are a number, and captions of words; every picture has the captions given for it."""

    name, split, fingerprint = "cards", "test", "cards"
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __init__(self, captions: list[tuple[str, ...]], groups: list[str] | None = None) -> None:
        self.captions = captions
        self.groups = groups or [""] * len(captions)

    def __len__(self) -> int:
        return len(self.captions)

    def row(self, index: int) -> Row:
        return Row(str(index), index, self.captions[index], group=self.groups[index])

    def image(self, index: int) -> Image.Image:
        return Image.new("L", (1, 1), index)


@dataclass
class FusedModel:
    """Random embeddings; log-odds from a table of (picture, text), so that a fused ranking is known in advance.

    Attributes:
        odds: (pictures, texts) log-odds.
        seed: of the embeddings.
        calls: what was asked: numbers of pictures and texts encoded and of pairs matched.
    """

    odds: torch.Tensor
    texts: list[str]
    seed: int = 0
    calls: dict[str, int] = field(default_factory=lambda: {"image": 0, "text": 0, "match": 0})

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "compare", "match")

    def _vectors(self, numbers: list[int], which: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed + which)
        table = F.normalize(torch.randn(max(self.odds.shape), 5, generator=generator), dim=1)
        return table[torch.tensor(numbers)]

    def encode_image(self, images: list[Image.Image], tokens: bool = False) -> Encoded:
        numbers = [image.getpixel((0, 0)) for image in images]
        self.calls["image"] += len(numbers)
        return Encoded(self._vectors(numbers, 0), torch.tensor(numbers).float()[:, None, None] if tokens else None)

    def encode_text(self, texts: list[str], tokens: bool = False) -> Encoded:
        self.calls["text"] += len(texts)
        numbers = [self.texts.index(text) for text in texts]
        lengths = [len(text.split()) for text in texts]
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        content = torch.tensor(numbers).float()[:, None, None].expand(-1, max(lengths), 1)
        return Encoded(self._vectors(numbers, 1), content if tokens else None, mask)

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        return image.embedding @ text.embedding.T

    def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
        self.calls["match"] += len(image.embedding)
        return self.odds[image.tokens[:, 0, 0].long(), text.tokens[:, 0, 0].long()]
