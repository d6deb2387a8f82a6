"""SigLIP: Sigmoid Loss for Language Image Pre-Training.

X. Zhai, B. Mustafa, A. Kolesnikov, L. Beyer; ICCV 2023; arXiv 2303.15343.

Two towers, as in CLIP, but every picture with every text of the batch is a yes-or-no question of its own, so that no pair's
loss depends on how many others there are (section 3.2; `losses/siglip.py`):

    L = - 1/B sum_i sum_j log sigmoid(z_ij (t <v_i, w_j> + c)),     z_ij = +1 for pairs, -1 elsewhere

t = exp(t') is learned from t' = ln 10, and the bias c from -10, near the odds of a pair among many, so that training does not
begin with one great correction. A ViT without class token is pooled by attention (MAP head) and not projected any further;
the text transformer is not causal and read at its last position.

As published, texts have a fixed length, and what fills them up is read like any other token: no mask. So that the last
position means the same in every batch, texts are filled to the context here whatever the longest of a batch is.

Where a batch hides patches, the attention pools the others alone, in training (FLIP: Y. Li et al., 2023, arXiv 2212.00794).

Departures from the paper: rows that share a picture or a caption are pairs as well. The released so400m models hold a
square shape optimised for compute (Alabdulmohsin et al., 2023, arXiv 2305.13035); its sizes are presets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.losses.siglip import siglip
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.shared_space import SharedSpace
from multiway.nn.hidden_patches import shown
from multiway.nn.pooler import AttentionalPooler
from multiway.nn.text import TextConfig, TextTransformer
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["PRESETS", "Siglip", "SiglipConfig"]


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of SigLIP. The shared space is as wide as the picture's tower.

    Attributes:
        image: the ViT; its own pool is not used.
        text: the text transformer, not causal, read at the last of `text.context` positions.
        scale: initial value of t (section 3.2: 10).
        bias: initial value of c (section 3.2: -10).
        pad_id: the token that fills texts up to the context.
        chunk: rows of logits held at once by the loss; None chooses by memory.
    """

    image: VisionConfig = VisionConfig(
        size=64, patch=8, width=128, layers=4, heads=2, activation="gelu_tanh", pool="mean", stem="conv"
    )
    text: TextConfig = TextConfig(
        context=0, width=128, layers=3, heads=2, activation="gelu_tanh", causal=False, pool="last", epsilon=1e-6
    )
    scale: float = 10.0
    bias: float = -10.0
    pad_id: int = 0
    chunk: int | None = None

    def resolve(self, data: DataInfo) -> SiglipConfig:
        """The config with the sizes that depend on the data filled in; sizes that were given are kept."""
        text = replace(
            self.text,
            vocabulary=self.text.vocabulary or data.vocabulary,
            context=self.text.context or data.context,
        )
        # The tokeniser's own; published ones fill up with the end token.
        return replace(self, text=text, pad_id=data.special.get("pad", data.special.get("eos", self.pad_id)))

    @classmethod
    def preset(cls, name: str) -> SiglipConfig:
        """`tiny`, or one of the released sizes: `base` (B/16 at 224) and `so400m` (14 at 224).

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name not in PRESETS:
            raise KeyError(f"SigLIP has no preset `{name}`; there are: tiny, {', '.join(PRESETS)}")
        return PRESETS[name]


def _published(size: int, patch: int, width: int, hidden: int, layers: int, heads: int, context: int) -> SiglipConfig:
    """Both towers alike, 32,000 ids of SentencePiece, whose end token 1 also fills up."""
    image = VisionConfig(
        size=size,
        patch=patch,
        width=width,
        layers=layers,
        heads=heads,
        mlp_ratio=hidden / width,
        activation="gelu_tanh",
        pool="mean",
    )
    text = TextConfig(
        vocabulary=32_000,
        context=context,
        width=width,
        layers=layers,
        heads=heads,
        mlp_ratio=hidden / width,
        activation="gelu_tanh",
        causal=False,
        pool="last",
        epsilon=1e-6,
    )
    return SiglipConfig(image=image, text=text, pad_id=1)


PRESETS: dict[str, SiglipConfig] = {
    "base": _published(224, 16, 768, 3072, 12, 12, context=64),
    "so400m": _published(224, 14, 1152, 4304, 27, 16, context=16),
}


class Siglip(SharedSpace, Method):
    """SigLIP's two towers and its loss."""

    name = "siglip"
    config_class = SiglipConfig
    config: SiglipConfig
    # The paper bounds t nowhere; trained ones are near 100, and one far beyond that saturates every question.
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 1000.0)}

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text tower has no vocabulary or context yet; call config.resolve(data_info) first")
        if config.image.has_class_token or config.text.pool != "last" or config.text.causal:
            raise ValueError(
                f"given image.pool={config.image.pool!r}, text.pool={config.text.pool!r} and text.causal={config.text.causal}; "
                "SigLIP has no class token and a text tower that is not causal: set image.pool='mean', text.pool='last', "
                "text.causal=False"
            )
        if config.text.buckets > 1:
            raise ValueError(
                f"text.buckets is {config.text.buckets}: SigLIP fills every text to the context and reads all of it, so that there is no "
                "padding to leave out; set text.buckets=1"
            )
        self.config = config
        image = config.image
        self.image = VisionTransformer(image)
        self.image_pool = AttentionalPooler(
            image.width,
            queries=1,
            heads=image.heads,
            mlp=self.image.transformer.config.hidden,
            activation=image.activation,
            query_norm=False,
            memory_norm=False,
            epsilon=image.epsilon,
        )
        self.text = TextTransformer(config.text)
        self.text_projection = nn.Linear(config.text.width, image.width)
        for part in (self.image.transformer, self.image_pool, self.text.transformer, self.text_projection):
            _glorot(part)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.bias = nn.Parameter(torch.tensor(float(config.bias)))

    # The towers.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> (B, D) on the unit sphere."""
        _, tokens = self.image(images)
        return Encoded(self._unit(self.image_pool(tokens)[:, 0]), tokens)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> (B, D) on the unit sphere, read at the last of the context's positions.

        `mask` says which tokens are real and is handed on; the tower reads all of them, as published. So real tokens are
        those it marks, and what else is in `ids` does not count.
        """
        pooled, tokens = self.text(self._filled(ids, mask))
        return Encoded(self._unit(self.text_projection(pooled)), self._as_given(tokens, ids), mask, ids)

    @staticmethod
    def _as_given(tokens: Tensor, ids: Tensor) -> Tensor:
        """(B, context, W) -> (B, L, W); taken by number, for a view would be another thing where L is the whole context."""
        return tokens.index_select(1, torch.arange(ids.shape[1], device=ids.device))

    @staticmethod
    def _unit(vectors: Tensor) -> Tensor:
        return F.normalize(vectors.float(), dim=-1)

    def _filled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids -> (B, context) with everything that is not real replaced by `pad_id`."""
        real = ids.masked_fill(~mask, self.config.pad_id)
        context = self.config.text.context
        # Padded by more than is needed and cut: of any length, where a graph is traced, by a number that does not depend on it.
        return F.pad(real, (0, context), value=self.config.pad_id)[:, :context]

    def logits(self, image: Encoded, text: Encoded) -> Tensor:
        """t <v_i, w_j> + c: (Bi, Bt) log-odds that picture i and text j are a pair."""
        return self.log_scale.exp() * self.compare(image, text) + self.bias

    # Section 3.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Both embeddings of every row."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        _, tokens = self.image(batch.images, shown(self.image, batch.images, batch.patch_mask))
        # Only the last position is used, so the last block need not compute the others.
        text, _ = self.text(self._filled(batch.text, batch.text_mask), tokens=False)
        return {
            "image": self._unit(self.image_pool(tokens)[:, 0]),
            "text": self._unit(self.text_projection(text)),
        }

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The sigmoid loss over the pairs of all ranks."""
        scale = self.log_scale.exp()
        result = siglip(
            reps["image"],
            reps["text"],
            scale,
            self.bias,
            world,
            image_id=batch.image_id,
            text_id=batch.text_id,
            chunk=self.config.chunk,
        )
        return Losses(
            terms={"sigmoid": Term(result.loss, chance=result.chance, formula=result.formula)},
            report={
                "temperature_scale": scale.detach(),
                "bias": self.bias.detach(),
                "image_to_text_accuracy": result.accuracy,
            },
            features={"image": reps["image"].detach(), "text": reps["text"].detach()},
        )


def _glorot(module: nn.Module) -> None:
    """The start of the released training code (`big_vision`): uniform Glorot weights, each projection by itself."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            merged = {"qkv": 3, "key_value": 2}.get(name.rpartition(".")[2], 1)
            for weight in part.weight.chunk(merged):
                nn.init.xavier_uniform_(weight)
            nn.init.zeros_(part.bias)
