"""Runs a folder that `multiway export` wrote: onnxruntime, tokenizers, Pillow and numpy, nothing else.

This file is copied into every such folder as `runtime.py`, so that the folder works where multiway is not installed:

    from runtime import Exported

    model = Exported("folder")
    model.similarity(["cat.png"], ["a cat", "a dog"])
    model.caption(["cat.png"])

Pictures are paths or Pillow pictures. What a model cannot do is a `KeyError` that says what it can; a picture that cannot be read whole,
or has more pixels than are decoded, is a `PictureError` that says which and why. Files come from strangers: their size is taken from the
header before anything is decompressed, and only raster formats are tried (Pillow would hand an EPS file to Ghostscript).
"""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tokenizers import Tokenizer

__all__ = ["FORMAT", "PIXELS", "Exported", "PictureError"]

FORMAT = "multiway-export 1"
PIXELS = 64_000_000
"""Pixels above which a picture is refused: 8000 x 8000, about 250 MB once decoded."""

_RASTER = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# What Pillow's decoders raise on damaged files; OSError covers truncation.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
Array = np.ndarray[Any, Any]


class PictureError(ValueError):
    """A picture that is not shown to the model: no picture, damaged, or too large."""


class Exported:
    """A model of graphs.

    Args:
        folder: has `export.json`.
        variant: `fp32`, or `int8` where the folder has it.
        threads: of each operator; None for onnxruntime's choice, one a core.
        providers: of onnxruntime, in the order of preference; the CPU's by default.
        pixels: greatest number in a picture, as it is stored and as it is drawn.

    Attributes:
        about: what `export.json` says.
        graphs: names of what can be run.
    """

    def __init__(
        self,
        folder: str | Path,
        variant: str = "fp32",
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        pixels: int = PIXELS,
    ) -> None:
        import onnxruntime

        self.folder = Path(folder)
        self.about: dict[str, Any] = json.loads((self.folder / "export.json").read_text(encoding="utf-8"))
        if self.about.get("format") != FORMAT or self.about.get("runtime") != "onnx":
            raise ValueError(
                f"{self.folder} is {self.about.get('format')!r} for {self.about.get('runtime')!r}; this runs {FORMAT!r} for 'onnx'"
            )
        if variant not in self.about["variants"]:
            raise ValueError(f"there is no variant {variant!r}; there are: {', '.join(self.about['variants'])}")
        self.variant = variant
        self._open = onnxruntime.InferenceSession
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads or 0
        self._providers = list(providers)
        self._pixels = pixels
        self._sessions: dict[str, Any] = {}
        self.graphs = tuple(self.about["graphs"])
        words = self.about["text"]
        self._tokenizer: Any = None
        if words is not None:
            self._tokenizer = Tokenizer.from_file(str(self.folder / words["tokenizer"]))
            self._tokenizer.enable_truncation(words["context"])
            self._tokenizer.no_padding()

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One graph on arrays by name -> arrays by name; `about["graphs"]` has names, types and shapes."""
        if graph not in self.graphs:
            raise KeyError(f"this {self.about['method']} has no graph {graph!r}; it has: {', '.join(self.graphs)}")
        if graph not in self._sessions:  # opened when first asked for
            file = self.folder / self.about["variants"][self.variant] / f"{graph}.onnx"
            self._sessions[graph] = self._open(str(file), self._options, providers=self._providers)
        session = self._sessions[graph]
        feed = {each.name: inputs[each.name] for each in session.get_inputs()}
        names = [port["name"] for port in self.about["graphs"][graph]["outputs"]]
        return dict(zip(names, session.run(names, feed), strict=True))

    # What goes in.

    def pixels(self, pictures: Sequence[Any]) -> Array:
        """Pictures as the model was trained to see them: (B, 3, S, S) float32.

        Raises:
            PictureError: for one that cannot be shown, naming it.
            OSError: for a file that cannot be opened.
        """
        view = self.about["picture"]
        squares = np.stack([_square(each, view, self._pixels) for each in pictures]).astype(np.float32)
        mean, std = (np.asarray(view[name], np.float32) for name in ("mean", "std"))
        scaled = (squares / np.float32(255) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def tokens(self, texts: Sequence[str]) -> dict[str, Array]:
        """`ids` (B, L) int64 and `mask` (B, L) bool, padded to the longest."""
        if self._tokenizer is None:
            raise KeyError(f"this {self.about['method']} reads no text")
        rows = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        ids = np.full((len(rows), max(map(len, rows))), self.about["text"]["pad"], np.int64)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = own
        mask = np.arange(ids.shape[1]) < np.asarray([len(row) for row in rows])[:, None]
        return {"ids": ids, "mask": mask}

    # What comes out.

    def encode_image(self, pictures: Sequence[Any]) -> dict[str, Array]:
        """`image_embedding` (B, D) of unit length and `image_tokens` (B, N, W), those of them that the model has."""
        return self.run("image", {"pixels": self.pixels(pictures)})

    def encode_text(self, texts: Sequence[str]) -> dict[str, Array]:
        """`text_embedding` (B, D) of unit length and `text_tokens` (B, L, W), those of them that the model has."""
        return self.run("text", self.tokens(texts))

    def similarity(self, pictures: Sequence[Any], texts: Sequence[str], query: str = "image") -> Array:
        """(P, T): every picture with every text, each read by itself; `query` is who asks, where that makes a difference (FILIP)."""
        seen, words = self.encode_image(pictures), self.tokens(texts)
        if "compare" in self.graphs:
            read = self.run("text", words)
            given = {
                "image_tokens": seen["image_tokens"],
                "text_tokens": read["text_tokens"],
                "text_mask": words["mask"],
            }
            return self.run("compare", given)[f"by_{query}"]
        if "image_embedding" not in seen:
            raise KeyError(f"this {self.about['method']} cannot compare what it has not read together; use match")
        return seen["image_embedding"] @ self.run("text", words)["text_embedding"].T

    def match(self, pictures: Sequence[Any], texts: Sequence[str]) -> Array:
        """(B,) log-odds that picture i and text i are a pair, read together."""
        return self.run("match_pixels", {"pixels": self.pixels(pictures), **self.tokens(texts)})["score"]

    def classify(self, pictures: Sequence[Any]) -> Array:
        """(B, K) scores of `about["classes"]`."""
        return self.run("classify", {"pixels": self.pixels(pictures)})["scores"]

    def answer(self, pictures: Sequence[Any], questions: Sequence[str]) -> Array:
        """(B, A) scores of `about["answers"]` for question i about picture i."""
        return self.run("answer", {"pixels": self.pixels(pictures), **self.tokens(questions)})["scores"]

    def caption(self, pictures: Sequence[Any], prompt: str = "", max_length: int = 20) -> list[str]:
        """A text for each picture, greedily: at each step the likeliest token.

        Args:
            pictures: B of them.
            prompt: what every text begins with; it is part of the result.
            max_length: in tokens, start, prompt and end included.
        """
        how = self.about["caption"]
        if how is None:
            raise KeyError(f"this {self.about['method']} writes no texts")
        if prompt and not how["prompted"]:
            raise KeyError(f"this {self.about['method']} was exported without what reads a prompt")
        first = [how["start"]]
        if prompt:
            first += [i for i in self._tokenizer.encode(prompt).ids[1:] if i != how["end"]]
        image_tokens = self.encode_image(pictures)["image_tokens"]
        ids = np.tile(np.asarray(first, np.int64), (len(image_tokens), 1))
        ended = np.zeros(len(ids), bool)
        kept: dict[str, Array] = {}
        longest = min(max_length, how["context"])
        while ids.shape[1] < longest and not ended.all():
            logits = self.next_logits(image_tokens, ids, kept)
            token = np.where(ended, how["pad"], logits.argmax(1))
            ids = np.concatenate([ids, token[:, None]], 1)
            ended |= token == how["end"]
        return [self._spelt(row) for row in ids.tolist()]

    def next_logits(self, image_tokens: Array, ids: Array, kept: dict[str, Array]) -> Array:
        """(B, V) logits of the token after `ids`; `kept` are keys and values, changed in place."""
        if "caption_write" in self.graphs:
            return self.run("caption_write", {"image_tokens": image_tokens, "ids": ids})["logits"]
        if not kept:
            found = self.run("caption_prefill", {"image_tokens": image_tokens, "ids": ids})
        else:
            found = self.run("caption_step", {"ids": ids[:, -1:], **kept})
        logits = found.pop("logits")
        # What was present is past at the next step; of the picture it was there from the first.
        kept |= {name.replace("present.", "past_key_values."): each for name, each in found.items()}
        return logits

    def _spelt(self, ids: Sequence[int]) -> str:
        """Without what stands for start and padding, which may be ids that the tokeniser does not have."""
        end, count = self.about["caption"]["end"], self.about["text"]["ids"]
        stop = ids.index(end, 1) if end in ids[1:] else len(ids)
        return str(self._tokenizer.decode([i for i in ids[:stop] if i < count])).strip()


def _opened(picture: Any, pixels: int) -> Image.Image:
    """A path's picture, decoded, upright and in a plain mode; a Pillow picture as it is, decoded if it still lies in its file."""
    if isinstance(picture, Image.Image):
        return _decoded(picture, "the picture", pixels)
    where = str(picture)
    Image.init()
    formats = [name for name in _RASTER if name in Image.OPEN]
    with Path(picture).open("rb") as file:
        try:
            image = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            raise PictureError(
                f"{where} is not a picture of {', '.join(formats)}; fetch it again if it should be, and render PDF, SVG or PostScript to PNG"
            ) from error
        except _DAMAGE as error:
            raise PictureError(
                f"{where}: the header is damaged or claims too much ({error}); fetch it again"
            ) from error
        upright = _decoded(image, where, pixels)
        with contextlib.suppress(*_DAMAGE):  # unreadable EXIF: shown as stored
            ImageOps.exif_transpose(upright, in_place=True)
        return _plain(upright, where)


def _decoded(image: Image.Image, where: str, pixels: int) -> Image.Image:
    width, height = image.size
    if not 0 < width * height <= pixels:
        raise PictureError(
            f"{where} has {width} x {height} pixels; expected 1 to {pixels:,} in all: scale it down, or raise Exported(pixels=...)"
        )
    try:
        image.load()
    except _DAMAGE as error:
        raise PictureError(f"{where} is truncated or damaged ({error}); fetch it again") from error
    return image


def _plain(image: Image.Image, where: str) -> Image.Image:
    """8 bits a channel; one transparent colour, if that is how the file states it, as a channel."""
    if image.mode in ("L", "RGB", "P") and "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "F":
        raise PictureError(f"{where} has 32-bit float pixels, whose range is anyone's guess; save it with 8 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)  # 16 bits: their upper byte, as viewers show them; Pillow's own conversion clips at 255
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"{where} has grey values from {values.min()} to {values.max()}; expected 0 to 65535, save it with 8 bits"
        )
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _square(picture: Any, view: Mapping[str, Any], pixels: int) -> Array:
    """(S, S, 3) uint8: transparent parts on an even grey, then resized by Pillow and made square."""
    image, grey, side = _opened(picture, pixels), view["background"], view["size"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (grey, grey, grey, 255)), layer)
    image = image.convert("RGB")
    resample = Image.Resampling[view["resample"].upper()]
    width, height = image.size
    if view["crop"] == "squash":
        return np.asarray(image.resize((side, side), resample))
    if view["crop"] == "pad":
        scale = side / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side), (grey,) * 3)
        canvas.paste(image.resize(inner, resample), ((side - inner[0]) // 2, (side - inner[1]) // 2))
        return np.asarray(canvas)
    edge = view["shortest"] or side
    scale = edge / min(width, height)
    inner = (edge, int(height * scale)) if width <= height else (int(width * scale), edge)
    if inner[0] * inner[1] > pixels:
        raise PictureError(
            f"a picture of {width} x {height} pixels is too long: with {edge} across it would be {max(inner):,} long; cut it first"
        )
    left, top = (inner[0] - side) // 2, (inner[1] - side) // 2
    return np.asarray(image.resize(inner, resample).crop((left, top, left + side, top + side)))
