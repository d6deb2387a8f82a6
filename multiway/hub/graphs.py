"""What of a trained model can leave Python: graphs of tensors, one for each thing it can be asked, of any batch and length.

Each is a small module over the method, with names for what goes in and comes out and for the axes that may vary. `hub/onnx_file.py` and
`hub/torch_file.py` write them; neither knows what is inside.

part        graphs                              in -> out
`image`     `image`                             pixels -> embedding, tokens
`text`      `text`                              ids, mask -> embedding, tokens
`compare`   `compare`                           tokens of both sides -> similarities, where there is no embedding (FILIP)
`match`     `match`, `match_pixels`             image tokens or pixels, ids, mask -> log-odds of a pair
`caption`   `caption_prefill`, `caption_step`   image tokens, first ids -> logits, keys and values; and a token further
            `caption_write`                     image tokens, all ids -> logits, of a decoder that keeps nothing (BEiT-3)
`classify`  `classify`                          pixels -> scores of the classes it was tuned for
`answer`    `answer`                            pixels, ids, mask -> scores of the answers it was tuned for

Sizes of pictures are fixed: positions are those of one grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from multiway.abilities import Encoded
from multiway.hub.graph import ExportError, Graph, Port, Words
from multiway.hub.graph_modules import (
    Answer,
    Classify,
    Compare,
    Image,
    Kept,
    Match,
    MatchPixels,
    Prefill,
    Step,
    Text,
    Write,
    cached,
)
from multiway.hub.model import Model
from multiway.nn.generate import Cached

__all__ = ["PARTS", "graphs", "parts_of"]

PARTS: dict[str, str] = {
    "image": "encode_image",
    "text": "encode_text",
    "compare": "compare",
    "match": "match",
    "caption": "generate",
    "classify": "classify",
    "answer": "answer",
}
"""What can be asked for -> the ability that it is."""

_ON_TOKENS = ("compare", "match", "caption")  # parts whose graphs read what `image` gives


def parts_of(model: Model, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the parts that are exported: those asked for, or all that the model has; `image` too where others read its tokens.

    Raises:
        ExportError: for a name that is none, or a part that the model cannot do.
    """
    able = tuple(name for name in PARTS if _has(model, name))
    if unknown := [name for name in asked if name not in PARTS]:
        raise ExportError(f"there is no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    if missing := [name for name in asked if name not in able]:
        needs = ", ".join(f"{name} (ability {PARTS[name]})" for name in missing)
        raise ExportError(
            f"{model.name} cannot be exported for {needs}; its abilities are {', '.join(model.abilities()) or 'none'}, and of them can "
            f"be exported: {', '.join(able) or 'none'}"
        )
    if not able:
        raise ExportError(
            f"{model.name} has no ability that can be exported; it has {', '.join(model.abilities()) or 'none'}, and a graph is made of "
            f"{', '.join(dict.fromkeys(PARTS.values()))}"
        )
    wanted = {*(asked or able)}
    if wanted & {*_ON_TOKENS} and "image" in able:
        wanted.add("image")
    if "compare" in wanted:
        wanted.add("text")
    return tuple(name for name in PARTS if name in wanted)


def _has(model: Model, part: str) -> bool:
    method, abilities = model.method, model.abilities()
    if PARTS[part] not in abilities:
        return False
    if part == "compare":  # with embeddings it is their product, which needs no graph
        return not _blank(model).has_embedding
    if part == "caption":  # of texts that nobody sees a picture for there is no graph
        return hasattr(method, "writing") and "encode_image" in abilities
    return True


def _blank(model: Model) -> Encoded:
    """What encoding one grey picture gives."""
    size = model.processor.view.size
    with torch.no_grad():
        return model.method.encode_image(torch.zeros(1, 3, size, size))  # type: ignore[operator, no-any-return]


@torch.no_grad()
def graphs(model: Model, parts: Sequence[str]) -> list[Graph]:
    """The graphs of some parts, see `parts_of`, in the order in which one feeds the next.

    Args:
        model: in float32, on the CPU.
        parts: of `parts_of`.

    Raises:
        ExportError: if a part has no form that can be exported.
    """
    method, size = model.method, model.processor.view.size
    if "encode_text" in model.abilities() and model.processor.tokenizer is None:
        raise ExportError(
            "this model reads texts and its processor has no tokeniser; export a model that travels with one"
        )
    pixels = Port("pixels", "pixels", ("batch", 3, size, size))
    ids, mask = Port("ids", "ids", ("batch", "length")), Port("mask", "mask", ("batch", "length"))
    context = model.processor.tokenizer.context if model.processor.tokenizer is not None else 0
    words, found = Words.of(model.processor.tokenizer), []

    def add(
        name: str, module: nn.Module, inputs: Sequence[Port], outputs: Sequence[str], rest: int = 0, **longest: int
    ) -> None:
        graph = Graph(name, module.eval(), tuple(inputs), (), {"length": context, **longest}, words, rest)
        found.append(_with_outputs(graph, outputs))

    shown = _blank(model) if "encode_image" in model.abilities() else None
    image_tokens = None
    if shown is not None and shown.tokens is not None:
        image_tokens = Port("image_tokens", "real", ("batch", *shown.tokens.shape[1:]))
    if "image" in parts:
        assert shown is not None
        module = Image(method, shown)
        add("image", module, [pixels], module.names)
    if "text" in parts:
        text = Text(method)
        add("text", text, [ids, mask], text.names)
    if "compare" in parts:
        assert image_tokens is not None and image_tokens.shape[-1]
        pictures = Port("image_tokens", "real", ("pictures", *image_tokens.shape[1:]))
        texts = Port("text_tokens", "real", ("texts", "length", image_tokens.shape[-1]))
        add(
            "compare",
            Compare(method),
            [pictures, texts, Port("text_mask", "mask", ("texts", "length"))],
            ("by_image", "by_text"),
        )
    if "match" in parts:
        assert image_tokens is not None
        add("match", Match(method), [image_tokens, ids, mask], ("score",))
        add("match_pixels", MatchPixels(method), [pixels, ids, mask], ("score",))
    if "caption" in parts:
        assert image_tokens is not None
        _captioner(method, image_tokens, add)
    if "classify" in parts:
        add("classify", Classify(method), [pixels], ("scores",))
    if "answer" in parts:
        add("answer", Answer(method), [pixels, ids, mask], ("scores",))
    return found


def _captioner(method: Any, image_tokens: Port, add: Callable[..., None]) -> None:
    """Graphs of whoever writes: a cache that is filled and one that grows, or everything anew for each token."""
    writing = method.writing(Encoded(torch.zeros(1, 0), torch.zeros([1, *map(int, image_tokens.shape[1:])])))
    first = Port("ids", "ids", ("batch", "length") if writing.prompted else ("batch", 1))
    room = {"length": writing.context - 1, "past": writing.context - 2}
    if not isinstance(writing.decoding, Cached):
        add("caption_write", Write(method), [image_tokens, first], ("logits",), **room)
        return
    read = 2 if writing.prompted else 1
    writing.decoding.step(torch.full((1, read), writing.start))
    kept = cached(writing.decoding.cache, read)
    present = [f"present.{kind.name}" for kind in kept]
    add("caption_prefill", Prefill(method), [image_tokens, first], ("logits", *present), **room)
    past = [Port(f"past_key_values.{kind.name}", "real", _shape(kind)) for kind in kept]
    grown = [name for name, kind in zip(present, kept, strict=True) if kind.grows]
    add(
        "caption_step",
        Step(method, kept),
        [Port("ids", "ids", ("batch", 1)), *past],
        ("logits", *grown),
        len(past),
        **room,
    )


def _shape(kind: Kept) -> tuple[int | str, ...]:
    """Of keys or values of B texts."""
    length: int | str = kind.length
    if kind.grows:
        length = f"past+{kind.length}" if kind.length else "past"
    return ("batch", kind.heads, length, kind.width)


def _with_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """With ports for what comes out: which of its axes vary is seen by running it at two sizes."""
    small = {"batch": 2, "pictures": 2, "texts": 3, "length": 3, "past": 2}
    large = {"batch": 5, "pictures": 5, "texts": 7, "length": 4, "past": 3}
    pairs = {(small[axis] + o, large[axis] + o): f"{axis}+{o}" if o else axis for axis in graph.axes for o in range(3)}
    runs = [graph(graph.example(sizes, seed=0)) for sizes in (small, large)]
    ports = []
    for name, before, after in zip(names, *runs, strict=True):
        shape = tuple(a if a == b else pairs[(a, b)] for a, b in zip(before.shape, after.shape, strict=True))
        ports.append(Port(name, "real", shape))
    return replace(graph, outputs=tuple(ports))
