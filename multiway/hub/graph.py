"""What a graph is: a module with names for what goes in and comes out, for the axes that may vary, and examples of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multiway.data.tokenizer import Tokenizer

__all__ = ["ExportError", "Graph", "Port", "Words"]

Kind = Literal["pixels", "ids", "mask", "real"]


class ExportError(ValueError):
    """A model that cannot leave as asked, or that came out other than it went in."""


@dataclass(frozen=True)
class Port:
    """A tensor that goes in or comes out.

    Attributes:
        name: in the graph.
        kind: normalised `pixels`, token `ids` (int64), a `mask` (bool, True at real tokens), or other `real` numbers (float32).
        shape: sizes; a name instead of a number is an axis that may vary.
    """

    name: str
    kind: Kind
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        """For the sidecar."""
        dtype = {"ids": "int64", "mask": "bool"}.get(self.kind, "float32")
        return {"name": self.name, "dtype": dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Words:
    """Ids of a tokeniser: how many there are, the first that is a word, what begins and ends a text and fills up after it."""

    ids: int = 1
    first: int = 0
    start: int = 0
    end: int = 0
    pad: int = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer | None) -> Words:
        """A tokeniser's; of none where no text is read."""
        if tokenizer is None:
            return cls()
        special = tokenizer.special
        first = max(special.values()) + 1
        count = len(tokenizer)
        return cls(
            count, first if first < count else 0, special.get("bos", special["eos"]), special["eos"], tokenizer.pad
        )


@dataclass(frozen=True)
class Graph:
    """One graph.

    Attributes:
        name: of its file, without the suffix.
        module: takes the inputs in their order, a list as the last of them for all that are in `rest`; gives the outputs as a tuple.
        inputs, outputs: by name.
        rest: how many of the last inputs make up that list.
        longest: greatest size of each axis that has one.
        words: ids that examples are made of.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    longest: Mapping[str, int]
    words: Words
    rest: int = 0

    def nested(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Something for each input, as the module takes it."""
        if not self.rest:
            return tuple(values)
        return (*values[: -self.rest], list(values[-self.rest :]))

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of those that may vary."""
        every = [size.partition("+")[0] for port in self.inputs for size in port.shape if isinstance(size, str)]
        return tuple(dict.fromkeys(every))

    def example(self, sizes: Mapping[str, int], seed: int) -> list[Tensor]:
        """Random inputs: texts of unlike length that begin and end as the tokeniser has it, everything else normal.

        Args:
            sizes: of each axis that may vary.
            seed: of the draws.
        """
        draw = torch.Generator().manual_seed(seed)
        found: dict[str, Tensor] = {}
        for port in self.inputs:
            shape = [size if isinstance(size, int) else _size(size, sizes) for size in port.shape]
            if port.kind == "ids":
                found[port.name] = torch.randint(self.words.first, self.words.ids, shape, generator=draw)
            elif port.kind == "mask":
                lengths = torch.randint(min(2, shape[1]), shape[1] + 1, (shape[0], 1), generator=draw)
                lengths[0] = shape[1]  # one is the longest
                found[port.name] = torch.arange(shape[1]) < lengths
            else:
                found[port.name] = torch.randn(shape, generator=draw)
        if "ids" in found and "mask" in found:
            ids, mask = found["ids"], found["mask"]
            ids.masked_fill_(~mask, self.words.pad)
            ids[:, 0] = self.words.start
            ids[torch.arange(len(ids)), mask.sum(1) - 1] = self.words.end
        return [found[port.name] for port in self.inputs]

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What the module gives, for each output."""
        return list(self.module(*self.nested(inputs)))


def _size(name: str, sizes: Mapping[str, int]) -> int:
    """Of an axis: `past`, or `past+1`."""
    axis, _, more = name.partition("+")
    return sizes[axis] + int(more or 0)
