"""ALBEF and BLIP as they read two pictures and a sentence (NLVR2).

Li et al., ALBEF, 2021, arXiv 2107.07651, section 5: every fused block doubled, the halves of a pair looking at one picture each. Li
et al., BLIP, 2022, arXiv 2201.12086, section 5.4: two cross-attentions in every block, merged. `nn/two_pictures.py` has the parts.

Each is its method with the parts in addition (`two`), so that whatever the method can do is done by the weights that it is done by
there, and has the method's own config. The parts begin as copies, and are made out of a run of the method wherever one is begun from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from multiway.abilities import Encoded, Fused
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.blip import Blip, BlipConfig
from multiway.nn.two_pictures import DoubledBlocks, MergedCross

__all__ = ["AlbefTwo", "BlipTwo"]


class AlbefTwo(Albef):
    """ALBEF with its fused blocks doubled. Its training step is ALBEF's, of one picture; `TextAssignment` has one of two."""

    name = "albef-two"
    rests: ClassVar[bool] = True  # reading one picture is no use of the second blocks

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__(config)
        self.two = DoubledBlocks(self.student.fusion)

    def fuse_two(self, left: Encoded, right: Encoded, text: Encoded) -> Fused:
        """Two pictures and a text by the fused class token, on which the paper puts an MLP. Their order matters."""
        assert left.tokens is not None and right.tokens is not None and text.tokens is not None
        return Fused(self._fuse_two(left.tokens, right.tokens, text.tokens, text.mask))

    def adopt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of a run that reads one picture the second blocks are copies of the first."""
        return _with_two(self.two, state, "student.fusion.")

    def _fuse_two(self, left: Tensor, right: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """(B, M, W) tokens of pictures twice, (B, L, W) of texts -> (B, W)."""
        at = torch.zeros(len(text), dtype=torch.int64, device=text.device)
        return self.two(self.student.fusion, text, mask, left, right, at=at)[:, 0]  # type: ignore[no-any-return]


class BlipTwo(Blip):
    """BLIP with a second cross-attention in every block of its text transformer. Its training step is BLIP's, of one picture."""

    name = "blip-two"

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        self.two = MergedCross(self.student.text.transformer)
        self.rests = True  # type: ignore[misc]  # reading one picture is no use of the second cross-attention

    def abilities(self) -> tuple[str, ...]:
        """Those of BLIP; two pictures are read by what one is read by."""
        able = super().abilities()
        return able if "fuse" in able else tuple(name for name in able if name != "fuse_two")

    def fuse_two(self, left: Encoded, right: Encoded, text: Encoded) -> Fused:
        """Two pictures and a text by the [ENC] token, on which the paper puts an MLP.

        Before anything was learned of two pictures their order makes no difference.
        """
        assert left.tokens is not None and right.tokens is not None and text.ids is not None
        ids = text.ids.clone()
        ids[:, 0] = self.config.start_encode
        at = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        reader = self.student.text
        return Fused(self.two(reader.transformer, reader.embed(ids), text.mask, left.tokens, right.tokens, at=at)[:, 0])

    def adopt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of a run that reads one picture the second cross-attentions are copies of the first, and merged by their average."""
        return _with_two(self.two, state, "student.text.transformer.")


def _with_two(two: DoubledBlocks | MergedCross, state: Mapping[str, Tensor], one: str) -> Mapping[str, Tensor]:
    """A run's tensors with those of the parts for two pictures, from the transformer whose names begin with `one`."""
    if any(name.startswith("two.") for name in state):
        return state
    theirs = {name.removeprefix(one): tensor for name, tensor in state.items() if name.startswith(one)}
    return {**state, **{f"two.{name}": tensor for name, tensor in two.of_one(theirs).items()}}
