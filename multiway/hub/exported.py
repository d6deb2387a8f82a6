"""An exported folder as a model of multiway: every task and verb that reads weights runs on its graphs instead.

So the loss of int8 is measured by the tasks themselves: `multiway eval FOLDER/int8 --task retrieval`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multiway.abilities import Encoded, Query
from multiway.batch import ViewSpec
from multiway.config import from_json
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer
from multiway.hub.graph import ExportError
from multiway.hub.model import Model
from multiway.hub.onnx_file import require_onnx
from multiway.hub.onnx_runtime import Exported
from multiway.nn.generate import Generation, Texts, generate

__all__ = ["ExportedMethod", "open_exported"]


def open_exported(folder: Path, variant: str = "fp32", threads: int | None = None) -> Model:
    """A model whose method runs on onnxruntime.

    Raises:
        ExportError: if the folder cannot be run here.
    """
    require_onnx()
    try:
        ran = Exported(folder, variant, threads or torch.get_num_threads())
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder} cannot be opened as an export: {error}") from error
    about = ran.about
    tokenizer = None
    if about["text"] is not None:
        text = (folder / about["text"]["tokenizer"]).read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_json(text, about["text"]["context"])
    view = from_json(ViewSpec, about["view"], f"{folder}/export.json: view")
    return Model(ExportedMethod(ran), Processor(view, tokenizer), origin=about["origin"])  # type: ignore[arg-type]


class ExportedMethod(nn.Module):
    """What a method can do, by graphs; there is nothing to train."""

    def __init__(self, ran: Exported) -> None:
        super().__init__()
        self.ran = ran
        self.name = f"{ran.about['method']}-{ran.variant}"
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)  # says where it runs: on the CPU

    def config_json(self) -> dict[str, Any]:
        """What tells one export from another, for those who keep what it computes: SHA-256 of each graph and of weights beside it."""
        folder = self.ran.folder / self.ran.about["variants"][self.ran.variant]
        files = sorted(file for file in folder.iterdir() if file.suffix in (".onnx", ".data"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def abilities(self) -> tuple[str, ...]:
        """Of the parts that were exported, those that `Model` asks a method for."""
        has = set(self.ran.about["parts"])
        both = {"image", "text"} <= has
        able = {
            "encode_image": "image" in has or self._from_pixels,
            "encode_text": bool(has & {"text", "match", "answer"}),
            "compare": "compare" in has or (both and self.ran.about["compares"]),
            "match": "match" in has,
            "generate": "caption" in has,
            "classify": "classify" in has,
            "answer": "answer" in has,
        }
        return tuple(name for name, there in able.items() if there)

    @property
    def _from_pixels(self) -> bool:
        """Whether there are graphs that go from pixels to scores in one, so that pixels are what has to be kept of a picture."""
        return not {"classify", "answer"}.isdisjoint(self.ran.about["parts"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it was tuned for."""
        return tuple(self.ran.about["classes"])

    @property
    def answers(self) -> tuple[str, ...]:
        """The list of answers it was tuned for."""
        return tuple(self.ran.about["answers"])

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, S, S) -> embeddings and tokens; of a model that was tuned to classify or answer the pixels (B, 3, S * S) take the place
        of the tokens."""
        found = self._run("image", pixels=images.float()) if "image" in self.ran.graphs else {}
        tokens = images.float().flatten(2) if self._from_pixels else found.get("image_tokens")
        return Encoded(found.get("image_embedding", images.new_zeros(len(images), 0)), tokens)

    def _pixels(self, image: Encoded) -> Tensor:
        assert image.tokens is not None
        side = self.ran.about["picture"]["size"]
        return image.tokens.unflatten(2, (side, side))

    def _tokens(self, image: Encoded) -> Tensor:
        """(B, N, W) of pictures, computed now where pixels were kept."""
        assert image.tokens is not None
        return self._run("image", pixels=self._pixels(image))["image_tokens"] if self._from_pixels else image.tokens

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) -> embeddings and tokens; of a matcher without an encoder the ids alone, which it reads anew."""
        found = self._run("text", ids=ids, mask=mask) if "text" in self.ran.graphs else {}
        tokens = found.get("text_tokens", torch.zeros(*ids.shape, 0))
        return Encoded(found.get("text_embedding", torch.zeros(len(ids), 0)), tokens, mask, ids)

    def compare(self, image: Encoded, text: Encoded, query: Query = "image") -> Tensor:
        """(Bi, Bt) similarities."""
        if image.has_embedding:
            return image.embedding @ text.embedding.T
        assert text.tokens is not None and text.mask is not None
        given = {"image_tokens": self._tokens(image), "text_tokens": text.tokens, "text_mask": text.mask}
        return self._run("compare", **given)[f"by_{query}"]

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds."""
        assert text.ids is not None and text.mask is not None
        return self._run("match", image_tokens=self._tokens(image), ids=text.ids, mask=text.mask)["score"]

    def classify(self, image: Encoded) -> Tensor:
        """(B, K) scores of `classes`."""
        return self._run("classify", pixels=self._pixels(image))["scores"]

    def answer(self, image: Encoded, text: Encoded) -> Tensor:
        """(B, A) scores of `answers`."""
        assert text.ids is not None and text.mask is not None
        return self._run("answer", pixels=self._pixels(image), ids=text.ids, mask=text.mask)["scores"]

    def generate(
        self,
        image: Encoded,
        settings: Generation,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Texts:
        """Texts by any of multiway's ways of writing, each step a graph's.

        Raises:
            ExportError: for prompts, where what reads them was not exported.
        """
        shown, how = self._tokens(image), self.ran.about["caption"]
        if prompts is None:
            prompts = torch.full((len(shown), 1), how["start"])
        elif not how["prompted"]:
            raise ExportError(f"{self.name} was exported without what reads a prompt; leave it out")
        else:
            prompts = prompts.clone()
            prompts[:, 0] = how["start"]
        settings = replace(settings, max_length=min(settings.max_length, how["context"]))
        decoding = _Decoding(self.ran, shown.numpy())
        return generate(
            decoding, prompts, settings, end=how["end"], pad=how["pad"], prompt_mask=prompt_mask, generator=generator
        )

    def _run(self, graph: str, **inputs: Tensor) -> dict[str, Tensor]:
        found = self.ran.run(graph, {name: each.detach().contiguous().numpy() for name, each in inputs.items()})
        return {name: torch.from_numpy(each) for name, each in found.items()}


class _Decoding:
    """`nn.generate.Decoding` on graphs: a text's keys and values move with it."""

    def __init__(self, ran: Exported, image_tokens: np.ndarray[Any, Any]) -> None:
        self.ran, self.image = ran, image_tokens
        self.ids = np.zeros((len(image_tokens), 0), np.int64)
        self.kept: dict[str, np.ndarray[Any, Any]] = {}

    def step(self, ids: Tensor) -> Tensor:
        self.ids = np.concatenate([self.ids, ids.numpy()], 1)
        return torch.from_numpy(self.ran.next_logits(self.image, self.ids, self.kept))

    def select(self, rows: Tensor) -> None:
        chosen = rows.numpy()
        self.ids, self.image = self.ids[chosen], self.image[chosen]
        self.kept = {name: each[chosen] for name, each in self.kept.items()}
