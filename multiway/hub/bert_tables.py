"""BERT's tensors under the names of Google's release, which `transformers` and all that came from it kept.

What the layouts of BERT, RoBERTa, Chinese CLIP, ALIGN, BridgeTower, ALBEF and BLIP share.
"""

from __future__ import annotations

from multiway.hub.renaming import Rule, both, joined, same

__all__ = ["PARTS", "block", "blocks", "embedding", "word_head"]

PARTS = ("attention", "attention_norm", "cross", "cross_norm", "mlp", "mlp_norm")
"""Of a block, by our names."""


def embedding(ours: str, theirs: str) -> list[Rule]:
    """Words, positions, segment types, norm."""
    return [
        *same(
            (f"{ours}.words.weight", f"{theirs}.word_embeddings.weight"),
            (f"{ours}.positions", f"{theirs}.position_embeddings.weight"),
            (f"{ours}.types.weight", f"{theirs}.token_type_embeddings.weight"),
        ),
        *both((f"{ours}.norm.0", f"{theirs}.LayerNorm")),
    ]


def block(part: str, own: str, their: str) -> list[Rule]:
    """One of `PARTS`.

    Args:
        part: its name.
        own: what ours begin with, the part's name included.
        their: what the block's begin with.
    """
    match part:
        case "attention":
            return [
                *joined(f"{own}.qkv", their + ".attention.self.{}"),
                *both((f"{own}.out", f"{their}.attention.output.dense")),
            ]
        case "cross":
            return [
                *joined(f"{own}.key_value", their + ".crossattention.self.{}", ("key", "value")),
                *both(
                    (f"{own}.query", f"{their}.crossattention.self.query"),
                    (f"{own}.out", f"{their}.crossattention.output.dense"),
                ),
            ]
        case "mlp":
            return both((f"{own}.up", f"{their}.intermediate.dense"), (f"{own}.down", f"{their}.output.dense"))
    norms = {"attention_norm": "attention.output", "cross_norm": "crossattention.output", "mlp_norm": "output"}
    return both((own, f"{their}.{norms[part]}.LayerNorm"))


def blocks(ours: str, theirs: str) -> list[Rule]:
    """All parts of all blocks: `ours.*.PART` and `theirs.*...`."""
    return [rule for part in PARTS for rule in block(part, f"{ours}.*.{part}", f"{theirs}.*")]


def word_head(ours: str, theirs: str) -> list[Rule]:
    """The head on masked words, whose matrix is the embedding's."""
    return [
        *both((f"{ours}.dense", f"{theirs}.transform.dense"), (f"{ours}.norm", f"{theirs}.transform.LayerNorm")),
        *same((f"{ours}.bias", f"{theirs}.bias")),
    ]
