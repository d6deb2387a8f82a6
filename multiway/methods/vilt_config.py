"""Sizes and losses of ViLT (`methods/vilt.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from multiway.batch import DataInfo
from multiway.config import LATER
from multiway.nn.block import Activation
from multiway.nn.text import TextConfig

__all__ = ["ViltConfig"]


@dataclass(frozen=True)
class ViltConfig:
    """Sizes and losses of ViLT.

    Attributes:
        vocabulary, context: number of token ids, and greatest number of tokens; 0 leaves them to the data.
        size: side, in pixels, of the pictures whose grid has positions of its own; other shapes interpolate them.
        patch: side of a patch, in pixels.
        stem: `patch` cuts and projects, which is the paper's point; `conv` puts small convolutions before (`ConvStem`).
        keep: greatest number of patches of a picture in training, drawn anew for every step; 0 keeps all.
        width, layers, heads, mlp_ratio, activation, epsilon, dropout, attention_dropout, qkv_bias, checkpoint: of the
            blocks; see `TransformerConfig`.
        init_std: standard deviation with which matrices start: about the root of 1 / width. With BERT's 0.02, made for 768, a
            map of 128 shrinks its input four times.
        types: number of segment types that BERT's embedding has, of which a caption uses the first.
        modalities: rows of the modality embedding: text, picture, and a third for a second picture (NLVR2).
        tied_words: the word head's matrix is the word embedding; False gives it its own.
        matching, words: whether there is a head for pairs and one for words, and the loss that trains it.
        answers: names of the answers that the answer head chooses among; none, no head.
        verdicts: names of the verdicts on a text and two pictures (NLVR2) that the judging head chooses among; none, no head.
        wpa: weight of word-patch alignment; 0 leaves it out.
        mpp: weight of masked patch prediction; 0 leaves it out.
        hidden: share of the patches that it hides.
        mean, std: normalisation of the pictures, from which it gets their colours back.
    """

    vocabulary: int = 0
    context: int = 0
    size: int = 64
    patch: int = 16
    stem: Literal["patch", "conv"] = "patch"
    keep: int = 0
    width: int = 128
    layers: int = 6
    heads: int = 2
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    qkv_bias: bool = True
    checkpoint: bool = False
    init_std: float = 0.08
    types: int = 0
    modalities: int = 2
    tied_words: bool = True
    matching: bool = True
    words: bool = True
    answers: tuple[str, ...] = ()
    wpa: float = 0.1
    mpp: float = 0.0
    hidden: float = 0.15
    mean: tuple[float, float, float] = (1.0, 1.0, 1.0)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    verdicts: tuple[str, ...] = field(default=(), metadata=LATER)

    def resolve(self, data: DataInfo) -> ViltConfig:
        """The config with vocabulary and context filled in from the data; sizes that were given are kept."""
        return replace(self, vocabulary=self.vocabulary or data.vocabulary, context=self.context or data.context)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the configured size."""
        return (self.size // self.patch,) * 2

    @property
    def text(self) -> TextConfig:
        """BERT's embedding of words, positions and segment types, normed."""
        return TextConfig(
            vocabulary=self.vocabulary,
            context=self.context,
            width=self.width,
            types=self.types,
            epsilon=self.epsilon,
            embedding_norm=True,
            dropout=self.dropout,
        )

    @classmethod
    def preset(cls, name: str) -> ViltConfig:
        """`tiny`, made for a laptop, or `base`, the paper's ViLT-B/32: ViT-B/32 at 384 pixels, 40 tokens of BERT's vocabulary.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"ViLT has no preset `{name}`; there are: tiny, base")
        return cls(
            vocabulary=30522,
            context=40,
            size=384,
            patch=32,
            keep=200,
            width=768,
            layers=12,
            heads=12,
            epsilon=1e-12,
            dropout=0.1,
            init_std=0.02,
            types=2,
            mean=(0.5, 0.5, 0.5),
        )
