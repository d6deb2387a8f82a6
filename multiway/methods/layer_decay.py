"""Learning rates that fall from block to block, so that what is trained already forgets little.

Clark et al., ELECTRA, 2020, arXiv 2003.10555, appendix B; Bao et al., BEiT, 2021, arXiv 2106.08254, released code: block b of d,
counted from 0, learns at decay^(d - b) of the rate, and what lies below all blocks (patches, words, positions) at decay^(d + 1).
Each tower counts its own blocks; what lies above them (norms, poolers, projections) learns at the full rate.
"""

from __future__ import annotations

import re

from multiway.methods.method import Method

__all__ = ["layer_rates"]

# Names of what lies below all blocks. A head of words may be called so too: fine-tuning has no gradient for it.
_BELOW = re.compile(
    r"\.(embed|patches|positions|class_token|class_position|mask_token|words|types|modalities|pre_norm)\b"
)


def layer_rates(method: Method, decay: float, prefix: str = "") -> list[tuple[str, float]]:
    """(regular expression, factor) pairs over a method's trained parameters, as `Method.learning_rates` gives them.

    Args:
        method: its stacks of blocks are told by their names, `....blocks.3....`. A momentum twin has no rate and is left out.
        decay: in (0, 1].
        prefix: of the names, where the method is part of another.
    """
    names = [f"{prefix}{name}" for name, parameter in method.named_parameters() if parameter.requires_grad]
    depths: dict[str, int] = {}
    for name in names:
        if found := re.match(r"(.*?blocks)\.(\d+)\.", name):
            depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)
    rates = [
        (rf"^{re.escape(stack)}\.{block}\.", decay ** (depth - block))
        for stack, depth in depths.items()
        for block in range(depth)
    ]
    for name in names:
        if _BELOW.search(f".{name}") and not re.search(r"blocks\.\d", name):
            rates.append((rf"^{re.escape(name)}$", decay ** (1 + _above(name, depths))))
    return rates


def _above(name: str, depths: dict[str, int]) -> int:
    """Blocks of the tower that a part below all blocks belongs to: of the stack whose name begins most like its own."""

    def shared(stack: str) -> int:
        pairs = zip(name.split("."), stack.split("."), strict=False)
        return next((place for place, (mine, its) in enumerate(pairs) if mine != its), 0)

    return max(((shared(stack), depth) for stack, depth in depths.items()), default=(0, 0))[1]
