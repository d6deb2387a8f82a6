"""Reading a text with two pictures, by blocks that have learned to read it with one.

    doubled   ALBEF (Li et al., 2021, arXiv 2107.07651, section 5, NLVR2): every block twice, one after the other. The first
              attends to the left picture, the second to the right; the two share the projection to keys and values.
    merged    BLIP (Li et al., 2022, arXiv 2201.12086, section 5.4, figure 5): two cross-attentions side by side in every block,
              one a picture; what they give is averaged in the lower half of the blocks, and concatenated and projected in
              the upper half. The norm after them is one.

Either begins as copies of the trained blocks. The modules here hold what is added, and the transformer with the rest is passed in at
every call, so that every weight exists once: what is added and what was there are the paper's model together.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiway.nn.attention import ALL_VISIBLE, Attention, Visibility
from multiway.nn.block import Block
from multiway.nn.transformer import Transformer

__all__ = ["DoubledBlocks", "MergedCross"]


class DoubledBlocks(nn.Module):
    """The second block of every pair (ALBEF).

    Args:
        one: the transformer that reads with one picture; its blocks are the first of every pair, and the second begin as their
            copies.

    Raises:
        ValueError: if a block of it attends to no picture.
    """

    def __init__(self, one: Transformer) -> None:
        super().__init__()
        _require_crossing(one)
        self.blocks = nn.ModuleList(Block(one.config, layer) for layer in range(one.config.layers))
        for block in self.blocks:
            # Keys and values come from the first block's projection, ready made.
            _cross(block).key_value = nn.Identity()  # type: ignore[assignment]
        self.load_state_dict(self.of_one(one.state_dict()))

    def of_one(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the weights here are at first, by name, of a one-picture transformer's; without those that `state` lacks."""
        return {name: state[name] for name in self.state_dict() if name in state}

    def forward(
        self,
        one: Transformer,
        tokens: Tensor,
        mask: Tensor | None,
        left: Tensor,
        right: Tensor,
        *,
        at: Tensor | None = None,
    ) -> Tensor:
        """Read.

        Args:
            one: the transformer with the first blocks, and the norm after the last pair.
            tokens: (B, L, W) of the texts.
            mask: (B, L) bool, True at real tokens; None when all are.
            left, right: (B, M, cross_width) tokens of the pictures, those of text i in row i.
            at: (B,) or (B, P), the positions that are wanted; see `Transformer.forward`.

        Returns:
            (B, L, W), or (B, P, W) with `at`.

        Raises:
            ValueError: if there is not one picture on either side for each text.
        """
        _require_pairs(tokens, left, right)
        visibility = Visibility.of(mask, tokens.shape[1], tokens.device)
        recompute = one.config.checkpoint and self.training and torch.is_grad_enabled()
        last = len(self.blocks) - 1
        for index, (first, second) in enumerate(zip(one.blocks, self.blocks, strict=True)):
            run = partial(_one_after_the_other, first, second, visibility, at if index == last else None)
            seen = (tokens, left, right)
            tokens = checkpoint(run, *seen, use_reentrant=False) if recompute else run(*seen)
        return one.norm(tokens)


def _one_after_the_other(
    first: nn.Module,
    second: nn.Module,
    visibility: Visibility,
    at: Tensor | None,
    tokens: Tensor,
    left: Tensor,
    right: Tensor,
) -> Tensor:
    tokens = first(tokens, left, visibility)
    return second(tokens, _cross(first).key_value(right), visibility, at=at)  # type: ignore[no-any-return]


class MergedCross(nn.Module):
    """The cross-attention of every block to the right picture, and what merges it with that to the left one (BLIP).

    The paper's linear maps begin at random; here they begin as the average, so that at first two equal pictures are read as one is.

    Args:
        one: the transformer that reads with one picture; its cross-attentions are those to the left picture, and those to the
            right begin as their copies.

    Raises:
        ValueError: if a block of it attends to no picture.
    """

    def __init__(self, one: Transformer) -> None:
        super().__init__()
        _require_crossing(one)
        config = one.config
        self.cross = nn.ModuleList(_cross(Block(config, layer)) for layer in range(config.layers))
        upper = range(config.layers // 2, config.layers)
        self.merge = nn.ModuleDict({str(layer): nn.Linear(2 * config.width, config.width) for layer in upper})
        self.load_state_dict(self.of_one(one.state_dict()))

    def of_one(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the weights here are at first, by name, of a one-picture transformer's; without those that `state` lacks."""
        found = {}
        for name, mine in self.state_dict().items():
            kind, layer, leaf = name.split(".", 2)
            if kind == "cross" and (theirs := f"blocks.{layer}.cross.{leaf}") in state:
                found[name] = state[theirs]
            elif kind == "merge":
                half = torch.eye(mine.shape[0], dtype=mine.dtype, device=mine.device) / 2
                found[name] = torch.cat([half, half], 1) if leaf == "weight" else torch.zeros_like(mine)
        return found

    def forward(
        self,
        one: Transformer,
        tokens: Tensor,
        mask: Tensor | None,
        left: Tensor,
        right: Tensor,
        *,
        at: Tensor | None = None,
    ) -> Tensor:
        """Read; see `DoubledBlocks.forward`, `one` being the transformer with everything else."""
        _require_pairs(tokens, left, right)
        both = [
            _SideBySide(_cross(block), second, merge, right)
            for block, second, merge in zip(one.blocks, self.cross, self._merges(), strict=True)
        ]
        instead = [nn.ModuleDict({"cross": each}) for each in both]
        return one(tokens, mask, left, at=at, instead=instead)  # type: ignore[no-any-return]

    def _merges(self) -> list[nn.Module | None]:
        """Of each block, None where there is nothing but the average."""
        return [self.merge[name] if name in self.merge else None for name in map(str, range(len(self.cross)))]  # noqa: SIM401


class _SideBySide(nn.Module):
    """Stands in for a block's cross-attention, for one call."""

    def __init__(self, first: nn.Module, second: nn.Module, merge: nn.Module | None, right: Tensor) -> None:
        super().__init__()
        self.first, self.second, self.merge, self.right = first, second, merge, right

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        visibility: Visibility = ALL_VISIBLE,
        *,
        record: MutableMapping[str, Tensor] | None = None,
        path: str = "cross",
        **unused: Any,  # a cache or rows of the memory, which this reading has none of
    ) -> Tensor:
        """(B, L, W) over the left picture's tokens -> (B, L, W)."""
        left = self.first(tokens, memory, visibility, record=record, path=f"{path}.left")
        right = self.second(tokens, self.right, record=record, path=f"{path}.right")
        return (left + right) / 2 if self.merge is None else self.merge(torch.cat([left, right], -1))


def _cross(block: Any) -> Attention:
    found = block.cross
    assert isinstance(found, Attention)
    return found


def _require_crossing(one: Transformer) -> None:
    without = [layer for layer in range(one.config.layers) if not one.config.crosses(layer)]
    if without:
        raise ValueError(
            f"blocks {', '.join(map(str, without))} attend to no picture; two are read by blocks that all attend to one: set "
            "cross_width, and leave cross_layers out"
        )


def _require_pairs(tokens: Tensor, left: Tensor, right: Tensor) -> None:
    # Attention takes fewer memories than rows for the beams of one picture; here that would be a mistake.
    if not len(tokens) == len(left) == len(right):
        raise ValueError(
            f"{len(tokens)} texts with {len(left)} left and {len(right)} right pictures; expected one of each for every text"
        )
