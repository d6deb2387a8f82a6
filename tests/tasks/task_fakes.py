"""A data set in memory, and models whose embeddings are looked up: what tasks are tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from multiway.abilities import CaptionScores, Encoded
from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.source import Row
from multiway.data.tokenizer import Tokenizer, TokenizerSpec


class Shelf:
    """A `Source` of rows given as (image_id, captions, label); a picture's colour tells its image_id."""

    name = "shelf"
    fingerprint = "0"

    def __init__(
        self,
        rows: Sequence[tuple[int, Sequence[str], int]],
        classes: Sequence[str] = (),
        templates: Sequence[str] = (),
        split: str = "test",
    ) -> None:
        self.rows = rows
        self.classes = tuple(classes)
        self.templates = tuple(templates)
        self.split = split
        self.opened: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        image_id, captions, label = self.rows[index]
        return Row(f"row{index}", image_id, tuple(captions), label, f"shelf.jsonl, row {index}")

    def image(self, index: int) -> Image.Image:
        self.opened.append(index)
        number = self.rows[index][0]
        return Image.new("RGB", (1, 1), (number // 65536, number // 256 % 256, number % 256))


def number_of(image: Image.Image) -> int:
    """The image_id that a picture of `Shelf` shows."""
    red, green, blue = image.getpixel((0, 0))
    return red * 65536 + green * 256 + blue


class Lookup:
    """A model that asks two functions for a vector and normalises it."""

    def __init__(self, of_image: Callable[[int], torch.Tensor], of_text: Callable[[str], torch.Tensor]) -> None:
        self.of_image = of_image
        self.of_text = of_text
        self.texts: list[str] = []

    def encode_image(self, images: Sequence[Image.Image], tokens: bool = False) -> Encoded:
        unit = F.normalize(torch.stack([self.of_image(number_of(image)) for image in images]), dim=1)
        return Encoded(unit, unit[:, None] if tokens else None)

    def encode_text(self, texts: Sequence[str], tokens: bool = False) -> Encoded:
        self.texts += texts
        unit = F.normalize(torch.stack([self.of_text(text) for text in texts]), dim=1)
        return Encoded(unit, unit[:, None] if tokens else None)

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        return image.embedding @ text.embedding.T


class Fused(Lookup):
    """The same, able to do all: it matches by cosine, and takes every masked token for the first of its vocabulary."""

    def __init__(self, *lookups: Callable[..., torch.Tensor]) -> None:
        super().__init__(*lookups)
        words = Tokenizer.train(["text 1", "text 2"], TokenizerSpec(vocabulary=270, context=16))
        self.processor = Processor(ViewSpec(size=4), words)

    def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
        return (image.embedding * text.embedding).sum(1)

    def fill_mask(self, image: Encoded | None, ids: torch.Tensor, mask: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return torch.eye(270)[torch.full((int(at.sum()),), 5)]

    def caption_likelihood(self, image: Encoded, ids: torch.Tensor, mask: torch.Tensor) -> CaptionScores:
        return CaptionScores(torch.full(ids.shape, -1.0), torch.full_like(ids, 5))


def random_vector(seed: int, width: int = 8) -> torch.Tensor:
    """A vector that belongs to a number."""
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def random_model(width: int = 8, kind: type[Lookup] = Lookup) -> Lookup:
    """Knows nothing: a fixed random vector for each picture and text."""
    return kind(lambda i: random_vector(i, width), lambda text: random_vector(hash_of(text), width))


def constant_model(width: int = 8) -> Lookup:
    """Everything is the same point."""
    return Lookup(lambda i: random_vector(0, width), lambda text: random_vector(0, width))


def hash_of(text: str) -> int:
    """The same in every process, unlike `hash`."""
    return int.from_bytes(text.encode()[-7:], "big") + 100_003
