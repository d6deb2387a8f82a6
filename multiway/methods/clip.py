"""CLIP: Learning Transferable Visual Models From Natural Language Supervision.

Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever; ICML 2021;
arXiv 2103.00020.

Two encoders, trained from scratch so that a picture and its caption point the same way. With v_i and w_j the
L2-normalised projections of image i and text j in a batch of N pairs, and t a learnable log temperature (Figure 3):

    s_ij = exp(t) <v_i, w_j>
    L    = 1/2 [ CE(s, diagonal, over rows) + CE(s, diagonal, over columns) ]

Departures from the paper: rows of the batch that share a picture or a caption are positives of one another, never
negatives; texts are padded to the longest of the batch instead of to the context (the causal mask makes this exact).

Where a batch hides patches, pictures are encoded from the others alone, in training (FLIP: Y. Li et al., 2023, arXiv 2212.00794).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.losses.itc import itc
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.shared_space import SharedSpace
from multiway.nn.hidden_patches import shown
from multiway.nn.resnet import ModifiedResNet, ModifiedResNetConfig, ResNet, ResNetConfig
from multiway.nn.text import TextConfig, TextTransformer
from multiway.nn.transformer import clip_init
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["PRESETS", "Clip", "ClipConfig", "image_size"]


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of CLIP.

    Attributes:
        image: the image tower: a ViT, CLIP's modified ResNet, or a plain ResNet.
        text: the text tower, a causal transformer read at the end token.
        embedding: width of the shared space.
        temperature: initial value of 1 / exp(t) (section 2.5: 0.07).
        max_scale: exp(t) is kept at or below this (section 2.5: 100).
        same: what rows with the same picture or caption are to one another.
        chunk: rows of similarities held at once by the loss; None chooses by memory.
    """

    image: VisionConfig | ModifiedResNetConfig | ResNetConfig = VisionConfig(
        size=64, patch=8, width=128, layers=4, heads=2, pool="class", pre_norm=True, patch_bias=False, epsilon=1e-5
    )
    text: TextConfig = TextConfig(width=128, layers=3, heads=2, causal=True, pool="eos", eos_id=3)
    embedding: int = 128
    temperature: float = 0.07
    max_scale: float = 100.0
    same: Literal["positive", "ignore"] = "positive"
    chunk: int | None = None

    def resolve(self, data: DataInfo) -> ClipConfig:
        """The config with the sizes that depend on the data filled in; sizes that were given are kept."""
        text = replace(
            self.text,
            vocabulary=self.text.vocabulary or data.vocabulary,
            context=self.text.context or data.context,
            # Always the tokeniser's own: with another id no text would have an end to be read at.
            eos_id=data.special.get("eos", self.text.eos_id),
        )
        return replace(self, text=text)

    @classmethod
    def preset(cls, name: str) -> ClipConfig:
        """`tiny`, or one of the paper's sizes (tables 19 and 20).

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name not in PRESETS:
            raise KeyError(f"CLIP has no preset `{name}`; there are: tiny, {', '.join(PRESETS)}")
        return PRESETS[name]


def _text(width: int) -> TextConfig:
    """The paper's text tower: 12 layers, heads of 64, 49,408 ids, context 77; its width follows the image tower's."""
    return TextConfig(
        vocabulary=49408,
        context=77,
        width=width,
        layers=12,
        heads=width // 64,
        activation="quick_gelu",
        causal=True,
        pool="eos",
        eos_id=49407,
    )


def _vit(size: int, patch: int, width: int, layers: int, text: int, embedding: int) -> ClipConfig:
    image = VisionConfig(
        size=size,
        patch=patch,
        width=width,
        layers=layers,
        heads=width // 64,
        activation="quick_gelu",
        pool="class",
        pre_norm=True,
        patch_bias=False,
        epsilon=1e-5,
    )
    return ClipConfig(image=image, text=_text(text), embedding=embedding)


def _resnet(size: int, layers: tuple[int, int, int, int], width: int, text: int, embedding: int) -> ClipConfig:
    image = ModifiedResNetConfig(size=size, depths=layers, base=width, heads=width * 32 // 64, output=embedding)
    return ClipConfig(image=image, text=_text(text), embedding=embedding)


PRESETS: dict[str, ClipConfig] = {
    "vit-b-32": _vit(224, 32, 768, 12, text=512, embedding=512),
    "vit-b-16": _vit(224, 16, 768, 12, text=512, embedding=512),
    "vit-l-14": _vit(224, 14, 1024, 24, text=768, embedding=768),
    "vit-l-14-336": _vit(336, 14, 1024, 24, text=768, embedding=768),
    "rn50": _resnet(224, (3, 4, 6, 3), 64, text=512, embedding=1024),
    "rn101": _resnet(224, (3, 4, 23, 3), 64, text=512, embedding=512),
    "rn50x4": _resnet(288, (4, 6, 10, 6), 80, text=640, embedding=640),
    "rn50x16": _resnet(384, (6, 8, 18, 8), 96, text=768, embedding=768),
    "rn50x64": _resnet(448, (3, 15, 36, 10), 128, text=1024, embedding=1024),
}


def image_size(config: ClipConfig) -> int:
    """Side of the pictures that the image tower is made for, in pixels."""
    if isinstance(config.image, ResNetConfig):  # convolutions take any size; these are the stems' own
        return 224 if config.image.stem == "imagenet" else 32
    return config.image.size


def _image_tower(config: ClipConfig) -> tuple[nn.Module, nn.Module]:
    """The image encoder and its projection into the shared space. CLIP's ResNet pools straight into that space."""
    if isinstance(config.image, ModifiedResNetConfig):
        return ModifiedResNet(config.image), nn.Identity()
    tower = VisionTransformer(config.image) if isinstance(config.image, VisionConfig) else ResNet(config.image)
    projection = nn.Linear(tower.width, config.embedding, bias=False)
    nn.init.normal_(projection.weight, std=tower.width**-0.5)
    return tower, projection


class Clip(SharedSpace, Method):
    """CLIP's two towers and its loss."""

    name = "clip"
    config_class = ClipConfig
    config: ClipConfig
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 100.0)}

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text tower has no vocabulary or context yet; call config.resolve(data_info) first")
        self.config = config
        self.image, self.image_projection = _image_tower(config)
        self.text = TextTransformer(config.text)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        for tower in (self.image, self.text):
            if isinstance(tower, VisionTransformer | TextTransformer):
                clip_init(tower.transformer)
        # A scalar in log space: its gradient is then independent of the temperature's unit.
        self.log_scale = nn.Parameter(torch.tensor(1.0 / config.temperature).log())

    # Section 2.3: the two encoders and their linear projections.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> (B, D) on the unit sphere."""
        pooled, tokens = self.image(images)
        return Encoded(F.normalize(self.image_projection(pooled).float(), dim=-1), tokens)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> (B, D) on the unit sphere, read at the end token."""
        pooled, tokens = self.text(ids, mask)
        return Encoded(F.normalize(self.text_projection(pooled).float(), dim=-1), tokens, mask, ids)

    # Section 2.3 and Figure 3: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Both embeddings of every row."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        # Only the pooled token is used, so the last block need not compute the others.
        image = self._pooled(batch.images, batch.patch_mask)
        text, _ = self.text(batch.text, batch.text_mask, tokens=False)
        return {
            "image": F.normalize(self.image_projection(image).float(), dim=-1),
            "text": F.normalize(self.text_projection(text).float(), dim=-1),
        }

    def _pooled(self, images: Tensor, hidden: Tensor | None) -> Tensor:
        """(B, 3, H, W) -> (B, W); of the patches that are not `hidden` (B, N) alone, which costs that much less (FLIP)."""
        if hidden is None:
            return self.image(images, tokens=False)[0]  # type: ignore[no-any-return]
        if not isinstance(self.image, VisionTransformer):
            raise ValueError(
                f"patches are left out of pictures and a {type(self.image).__name__} has none: its convolutions see whole pictures; "
                "take a ViT, or leave --drop and --patches.ratio at 0"
            )
        return self.image(images, shown(self.image, images, hidden), tokens=False).pooled  # type: ignore[no-any-return]

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The symmetric contrastive loss over the rows of all ranks."""
        scale = self.log_scale.exp()
        result = itc(
            reps["image"],
            reps["text"],
            scale,
            world,
            image_id=batch.image_id,
            text_id=batch.text_id,
            same=self.config.same,
            chunk=self.config.chunk,
        )
        return Losses(
            terms={"itc": Term(result.loss, chance=result.chance, formula=result.formula)},
            report={
                "temperature_scale": scale.detach(),
                "image_to_text_accuracy": result.image_to_text_accuracy,
                "text_to_image_accuracy": result.text_to_image_accuracy,
            },
            features={"image": reps["image"].detach(), "text": reps["text"].detach()},
        )

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """Section 2.5: the scale may not exceed 100, or training becomes unstable."""
        self.log_scale.clamp_(max=float(torch.tensor(self.config.max_scale).log()))
