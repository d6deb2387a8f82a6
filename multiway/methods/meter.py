"""METER: An Empirical Study of Training End-to-End Vision-and-Language Transformers.

Dou, Xu, Gan, Wang, Wang, Wang, Zhu, Zhang, Yuan, Peng, Liu, Zeng; CVPR 2022; arXiv 2111.02387. Take the best encoders there
are, CLIP's ViT for the picture and RoBERTa for the text, both trained before, and put a fused half on top. What fuses is
studied: co-attention, two streams that read each other in every layer, beats one merged stream (section 3.1, table 7):

    x, y = W_t RoBERTa(text) + modality 0,  W_v ViT(picture) + modality 1
    co       x' = FFN(Cross(Self(x), y)),  y' = FFN(Cross(Self(y), x)),   layer by layer
    merged   [x; y]' = FFN(Self([x; y]))
    L = L_itm + L_mlm

    itm   from the pooled class tokens of both streams, side by side; half of the rows have another's picture
    mlm   masked words, from the text's stream

As in the released code the two losses are separate passes of the fused half, `itm` over the text as it is; the picture's
tokens are those after the last norm; and CLIP's last block is left out (`base` has 11). The fused half and the heads learn
five times as fast as the encoders (section 4.1). Departures: a picture is read once for both losses; rows that share a
picture or a caption are never each other's wrong pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from multiway.abilities import Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.itm_random import itm_random
from multiway.losses.mlm import mlm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.partners import Lent, draw_any, meet
from multiway.nn.coattention import CoAttention
from multiway.nn.heads import MaskedWordHead
from multiway.nn.pool import marked_positions
from multiway.nn.segments import run_with_segment_maps
from multiway.nn.text import BERT_BASE, TextConfig, TextTransformer
from multiway.nn.transformer import Transformer, TransformerConfig, init_weights
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["Meter", "MeterConfig"]


@dataclass(frozen=True)
class MeterConfig:
    """Sizes of METER.

    Attributes:
        image: the picture's ViT.
        text: the text's encoder. The fused blocks take its order of norms, epsilon, activation and dropout.
        fusion: `co` for two streams that attend to each other, `merged` for one over both.
        fusion_layers, width, heads: of the fused half.
        tied_words: the word head's matrix is the text encoder's embedding, which needs equal widths; the released code
            gives it its own.
        init_std: standard deviation with which matrices start: about the root of 1 / width (BERT's 0.02 is made for 768).
        fusion_rate: learning rate of the fused half and the heads, as a multiple of the encoders'.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")
    text: TextConfig = TextConfig(context=0, width=128, layers=2, heads=2, causal=False, pool="class")
    fusion: Literal["co", "merged"] = "co"
    fusion_layers: int = 2
    width: int = 128
    heads: int = 2
    tied_words: bool = True
    init_std: float = 0.08
    fusion_rate: float = 1.0

    def resolve(self, data: DataInfo) -> MeterConfig:
        """The config with vocabulary and context filled in from the data; sizes that were given are kept."""
        vocabulary = self.text.vocabulary or data.vocabulary
        return replace(self, text=replace(self.text, vocabulary=vocabulary, context=self.text.context or data.context))

    @property
    def blocks(self) -> TransformerConfig:
        """The blocks of the fused half."""
        like = TransformerConfig.of(self.text)
        return replace(like, width=self.width, heads=self.heads, layers=self.fusion_layers, cross_width=None)

    @classmethod
    def preset(cls, name: str) -> MeterConfig:
        """`tiny`, made for a laptop, or `base`, the paper's: CLIP ViT-B/16 at 288 pixels, RoBERTa-base, six co-attention layers.

        `tiny` trains everything from scratch, hence its convolutional stem and its single learning rate.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"METER has no preset `{name}`; there are: tiny, base")
        return cls(
            image=VisionConfig(
                size=288,
                patch=16,
                width=768,
                layers=11,
                heads=12,
                activation="quick_gelu",
                pre_norm=True,
                patch_bias=False,
                epsilon=1e-5,
            ),
            text=replace(BERT_BASE, vocabulary=50265, epsilon=1e-5, types=1),  # RoBERTa-base
            fusion_layers=6,
            width=768,
            heads=12,
            tied_words=False,
            init_std=0.02,
            fusion_rate=5.0,
        )


class Meter(Method):
    """Two encoders, a fused half of either kind, and its two losses."""

    name = "meter"
    config_class = MeterConfig
    config: MeterConfig
    lends: ClassVar[Lent] = {"image_of_text": ("image",)}

    def __init__(self, config: MeterConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text encoder has no vocabulary or context yet; call config.resolve(data_info) first")
        if config.tied_words and config.width != config.text.width:
            raise ValueError(
                f"fused tokens of width {config.width} cannot be scored by word embeddings of width {config.text.width}; "
                "make them equal, or give the head its own matrix with tied_words=False"
            )
        if config.image.pool != "class":
            raise ValueError(
                f"the image encoder pools by {config.image.pool!r}; METER needs its class token: pool='class'"
            )
        self.config = config
        width = config.width
        self.image = VisionTransformer(config.image)
        self.text = TextTransformer(config.text)
        self.image_projection = nn.Linear(config.image.width, width)
        self.text_projection = nn.Linear(config.text.width, width)
        self.modalities = nn.Embedding(2, width)
        self.fusion: CoAttention | Transformer
        self.fusion = CoAttention(config.blocks) if config.fusion == "co" else Transformer(config.blocks)
        self.text_pooler, self.image_pooler = nn.Linear(width, width), nn.Linear(width, width)
        self.match_head = nn.Linear(2 * width, 2)
        self.word_head = MaskedWordHead(width, config.text.vocabulary, config.text.epsilon)
        self.word_matrix = None if config.tied_words else nn.Embedding(config.text.vocabulary, width)
        for part in self.modules():
            # All but the patches, whose convolutions start as they should.
            if isinstance(part, nn.Linear | nn.Embedding) and part is not self.image.patches.project:
                init_weights(part, config.init_std)

    def learning_rates(self) -> list[tuple[str, float]]:
        """What is not trained before learns faster (section 4.1)."""
        new = r"^(fusion|text_projection|image_projection|text_pooler|image_pooler|match_head|word_head|word_matrix)\b"
        return [] if self.config.fusion_rate == 1.0 else [(new, self.config.fusion_rate)]

    # What a trained model can be asked. There is no space that both share, so nothing to `compare`.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> tokens (B, 1 + N, W) as the fused half takes them; an embedding of width 0."""
        return _embedded(self._image_tokens(images))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> tokens (B, L, W) as the fused half takes them; an embedding of width 0."""
        return _embedded(self._text_tokens(ids, mask), mask, ids)

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair: the two logits' difference."""
        return _odds(self.match_head(self.fuse(image, text).pooled))

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """`match`, and from every fused layer the attention of words over the picture's tokens: (B, heads, L, 1 + N).

        The maps are part of the graph, but for the last of `co`: the text's class token alone depends on that one. In `merged`
        a word's row sums to less than 1: the rest is on the other words.
        """
        assert image.tokens is not None and text.tokens is not None
        if isinstance(self.fusion, Transformer):
            tokens, mask = _joined(text.tokens, text.mask, image.tokens)
            fused, maps = run_with_segment_maps(self.fusion, tokens, mask, text.tokens.shape[1])
            return _odds(self.match_head(self._pool(fused[:, 0], fused[:, text.tokens.shape[1]]))), maps
        record: dict[str, Tensor] = {}
        words, patches = self.fusion(text.tokens, image.tokens, text.mask, record=record)
        maps = [record[f"text.blocks.{layer}.cross"] for layer in range(self.config.fusion_layers)]
        return _odds(self.match_head(self._pool(words[:, 0], patches[:, 0]))), maps

    @property
    def fused_width(self) -> int:
        """Of both pooled class tokens, side by side."""
        return 2 * self.config.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by both class tokens, each through its pooler, side by side: what is matched and classified by (released code).

        Of two pictures the first gives the picture's half; it and the text have seen both.
        """
        assert image.tokens is not None and text.tokens is not None
        pooled, words = self._fuse(text.tokens, text.mask, image.tokens, tokens)
        return Fused(pooled, words, text.mask if tokens else None)

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`, with the picture, or by the text's stream alone."""
        return self._guess(self._text_tokens(ids, mask), mask, None if image is None else image.tokens, at)

    # Section 3.1: encoders and fusion.

    def _image_tokens(self, images: Tensor) -> Tensor:
        return self.image_projection(self.image(images).tokens) + self.modalities.weight[1]  # type: ignore[no-any-return]

    def _text_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_projection(self.text(ids, mask).tokens) + self.modalities.weight[0]  # type: ignore[no-any-return]

    def _match(self, text: Tensor, mask: Tensor | None, image: Tensor) -> Tensor:
        """(B, 2) logits, no and yes."""
        return self.match_head(self._fuse(text, mask, image)[0])  # type: ignore[no-any-return]

    def _fuse(
        self, text: Tensor, mask: Tensor | None, image: Tensor, tokens: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, 2W) of the pairs, and with `tokens` the words (B, L, W)."""
        if isinstance(self.fusion, CoAttention):
            words, patches = self.fusion(text, image, mask, wanted="both" if tokens else "class")
            assert patches is not None
            return self._pool(words[:, 0], patches[:, 0]), words if tokens else None
        length = text.shape[1]
        fused = self.fusion(*_joined(text, mask, image))
        return self._pool(fused[:, 0], fused[:, length]), fused[:, :length] if tokens else None

    def _pool(self, word: Tensor, patch: Tensor) -> Tensor:
        """(B, W) class tokens of either stream -> (B, 2W): each through its pooler, then side by side."""
        return torch.cat([self.text_pooler(word).tanh(), self.image_pooler(patch).tanh()], 1)

    def _guess(self, text: Tensor, mask: Tensor, image: Tensor | None, at: Tensor) -> Tensor:
        """(P, V) logits of the words at the P masked positions."""
        if isinstance(self.fusion, CoAttention):
            words = self.fusion(text, image, mask, wanted="text")[0][at]
        else:
            places, real = marked_positions(at)  # the last block need not compute the others
            tokens, seen = (text, mask) if image is None else _joined(text, mask, image)
            words = self.fusion(tokens, seen, at=places)[real]
        matrix = self.text.embed.words.weight if self.word_matrix is None else self.word_matrix.weight
        return self.word_head(words, matrix)  # type: ignore[no-any-return]

    # Section 3.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Tokens of the picture, of the text, and of the text with words masked, as the fused half takes them."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        if batch.masked_text is None:
            raise ValueError(
                "METER guesses masked words and the batch has none; set the recipe's masking.ratio above 0"
            )
        both, mask = torch.cat([batch.text, batch.masked_text]), torch.cat([batch.text_mask, batch.text_mask])
        text, masked = self._text_tokens(both, mask).chunk(2)
        return {"image": self._image_tokens(batch.images), "text": text, "masked": masked}

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Half of the texts keep their picture; the others get one drawn at random from all ranks' batch."""
        return draw_any(batch, len(reps["text"]), world, reps["text"].device)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Matching over the text as it is, masked words with the true picture."""
        assert batch.text is not None and batch.text_mask is not None and batch.masked is not None
        met, pairs, _ = meet(reps, pairs, batch, world, self.lends)
        shown = met["image"].index_select(0, pairs["image_of_text"])
        result = itm_random(self._match(reps["text"], batch.text_mask, shown), pairs["matched"])
        guesses = self._guess(reps["masked"], batch.text_mask, reps["image"], batch.masked)
        guessed = mlm(guesses, batch.text[batch.masked])
        return Losses(
            {
                "itm": Term(result.loss, chance=result.chance, formula=result.formula),
                "mlm": Term(guessed.loss, chance=guessed.chance, formula=guessed.formula),
            },
            report={
                "itm_accuracy": result.accuracy,
                "match_positive": result.positive,
                "match_negative": result.negative,
                "mlm_accuracy": guessed.accuracy,
            },
            counts=guessed.over("mlm"),
        )


def _embedded(tokens: Tensor, mask: Tensor | None = None, ids: Tensor | None = None) -> Encoded:
    return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens, mask, ids)


def _odds(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def _joined(text: Tensor, mask: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Words and patches in one sequence, and the padding mask over both; every patch is real."""
    tokens = torch.cat([text, image], 1)
    if mask is None:
        return tokens, None
    return tokens, torch.cat([mask, mask.new_ones(mask.shape[0], image.shape[1])], 1)
