"""Modules by modality: every segment of a sequence goes through its own, or all through one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Routed", "Segments", "Shared"]

Segments = Sequence[tuple[str, int]]
"""(expert, tokens) from left to right; the tokens sum to the sequence's length."""


class Routed(nn.Module):
    """Modules of one shape, one for each expert; every segment of a sequence goes through its own."""

    def __init__(self, make: Callable[[], nn.Module], experts: Sequence[str]) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({name: make() for name in experts})

    def forward(self, tokens: Tensor, segments: Segments, part: str = "forward") -> Tensor:
        """(B, N, W) -> (B, N, W'), each segment by `part` of its expert.

        Raises:
            KeyError: for a segment that no expert is named after.
        """
        for name, _ in segments:
            if name not in self.experts:
                raise KeyError(f"no expert for `{name}` here; there are: {', '.join(self.experts)}")
        if len(segments) == 1:
            return getattr(self.experts[segments[0][0]], part)(tokens)  # type: ignore[no-any-return]
        pieces = tokens.split([length for _, length in segments], 1)
        routed = [getattr(self.experts[name], part)(piece) for (name, _), piece in zip(segments, pieces, strict=True)]
        return torch.cat(routed, 1)


class Shared(nn.Module):
    """One module for all segments, called like `Routed`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tokens: Tensor, segments: Segments, part: str = "forward") -> Tensor:
        return getattr(self.module, part)(tokens)  # type: ignore[no-any-return]
