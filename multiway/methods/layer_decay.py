"""Learning rates that fall from block to block, so that what is trained already forgets little.

Clark et al., ELECTRA, 2020, arXiv 2003.10555, appendix B; Bao et al., BEiT, 2021, arXiv 2106.08254, released code: block b of d,
counted from 0, learns at decay^(d - b) of the rate, and what lies below all blocks (patches, words, positions) at decay^(d + 1).
Each tower counts its own blocks; what lies above them (norms, poolers, projections) learns at the full rate. By the same depths
parts are unfrozen from the top (`engine/unfreeze.py`).
"""

from __future__ import annotations

import re

from torch import nn

from multiway.methods.method import Method

__all__ = ["layer_depths", "layer_rates"]

_BLOCK = re.compile(r"(.*?blocks)\.(\d+)\.")

# Names of what lies below all blocks. A head of words may be called so too: fine-tuning has no gradient for it.
_BELOW = re.compile(
    r"\.(embed|patches|positions|class_token|class_position|mask_token|words|types|modalities|pre_norm)\b"
)


def layer_rates(
    method: Method, decay: float, prefix: str = "", learns: nn.Module | None = None
) -> list[tuple[str, float]]:
    """(regular expression, factor) pairs over a method's trained parameters, as `Method.learning_rates` gives them.

    Args:
        decay: in (0, 1].
        method, prefix, learns: see `layer_depths`.
    """
    return [(pattern, decay**depth) for pattern, depth in layer_depths(method, prefix, learns)]


def layer_depths(method: Method, prefix: str = "", learns: nn.Module | None = None) -> list[tuple[str, int]]:
    """(regular expression, layers from the top) pairs over a method's trained parameters: 1 for the uppermost block of a tower, one
    more for what lies below its lowest. What lies above all blocks is not named.

    Args:
        method: its stacks of blocks are told by their names, `....blocks.3....`. A momentum twin has no rate and is left out.
        prefix: of the names, where what learns is part of another method.
        learns: where that is not the method itself but changes of it under the same names. What is frozen has no rate, but
            counts among the blocks.
    """
    depths: dict[str, int] = {}
    for name, _ in method.named_parameters():
        if (found := _BLOCK.match(name)) and not name.startswith(method.own_state):
            depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)
    trained = method if learns is None else learns
    names = [name for name, each in trained.named_parameters() if each.requires_grad]
    blocks = dict.fromkeys((found[1], int(found[2])) for name in names if (found := _BLOCK.match(name)))
    levels = [
        (rf"^{re.escape(prefix + stack)}\.{block}\.", depths[stack] - block)
        for stack, block in blocks
        if stack in depths
    ]
    for name in names:
        if _BELOW.search(f".{name}") and not re.search(r"blocks\.\d", name):
            levels.append((rf"^{re.escape(prefix + name)}$", 1 + _above(name, depths)))
    return levels


def _above(name: str, depths: dict[str, int]) -> int:
    """Blocks of the tower that a part below all blocks belongs to: of the stack whose name begins most like its own."""

    def shared(stack: str) -> int:
        pairs = zip(name.split("."), stack.split("."), strict=False)
        return next((place for place, (mine, its) in enumerate(pairs) if mine != its), 0)

    return max(((shared(stack), depth) for stack, depth in depths.items()), default=(0, 0))[1]
