"""What ran while a picture was encoded: attention, the last feature map, and the parts that cut the picture up.

Nothing is asked of the method but `encode_image`. Its modules are watched while it runs once, so that a momentum twin, a decoder
or the encoder of texts, which have no part in a picture's embedding, are never taken for what sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multiway.abilities import Encoded, abilities_of, require
from multiway.nn.multiway import Multiway
from multiway.nn.patch import ConvStem, PatchEmbed
from multiway.nn.resnet import ResNet
from multiway.nn.transformer import Transformer

__all__ = ["Joint", "Seen", "see", "see_joint"]


@dataclass(frozen=True)
class Seen:
    """One look at B pictures.

    Attributes:
        encoded: what the method gave.
        blocks: attention of each block of the transformer that pictures go through, (B, heads, N, N), the last one
            (B, heads, 1, N) where nothing but the first token is computed of it; () without a transformer.
        stack: that transformer; None without one.
        features: (B, C, h, w), the last feature map of a convolutional network; None where tokens are looked at by a transformer.
            Of several networks (CMC) it is the last one's.
        positions: (rows x columns, W) of the patches; None where they have none of their own.
        filters: (F, 3, k, k), by which pixels enter: of the patch embedding, or of the first convolution. None if not found.
        cuts: whether the filters are a patch embedding's.
    """

    encoded: Encoded
    blocks: tuple[Tensor, ...]
    stack: nn.Module | None
    features: Tensor | None
    positions: Tensor | None
    filters: Tensor | None
    cuts: bool

    @property
    def attends(self) -> bool:
        """Whether there is attention to be shown."""
        return bool(self.blocks)


def see(method: Any, images: Tensor, *, graph: bool = False) -> Seen:
    """Encode pictures and keep what is to be looked at.

    Args:
        method: a `Method` with `encode_image`, in evaluation mode.
        images: (B, 3, H, W), normalised.
        graph: whether attention and features stay parts of the graph that `encoded` depends on, for gradients by them.

    Raises:
        LacksAbility: if the method reads no pictures.
    """
    require(method, ("encode_image",), "explain")
    called: list[nn.Module] = []
    calls: dict[nn.Module, dict[str, Tensor]] = {}
    maps: list[Tensor] = []
    with _watched(method, called, calls, maps, len(images)), torch.set_grad_enabled(graph):
        # Frozen weights or not, with a gradient at the pixels everything after them is part of the graph.
        encoded = method.encode_image(images.detach().clone().requires_grad_() if graph else images)
    # The first transformer: others, as a codebook's decoder, read what this one has made of the picture.
    stack, record = next(iter(calls.items()), (None, {}))
    blocks = _attention(record)
    parts = set(called)
    filters, cuts = _filters(method, parts)
    # Convolutions before the blocks of a transformer only cut the picture up; they see little of it.
    stem = _used(method, parts, lambda part: isinstance(part, ConvStem)) is not None
    features = maps[-1] if maps and not blocks and not stem else None
    return Seen(encoded, blocks, stack if blocks else None, features, _positions(method, parts), filters, cuts)


@dataclass(frozen=True)
class Joint:
    """B pairs read by one transformer, put in order: words first, whatever the model's own order (BEiT-3 has the picture first).

    Attributes:
        blocks: attention of each block, (B, heads, L + N, L + N).
        tokens: (B, L + N, W) after the last.
        words: L.
        stack: the transformer.
    """

    blocks: tuple[Tensor, ...]
    tokens: Tensor
    words: int
    stack: nn.Module


@torch.no_grad()
def see_joint(method: Any, image: Encoded, text: Encoded) -> Joint | None:
    """Read pairs together and keep the attention of words and patches over one another.

    Args:
        method: has `fuse`.
        image, text: B each, tokens kept.

    Returns:
        None where words and patches are not in one sequence, as in cross-attention.
    """
    if "fuse" not in abilities_of(method) or image.tokens is None or text.tokens is None:
        return None
    words, length = text.tokens.shape[1], text.tokens.shape[1] + image.tokens.shape[1]
    calls: dict[nn.Module, dict[str, Tensor]] = {}
    with _watched(method, [], calls, [], len(image.tokens)):
        said = method.fuse(image, text, tokens=True).tokens
    for stack, record in calls.items():
        blocks, tokens = _attention(record), record.get("tokens")
        if not blocks or tokens is None or any(block.shape[-2:] != (length, length) for block in blocks):
            continue
        if torch.equal(tokens[:, :words], said):
            return Joint(blocks, tokens, words, stack)
        if torch.equal(tokens[:, -words:], said):
            turned = tuple(block.roll((words, words), (-2, -1)) for block in blocks)
            return Joint(turned, tokens.roll(words, 1), words, stack)
    return None


@contextmanager
def _watched(
    method: nn.Module, called: list[nn.Module], calls: dict[nn.Module, dict[str, Tensor]], maps: list[Tensor], rows: int
) -> Iterator[None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        # A stack may run in parts, and its top twice, with other experts; the first time is the picture's own.
        return args, kwargs | {"record": _FirstOnly(calls.setdefault(module, {}))}

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        called.append(module)
        # Of pictures whole: a network that reads crops one by one has a map for each of them.
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == rows:
            maps.append(output)

    handles = []
    for module in method.modules():
        handles.append(module.register_forward_hook(note))
        if isinstance(module, Transformer | Multiway):
            handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FirstOnly(dict[str, Tensor]):
    """Writes through to another dict what that has not yet."""

    def __init__(self, into: dict[str, Tensor]) -> None:
        super().__init__()
        self.into = into

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.into.setdefault(name, value)


def _attention(record: dict[str, Tensor]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    while (name := f"blocks.{len(found)}.attention") in record:
        found.append(record[name])
    return tuple(found)


def _used(method: nn.Module, parts: set[nn.Module], wanted: Callable[[nn.Module], bool]) -> nn.Module | None:
    """The first wanted part of which something ran; a patch embedding's own `forward` is not always what is called."""
    return next((each for each in method.modules() if wanted(each) and not parts.isdisjoint(each.modules())), None)


def _filters(method: nn.Module, parts: set[nn.Module]) -> tuple[Tensor | None, bool]:
    cut = _used(method, parts, lambda part: type(part) is PatchEmbed)
    if isinstance(cut, PatchEmbed):
        return cut.project.weight.detach().unflatten(1, (-1, cut.patch, cut.patch)), True
    convolution = _used(method, parts, lambda part: isinstance(part, nn.Conv2d) and part.in_channels == 3)
    return (convolution.weight.detach(), False) if isinstance(convolution, nn.Conv2d) else (None, False)


def _positions(method: nn.Module, parts: set[nn.Module]) -> Tensor | None:
    """Of the part that holds what cuts the picture up; decoders and encoders of texts have positions too."""

    def holds(part: nn.Module) -> bool:
        return isinstance(getattr(part, "positions", None), Tensor) and any(
            isinstance(child, PatchEmbed | ConvStem | ResNet) and not parts.isdisjoint(child.modules())
            for child in part.children()
        )

    holder = _used(method, parts, holds)
    return None if holder is None else holder.positions.detach()  # type: ignore[operator, return-value]
