"""BERT's tensors under the names of Google's release, which `transformers` and all that came from it kept.

What the layouts of BERT, RoBERTa, Chinese CLIP, ALIGN, BridgeTower, ALBEF and BLIP share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from multiway.hub.file import WeightsError
from multiway.hub.rules import Rule, both, joined, same
from multiway.hub.transformers_folder import mlp_ratio
from multiway.nn.text import BERT_BASE, TextConfig

__all__ = ["PARTS", "block", "blocks", "embedding", "require_gelu", "text_of_shapes", "word_head"]

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


def require_gelu(activation: str) -> None:
    """Refuse heads on masked words with another activation: theirs have that of the blocks, ours GELU.

    Args:
        activation: of the blocks.

    Raises:
        WeightsError: if it is another.
    """
    if activation != "gelu":
        raise WeightsError(
            f"a head on words has GELU here, and with transformers the activation of the blocks, {activation!r} in this model; only those "
            "with GELU in both can be converted together with the head"
        )


def text_of_shapes(theirs: Mapping[str, Tensor], root: str) -> TextConfig:
    """A BERT's sizes from a state dict; heads are 64 wide, and everything that no shape shows is BERT-base's.

    Args:
        theirs: by name.
        root: what the encoder's names begin with, a dot at the end.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    try:
        vocabulary, width = theirs[f"{root}embeddings.word_embeddings.weight"].shape
        context = len(theirs[f"{root}embeddings.position_embeddings.weight"])
        hidden = len(theirs[f"{root}encoder.layer.0.intermediate.dense.weight"])
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is there a BERT in it?") from error
    types = theirs.get(f"{root}embeddings.token_type_embeddings.weight")
    inner = f"{root}encoder.layer."
    return replace(
        BERT_BASE,
        vocabulary=vocabulary,
        context=context,
        width=width,
        layers=len({name.removeprefix(inner).split(".")[0] for name in theirs if name.startswith(inner)}),
        heads=max(1, width // 64),
        mlp_ratio=mlp_ratio(width, hidden),
        types=0 if types is None else len(types),
    )
