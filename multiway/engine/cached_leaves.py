"""What gradient caching keeps of a batch between its passes: features of every row, and the gradient of the loss by them.

Gao et al., 2021, arXiv 2101.06983, section 3.2 (`engine/cached.py`). Vectors stay as they are, where they are. Tokens that only a
row-local pass reads (`Method.within`) are by far the most of it, and may be kept in half the precision or in the main memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from multiway.batch import Batch
from multiway.engine.settings import Settings
from multiway.methods.method import Pairs, Reps
from multiway.methods.partners import Lent, meet
from multiway.world import World

__all__ = ["Leaf", "Words", "check_rows", "needed_rows"]


class Leaf:
    """One of `encode`'s tensors, of all rows and outside any graph, and the gradient of the loss by it.

    Attributes:
        value: (rows, ...); None before `make`.
        gradient: like it; None where the loss does not depend on it.
        apart: whether it is read by micro-batches alone, and may be kept elsewhere and shorter.
        bytes: of value and gradient.
    """

    value: Tensor

    def __init__(self, first: Tensor, rows: int, apart: bool, settings: Settings) -> None:
        self.apart, self.learns = apart, first.requires_grad
        self.shape, self.dtype, self.device = (rows, *first.shape[1:]), first.dtype, first.device
        short = apart and settings.cache_bf16 and first.is_floating_point()
        self.kept = torch.bfloat16 if short else first.dtype
        self.place = torch.device("cpu") if apart and settings.cache_on_cpu else first.device
        numbers = rows * first[0].numel()
        self.bytes = numbers * torch.empty((), dtype=self.kept).element_size() * (2 if self.learns else 1)
        self.gradient: Tensor | None = None

    def make(self) -> None:
        """Take the memory; page-locked where it is not the device's own."""
        pinned = self.place.type == "cpu" and self.device.type == "cuda"
        self.value = torch.empty(self.shape, dtype=self.kept, device=self.place, pin_memory=pinned)
        if self.apart and self.learns:
            self.gradient = torch.zeros_like(self.value, pin_memory=pinned)

    def put(self, start: int, part: Tensor) -> None:
        """Rows of the first pass."""
        self.value[start : start + len(part)] = part.detach()

    def whole(self) -> Tensor:
        """All rows, as a leaf of a graph."""
        return self.value.detach().requires_grad_(self.learns)

    def take(self, rows: Tensor) -> Tensor:
        """Some rows as `encode` gave them, as a leaf; without those that only lent ones have, which come last."""
        found = self.value[rows[rows < self.shape[0]].to(self.place)].to(self.device, self.dtype)
        return found.requires_grad_(self.learns)

    def add(self, rows: Tensor, gradient: Tensor) -> None:
        """What a micro-batch found out about rows, each of which it holds once."""
        if self.gradient is None:
            self.gradient = torch.zeros_like(self.value)
        self.gradient.index_add_(0, rows.to(self.gradient.device), gradient.to(self.gradient))


class Borrowed:
    """Leaves with the rows that other ranks lend behind their own, where a method mines among all ranks (`methods/partners.py`).

    Attributes:
        leaves, pairs, words: what micro-batches read; where nothing is lent those that were given.
        count: rows that are borrowed.
    """

    def __init__(
        self, leaves: Mapping[str, Leaf], pairs: Pairs, words: Batch, world: World, lends: Lent, settings: Settings
    ) -> None:
        self.own, self.leaves, self.pairs, self.words, self.count = leaves, leaves, pairs, words, 0
        self._met: dict[str, Tensor] = {}
        if not lends or not pairs:
            return
        names = [name for name in leaves if any(name in each for each in lends.values())]
        self._held = {name: leaves[name].value.to(leaves[name].dtype).requires_grad_() for name in names}
        met, self.pairs, self.words = meet(self._held, pairs, words, world, lends, together=True)
        self._met = {name: met[name] for name in names}
        self.count = len(met[names[0]]) - leaves[names[0]].shape[0]
        longer = {name: Leaf(each, len(each), True, settings) for name, each in self._met.items()}
        for name, leaf in longer.items():
            leaf.make()
            leaf.put(0, self._met[name])
        self.leaves = {**leaves, **longer}

    def give_back(self) -> None:
        """Send what was found out about borrowed rows to the ranks that own them. Every rank calls it."""
        for name, met in self._met.items():
            met.backward(self.leaves[name].gradient.to(met))  # type: ignore[union-attr]
            rows = torch.arange(self.own[name].shape[0], device=met.device)
            self.own[name].add(rows, self._held[name].grad)  # type: ignore[arg-type]


class Words(Batch):
    """A batch without its pictures, of which all at once would not fit; reading them says so."""

    @classmethod
    def of(cls, batch: Batch) -> Batch:
        """The same rows."""
        return cls(**{each.name: getattr(batch, each.name) for each in fields(batch)})

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "views"):
            raise ValueError(
                f"gradient caching: a loss reads the {'pictures' if name == 'images' else 'views'} of the whole batch, which only "
                "`encode` sees, a micro-batch at a time; let `encode` give what the loss needs, or set cache to 0"
            )
        return super().__getattribute__(name)


def check_rows(part: Reps, size: int, leaves: Mapping[str, Leaf]) -> None:
    """Every micro-batch gives the same tensors, a row for each of its rows."""
    if leaves and part.keys() != leaves.keys():
        raise ValueError(
            f"encode gave {', '.join(part)} and before {', '.join(leaves)}; expected the same of every row"
        )
    for name, each in part.items():
        expected = (size, *(leaves[name].shape[1:] if leaves else each.shape[1:]))
        if each.shape != expected:
            raise ValueError(
                f"encode gave `{name}` as {tuple(each.shape)} for {size} rows; gradient caching expects {expected}, a row for each "
                "row, alike in every micro-batch: set cache to 0"
            )


def needed_rows(pairs: Pairs, start: int, size: int, rows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows of the batch that a micro-batch reads, its own and then partners, and its pairs in their numbering."""
    device = next((each.device for each in pairs.values()), None)
    own = torch.arange(start, start + size, device=device)
    index = {name: each for name, each in pairs.items() if each.dtype == torch.int64}
    if not index:
        return own, dict(pairs)
    partners = torch.cat([each.flatten() for each in index.values()]).unique()
    if int(partners[-1]) >= rows or int(partners[0]) < 0:
        raise ValueError(
            f"pairs {', '.join(index)} name rows up to {int(partners[-1])} of {rows}: partners on other ranks, whose tokens are not "
            "at hand in micro-batches; say in `lends` what is read of them, mine among a rank's own rows, or set cache to 0"
        )
    needed = torch.cat([own, partners[(partners < start) | (partners >= start + size)]])
    place = torch.empty(rows, dtype=torch.int64, device=device)
    place[needed] = torch.arange(len(needed), device=device)
    return needed, {name: place[each] if name in index else each for name, each in pairs.items()}
