"""A trained method with its processor: what `multiway.load` returns and tasks, search and reports work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded, abilities_of, require
from multiway.data.decode import decode
from multiway.data.processor import Processor
from multiway.methods.method import Method

__all__ = ["Model", "Picture"]

Picture = Image.Image | str | Path


class Model:
    """Pictures and strings in, embeddings out.

    Args:
        method: in evaluation mode from here on.
        processor: its tokeniser and preprocessing.
        precision: `fp32` or `bf16` autocast.
        batch: rows per forward pass.
    """

    def __init__(self, method: Method, processor: Processor, precision: str = "fp32", batch: int = 256) -> None:
        self.method = method.eval()
        self.processor = processor
        self.precision = precision
        self.batch = batch

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

    def encode_image(self, images: Sequence[Picture] | Tensor) -> Encoded:
        """Embeddings of pictures.

        Args:
            images: Pillow pictures, paths, or (B, 3, H, W) normalised pixels.

        Returns:
            `Encoded` with (B, D) unit vectors on the CPU.

        Raises:
            BadRow: if a path leads to no picture.
            TypeError: for one picture instead of a list.
            ValueError: for an empty list, or pixels of another shape.
        """
        require(self.method, ("encode_image",), "encode_image")
        encode: Callable[[Tensor], Encoded] = self.method.encode_image  # type: ignore[assignment]
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(f"pixels have shape {tuple(images.shape)}; expected (B, 3, H, W)")
            return self._in_batches(len(images), lambda rows: encode(images[rows].to(self.device)))
        if isinstance(images, str | Path | Image.Image):
            raise TypeError(f"encode_image takes a list of pictures; given one, {images!r}: write it in brackets")

        def draw(rows: slice) -> Tensor:
            # Paths are opened a batch at a time, so that memory does not grow with the list.
            some = [
                image if isinstance(image, Image.Image) else decode(Path(image), str(image)) for image in images[rows]
            ]
            return self.processor.images(some)

        return self._in_batches(len(images), lambda rows: encode(draw(rows).to(self.device)))

    def encode_text(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of strings: `Encoded` with (B, D) unit vectors on the CPU.

        Equal strings are encoded once, and strings of like length together, so that little is computed for padding.
        """
        require(self.method, ("encode_text",), "encode_text")
        if isinstance(texts, str):
            raise TypeError(f"encode_text takes a list of strings; given one string {texts!r}: write [{texts!r}]")
        distinct = sorted(set(texts), key=lambda text: (len(text), text))

        def encode(rows: slice) -> Encoded:
            tokens = self.processor.texts(distinct[rows])
            return self.method.encode_text(tokens.ids.to(self.device), tokens.mask.to(self.device))  # type: ignore[operator, no-any-return]

        encoded = self._in_batches(len(distinct), encode)
        place = {text: row for row, text in enumerate(distinct)}
        return Encoded(encoded.embedding[torch.tensor([place[text] for text in texts], dtype=torch.int64)])

    @torch.inference_mode()
    def _in_batches(self, count: int, encode: Callable[[slice], Encoded]) -> Encoded:
        if count == 0:
            raise ValueError("nothing to encode: the list is empty")
        parts = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            for start in range(0, count, self.batch):
                encoded = encode(slice(start, min(count, start + self.batch)))
                parts.append(Encoded(encoded.embedding.float().cpu()))
        return Encoded.cat(parts)

    def describe(self) -> dict[str, Any]:
        """For people and logs: method, parameters, abilities, view."""
        return {
            "method": self.name,
            "parameters": sum(parameter.numel() for parameter in self.method.parameters()),
            "abilities": list(self.abilities()),
            "size": self.processor.view.size,
        }
