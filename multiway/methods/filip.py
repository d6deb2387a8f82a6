"""FILIP: Fine-grained Interactive Language-Image Pre-Training.

L. Yao, R. Huang, L. Hou, G. Lu, M. Niu, H. Xu, X. Liang, Z. Li, X. Jiang, C. Xu; ICLR 2022; arXiv 2111.07783.

CLIP's two towers, compared token by token: every patch looks for the word it is most like, every word for its patch, and the
mean of those best cosines is the similarity (section 3.1; `losses/filip.py`):

    s^I = mean over picture tokens of max over text tokens,     s^T = mean over text tokens of max over picture tokens

    L = 1/2 [ CE(s^I / tau over texts) + CE(s^T / tau over pictures) ]

Both sides are encoded by themselves, so that they can be computed beforehand; only this comparison sees both. All last tokens
of both towers are projected into one space and take part: of the picture the class token and the patches, of the text what
lies between, and with, start and end token. The class token can answer for what no patch shows alone, and the end token, last
of a causal text, for the whole sentence. Padding takes no part.

Of each row's tokens only the share `keep` that is nearest to anything in this rank's batch takes part in the loss, which is what
ranks have to send each other (section 3.1: a quarter). At inference all do. Where a batch hides patches, the others alone are
encoded, compared and sent (FLIP: Y. Li et al., 2023, arXiv 2212.00794); a word then finds the best of what is shown.

Departures from the paper: rows that share a picture or a caption are positives; features travel between ranks in the precision
in which they are, not in fp16; augmentation and prompts are the recipe's and the task's matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded, Query
from multiway.batch import Batch, DataInfo
from multiway.losses.filip import Tokens, filip, late_interaction
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.hidden_patches import shown
from multiway.nn.pool import masked_mean
from multiway.nn.text import TextConfig, TextTransformer
from multiway.nn.transformer import clip_init
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["PRESETS", "Filip", "FilipConfig"]


@dataclass(frozen=True)
class FilipConfig:
    """Sizes of FILIP.

    Attributes:
        image: the ViT, whose class token is one of the tokens that are compared.
        text: the text tower, a causal transformer.
        embedding: width of the space in which tokens are compared.
        temperature: initial value of tau.
        max_scale: 1 / tau is kept at or below this, as in CLIP.
        keep: share of each row's tokens that take part in the loss; the paper's runs have 0.25.
        same: what rows with the same picture or caption are to one another.
        chunk: pictures whose products with all texts are held at once by the loss; None chooses by memory.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")
    text: TextConfig = TextConfig(context=0, width=128, layers=3, heads=2, causal=True, pool="last")
    embedding: int = 64
    temperature: float = 0.07
    max_scale: float = 100.0
    keep: float = 1.0
    same: Literal["positive", "ignore"] = "positive"
    chunk: int | None = None

    def resolve(self, data: DataInfo) -> FilipConfig:
        """The config with the sizes that depend on the data filled in; sizes that were given are kept."""
        text = replace(
            self.text,
            vocabulary=self.text.vocabulary or data.vocabulary,
            context=self.text.context or data.context,
        )
        return replace(self, text=text)

    @classmethod
    def preset(cls, name: str) -> FilipConfig:
        """`tiny`, or one of the paper's sizes: `base` (ViT-B/32) and `large` (ViT-L/14), both at 224 pixels.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name not in PRESETS:
            raise KeyError(f"FILIP has no preset `{name}`; there are: tiny, {', '.join(PRESETS)}")
        return PRESETS[name]


def _published(patch: int, width: int, layers: int, text: int) -> FilipConfig:
    """CLIP's towers at the same size, compared in 256 dimensions, a quarter of the tokens kept."""
    image = VisionConfig(
        size=224,
        patch=patch,
        width=width,
        layers=layers,
        heads=width // 64,
        activation="quick_gelu",
        pre_norm=True,
        patch_bias=False,
        epsilon=1e-5,
    )
    words = TextConfig(
        vocabulary=49_408,
        context=77,
        width=text,
        layers=12,
        heads=text // 64,
        activation="quick_gelu",
        causal=True,
        pool="last",
    )
    return FilipConfig(image=image, text=words, embedding=256, keep=0.25)


PRESETS: dict[str, FilipConfig] = {
    "base": _published(32, 768, 12, text=512),
    "large": _published(14, 1024, 24, text=768),
}


class Filip(Method):
    """FILIP's two towers and its loss."""

    name = "filip"
    config_class = FilipConfig
    config: FilipConfig
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 100.0)}

    def __init__(self, config: FilipConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text tower has no vocabulary or context yet; call config.resolve(data_info) first")
        if not 0.0 < config.keep <= 1.0:
            raise ValueError(f"keep is {config.keep}; expected a share above 0 and up to 1")
        self.config = config
        self.image = VisionTransformer(config.image)
        self.text = TextTransformer(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        for tower in (self.image, self.text):
            clip_init(tower.transformer)
        self.log_scale = nn.Parameter(torch.tensor(1.0 / config.temperature).log())

    # Section 3: the two encoders, and the space in which their tokens meet.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> tokens (B, 1 + N, D) on the unit sphere, the class token first; no embedding."""
        tokens = self._image_tokens(images)
        return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> tokens (B, L, D) on the unit sphere; no embedding."""
        tokens = self._text_tokens(ids, mask)
        return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens, mask, ids)

    def compare(self, image: Encoded, text: Encoded, query: Query = "image") -> Tensor:
        """(Bi, Bt): s^I where pictures ask, s^T where texts do."""
        assert image.tokens is not None and text.tokens is not None
        sides = Tokens(image.tokens, image.mask), Tokens(text.tokens, text.mask)
        by_image, by_text = late_interaction(*sides, side=query, chunk=self.config.chunk)
        found = by_image if query == "image" else by_text
        assert found is not None
        return found

    def _image_tokens(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        return F.normalize(
            self.image_projection(self.image(images, shown(self.image, images, hidden)).tokens).float(), dim=-1
        )

    def _text_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.text_projection(self.text(ids, mask).tokens).float(), dim=-1)

    # Section 3.1: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Both sides' tokens of every row."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        return {
            "image": self._image_tokens(batch.images, batch.patch_mask),
            "text": self._text_tokens(batch.text, batch.text_mask),
        }

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The token-wise contrast over the rows of all ranks."""
        scale = self.log_scale.exp()
        result = filip(
            Tokens(reps["image"]),
            Tokens(reps["text"], batch.text_mask),
            scale,
            world,
            image_id=batch.image_id,
            text_id=batch.text_id,
            same=self.config.same,
            keep=self.config.keep,
            chunk=self.config.chunk,
        )
        means = {
            "image": masked_mean(reps["image"].detach()),
            "text": masked_mean(reps["text"].detach(), batch.text_mask),
        }
        return Losses(
            terms={"filip": Term(result.loss, chance=result.chance, formula=result.formula)},
            report={
                "temperature_scale": scale.detach(),
                "image_to_text_accuracy": result.image_to_text_accuracy,
                "text_to_image_accuracy": result.text_to_image_accuracy,
            },
            features={name: F.normalize(mean, dim=-1) for name, mean in means.items()},
        )

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """The scale may not exceed its bound (as CLIP, section 2.5)."""
        self.log_scale.clamp_(max=float(torch.tensor(self.config.max_scale).log()))
