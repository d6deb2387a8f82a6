"""A trained method with its processor: what `multiway.load` returns and tasks, search and reports work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import CaptionScores, Encoded, Fused, Query, Tokens, abilities_of, reader, require
from multiway.data.decode import decode
from multiway.data.processor import Processor
from multiway.hub.captions import write_captions
from multiway.hub.origin import Origin, of_others
from multiway.hub.tuned import Tuned
from multiway.methods.method import Method
from multiway.nn.generate import Generation

if TYPE_CHECKING:
    from multiway.hub.accounting import Report

__all__ = ["Model", "Picture"]

Picture = Image.Image | str | Path
Pictures = Sequence[Picture] | Tensor | Encoded  # to be encoded, or encoded before
Strings = Sequence[str] | Encoded
Part = TypeVar("Part")


class Model(Tuned):
    """Pictures and strings in; embeddings, matches and guesses out.

    Args:
        method: in evaluation mode from here on.
        processor: its tokeniser and preprocessing.
        precision: `fp32` or `bf16` autocast.
        batch: rows per forward pass.
        report: what became of the tensors of the checkpoint that it was loaded from; None for one that was trained or written here.
        origin: whose weights these were and what they have learned from, first to last (`hub/origin.py`); empty where that is not known.
    """

    def __init__(
        self,
        method: Method,
        processor: Processor,
        precision: str = "fp32",
        batch: int = 256,
        report: Report | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.method = method.eval()
        self.processor = processor
        self.precision = precision
        self.batch = batch
        self.report = report
        self.origin: Origin = (
            list(origin) if origin is not None else [] if report is None else of_others(report.source, report.kind)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.method.parameters()).device

    @property
    def name(self) -> str:
        """Of the method."""
        return self.method.name

    def abilities(self) -> tuple[str, ...]:
        """Names of what this model can be asked to do."""
        return abilities_of(self.method)

    def encode_image(self, images: Sequence[Picture] | Tensor, tokens: Tokens = False) -> Encoded:
        """Embeddings of pictures.

        Args:
            images: Pillow pictures, paths, or (B, 3, H, W) normalised pixels.
            tokens: keep the token features too, for `match`; they take N x W numbers a picture instead of D. They are kept
                anyway where the method has no embedding (see `Encoded`). `"only"` where nothing but `fuse`, `match` and tuned heads
                will read them: a method that can then leaves the embedding out, (B, 0).

        Returns:
            `Encoded` with (B, D) unit vectors on the CPU; (B, 0) where the method has no shared space.

        Raises:
            BadRow: if a path leads to no picture.
            TypeError: for one picture instead of a list.
            ValueError: for an empty list, or pixels of another shape.
        """
        require(self.method, ("encode_image",), "encode_image")
        encode = reader(self.method, "image", tokens)
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(f"pixels have shape {tuple(images.shape)}; expected (B, 3, H, W)")
            return self._in_batches(len(images), lambda rows: encode(images[rows].to(self.device)), tokens)
        if isinstance(images, str | Path | Image.Image):
            raise TypeError(f"encode_image takes a list of pictures; given one, {images!r}: write it in brackets")

        def draw(rows: slice) -> Tensor:
            # Paths are opened a batch at a time, so that memory does not grow with the list.
            some = [
                image if isinstance(image, Image.Image) else decode(Path(image), str(image)) for image in images[rows]
            ]
            return self.processor.images(some)

        return self._in_batches(len(images), lambda rows: encode(draw(rows).to(self.device)), tokens)

    def encode_text(self, texts: Sequence[str], tokens: Tokens = False) -> Encoded:
        """Embeddings of strings: `Encoded` with (B, D) unit vectors on the CPU, and with `tokens`, or where there is no
        embedding, their token features.

        Equal strings are encoded once, and strings of like length together, so that little is computed for padding.
        """
        require(self.method, ("encode_text",), "encode_text")
        if isinstance(texts, str):
            raise TypeError(f"encode_text takes a list of strings; given one string {texts!r}: write [{texts!r}]")
        read = reader(self.method, "text", tokens)
        distinct = sorted(set(texts), key=lambda text: (len(text), text))

        def encode(rows: slice) -> Encoded:
            words = self.processor.texts(distinct[rows])
            return read(words.ids.to(self.device), words.mask.to(self.device))

        encoded = self._in_batches(len(distinct), encode, tokens)
        place = {text: row for row, text in enumerate(distinct)}
        return encoded.rows(torch.tensor([place[text] for text in texts], dtype=torch.int64))

    @torch.inference_mode()
    def compare(self, image: Pictures, text: Strings, query: Query = "image") -> Tensor:
        """Similarities of every picture with every text: (Bi, Bt) float32 on the CPU.

        Args:
            image, text: pictures and strings; or what `encode_image` and `encode_text` gave, which is quicker where the same are
                compared again.
            query: who asks, where that makes a difference; see `abilities.Compares`.

        Raises:
            LacksAbility: if the method cannot tell how like two are without reading them together.
        """
        require(self.method, ("compare",), "compare")
        image, text = self.shown(image, False), self.read(text, False)
        if image.has_embedding:
            # One product where the vectors lie: a round trip by way of the device costs more than the product itself.
            return image.embedding.float() @ text.embedding.float().T
        compare: Callable[[Encoded, Encoded, Query], Tensor] = self.method.compare  # type: ignore[assignment]
        rows = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            for start in range(0, len(image.embedding), self.batch):
                some = image.rows(torch.arange(start, min(start + self.batch, len(image.embedding)))).to(self.device)
                columns = []
                for first in range(0, len(text.embedding), self.batch):
                    others = text.rows(torch.arange(first, min(first + self.batch, len(text.embedding))))
                    columns.append(compare(some, others.to(self.device), query).float().cpu())
                rows.append(torch.cat(columns, 1))
        return torch.cat(rows)

    def match(self, image: Pictures, text: Strings) -> Tensor:
        """Log-odds that picture i and text i are a pair: (B,) float32 on the CPU.

        Args:
            image, text: as many pictures as strings; or what `encode_image` and `encode_text` gave with `tokens=True`, `rows` of
                them as pairs.

        Raises:
            LacksAbility: if the method has no fused encoder.
            ValueError: if tokens were not kept, or the numbers of rows differ.
        """
        require(self.method, ("match",), "match")
        image, text = self.shown(image), self.read(text)
        _check_pairs("match", image, text)
        match: Callable[[Encoded, Encoded], Tensor] = self.method.match  # type: ignore[assignment]
        device = self.device
        parts = self.by_rows(
            len(text.embedding),
            lambda rows: match(image.rows(rows).to(device), text.rows(rows).to(device)).float().cpu(),
        )
        return torch.cat([torch.empty(0), *parts])

    def fuse(self, image: Pictures | None, text: Strings) -> Fused:
        """Pictures and texts read together, one vector for each pair: `Fused` with `pooled` (B, W) float32 on the CPU.

        Args:
            image, text: as many pictures as strings; or what `encode_image` and `encode_text` gave with `tokens=True`, `rows` of
                them as pairs. The pictures' tokens may be those of two pictures, one after the other, where the method says so. None for a method that sees
                no picture.

        Raises:
            LacksAbility: if the method does not read both together.
            ValueError: if tokens were not kept, the numbers of rows differ, or there is no pair.
        """
        require(self.method, ("fuse",), "fuse")
        pictures, text = None if image is None else self.shown(image), self.read(text)
        _check_pairs("fuse", pictures, text)
        if not len(text.embedding):
            raise ValueError("nothing to fuse: there are no pairs")
        fuse: Callable[[Encoded | None, Encoded], Fused] = self.method.fuse  # type: ignore[assignment]

        def pooled(rows: Tensor) -> Tensor:
            some = None if pictures is None else pictures.rows(rows).to(self.device)
            return fuse(some, text.rows(rows).to(self.device)).pooled.float().cpu()

        return Fused(torch.cat(self.by_rows(len(text.embedding), pooled)))

    def fill_mask(self, images: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Logits of masked words: (P, V) float32 on the CPU; see `abilities.FillsMask`.

        Args:
            images: what `encode_image` gave with `tokens=True`, a row for each text; None leaves the picture out.
            ids, mask, at: (B, L).
        """
        require(self.method, ("fill_mask",), "fill_mask")
        fill: Callable[..., Tensor] = self.method.fill_mask  # type: ignore[assignment]

        def filled(rows: Tensor) -> Tensor:
            shown = None if images is None else images.rows(rows).to(self.device)
            return fill(shown, *(tensor[rows].to(self.device) for tensor in (ids, mask, at))).float().cpu()

        return torch.cat(self.by_rows(len(ids), filled))

    def caption_likelihood(self, images: Encoded | None, ids: Tensor, mask: Tensor) -> CaptionScores:
        """What the decoder says of each token of given captions; see `abilities.ScoresCaptions`. On the CPU.

        Args:
            images: what `encode_image` gave with `tokens=True`, a row for each caption; None for a method that sees none.
            ids, mask: (B, L).
        """
        require(self.method, ("caption_likelihood",), "caption_likelihood")
        told: Callable[[Encoded | None, Tensor, Tensor], CaptionScores] = self.method.caption_likelihood  # type: ignore[assignment]

        def said(rows: Tensor) -> tuple[Tensor, Tensor]:
            shown = None if images is None else images.rows(rows).to(self.device)
            scores = told(shown, *(tensor[rows].to(self.device) for tensor in (ids, mask)))
            return scores.logp.float().cpu(), scores.best.cpu()

        parts = self.by_rows(len(ids), said)
        return CaptionScores(torch.cat([logp for logp, _ in parts]), torch.cat([best for _, best in parts]))

    def generate(
        self,
        images: Pictures | None,
        settings: Generation | None = None,
        prompts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> list[list[str]]:
        """Captions of pictures.

        Args:
            images: pictures, or what `encode_image` gave with `tokens=True`; None for a method that sees none, which writes a text
                for each prompt, or one.
            settings: how they are written; by default greedily, to the end or the longest text that the model can read.
            prompts: what each text begins with, one for every picture; the captions include them.
            seed: of random draws.

        Returns:
            For each picture `settings.texts` captions.

        Raises:
            LacksAbility: if the method writes no texts.
            ValueError: if tokens were not kept, or the numbers of prompts and pictures differ.
        """
        require(self.method, ("generate",), "generate")
        pictures = None if images is None else self.shown(images, True)
        words = self.processor.tokenizer
        settings = settings or Generation(max_length=Generation.max_length if words is None else words.context)
        return write_captions(self, pictures, settings, prompts, seed)

    def shown(self, images: Pictures, tokens: Tokens = "only") -> Encoded:
        """Pictures encoded as `encode_image` does, unless they are already."""
        return images if isinstance(images, Encoded) else self.encode_image(images, tokens)

    def read(self, texts: Strings, tokens: Tokens = "only") -> Encoded:
        """Strings encoded as `encode_text` does, unless they are already."""
        return texts if isinstance(texts, Encoded) else self.encode_text(texts, tokens)

    def _in_batches(self, count: int, encode: Callable[[slice], Encoded], tokens: Tokens = False) -> Encoded:
        if count == 0:
            raise ValueError("nothing to encode: the list is empty")

        def encoded(rows: Tensor) -> Encoded:
            some = encode(slice(int(rows[0]), int(rows[-1]) + 1))
            some = replace(some, embedding=some.embedding.float())
            return (some if tokens else some.slim()).to("cpu")

        return Encoded.cat(self.by_rows(count, encoded))

    @torch.inference_mode()
    def by_rows(self, count: int, ask: Callable[[Tensor], Part]) -> list[Part]:
        """What `ask` gives of the numbers of `count` rows, a batch at a time, without gradient and in this model's precision."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return [ask(torch.arange(i, min(i + self.batch, count))) for i in range(0, count, self.batch)]

    def describe(self) -> dict[str, Any]:
        """For people and logs: method, parameters, abilities, view."""
        return {
            "method": self.name,
            "parameters": sum(parameter.numel() for parameter in self.method.parameters()),
            "abilities": list(self.abilities()),
            "size": self.processor.view.size,
        }


def _check_pairs(task: str, image: Encoded | None, text: Encoded) -> None:
    """As many pictures as texts, tokens kept on both sides."""
    if image is None:
        image = text
    if image.tokens is None or text.tokens is None or len(image.embedding) != len(text.embedding):
        raise ValueError(
            f"{task} takes as many pictures as texts, encoded with tokens=True; given {len(image.embedding)} and "
            f"{len(text.embedding)}, tokens kept: {image.tokens is not None} and {text.tokens is not None}"
        )
