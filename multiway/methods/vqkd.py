"""VQ-KD: vector-quantised knowledge distillation, the image tokeniser of BEiT v2 and BEiT-3.

Peng, Dong, Bao, Ye, Wei; BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers; 2022; arXiv 2208.06366,
section 3.1. Patches are encoded, each takes the nearest code of a codebook, and from the codes alone a decoder has to tell
what a teacher sees in the picture. So codes stand for meaning, not for colours:

    L = - mean_i cos(o_i, t_i)  +  mean_i || sg(v_i) - h_i ||^2

with h_i the encoder's unit vector of patch i, v_i its code, o_i the decoder's output and t_i the teacher's token. The
gradient passes v_i straight to h_i; the codes themselves follow by moving averages (equation 2 without its middle term, as
in the paper), and unused ones are revived.

Departure: the first term is written as 1 - cos, whose chance value is that of the best constant answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.patch import resize_positions
from multiway.nn.transformer import Transformer, TransformerConfig, init_weights
from multiway.nn.visual_tokeniser import VisualTokeniser, VisualTokeniserConfig
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["Vqkd", "VqkdConfig"]


@dataclass(frozen=True)
class VqkdConfig:
    """Sizes of VQ-KD.

    Attributes:
        tokeniser: encoder and codebook, which is what others use.
        decoder_layers: blocks that read the codes, as wide as the encoder's.
        teacher: the ViT whose tokens are to be told; taken from the teacher's run.
        commitment: weight of the second term.
    """

    tokeniser: VisualTokeniserConfig = VisualTokeniserConfig()
    decoder_layers: int = 1
    teacher: VisionConfig | None = None
    commitment: float = 1.0

    def resolve(self, data: DataInfo) -> VqkdConfig:
        """The config itself: nothing depends on the data."""
        return self

    @classmethod
    def preset(cls, name: str) -> VqkdConfig:
        """`tiny`, or `base`, the paper's: ViT-B/16, 8,192 codes of 32 numbers, a decoder of three blocks.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"VQ-KD has no preset `{name}`; there are: tiny, base")
        image = VisionConfig(size=224, patch=16, width=768, layers=12, heads=12)
        return cls(VisualTokeniserConfig(image, codes=8192, decay=0.99, dead=0.03), decoder_layers=3)


class Vqkd(Method):
    """The tokeniser, its decoder, and a frozen teacher."""

    name = "vqkd"
    config_class = VqkdConfig
    config: VqkdConfig
    own_state: ClassVar[tuple[str, ...]] = ("teacher.",)

    def __init__(self, config: VqkdConfig) -> None:
        super().__init__()
        if config.teacher is None:
            raise ValueError(
                "VQ-KD distils a teacher and there is none; name a run whose pictures it shall see: --teacher RUN"
            )
        self.config = config
        image = config.tokeniser.image
        self.tokeniser = VisualTokeniser(config.tokeniser)
        grid = self.tokeniser.image.grid
        self.widen = nn.Linear(config.tokeniser.code_width, image.width)
        self.positions = nn.Parameter(torch.empty(grid[0] * grid[1], image.width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.decoder = Transformer(replace(TransformerConfig.of(image), layers=config.decoder_layers))
        self.tell = nn.Sequential(
            nn.Linear(image.width, image.width), nn.Tanh(), nn.Linear(image.width, config.teacher.width)
        )
        init_weights(self.widen)
        init_weights(self.tell)
        self.teacher = VisionTransformer(config.teacher).requires_grad_(False)
        if (config.teacher.size, config.teacher.patch) != (image.size, image.patch):
            raise ConfigError(
                f"the teacher cuts pictures of {config.teacher.size} pixels into patches of {config.teacher.patch}, the tokeniser such of "
                f"{image.size} into {image.patch}; choose the tokeniser's so that they agree: --method.tokeniser.image.size "
                f"{config.teacher.size} --method.tokeniser.image.patch {config.teacher.patch} --view.size {config.teacher.size}"
            )

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> no embedding (B, 0), and as tokens the codes (B, N, D) of the patches."""
        vectors = self.tokeniser.vectors(images)
        return Encoded(vectors.new_empty(len(images), 0), self.tokeniser.codebook(vectors)[0])

    def tokenise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N) int64 code numbers."""
        return self.tokeniser.tokenise(images)

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Unit vectors of the patches, what the decoder makes of their codes, and what the teacher sees."""
        assert batch.images is not None
        vectors = self.tokeniser.vectors(batch.images)
        codes, numbers = self.tokeniser.codebook(vectors)
        grid = self.tokeniser.image.patches.grid(batch.images)
        decoded = self.decoder(self.widen(codes) + resize_positions(self.positions, self.tokeniser.image.grid, grid))
        with torch.no_grad():
            seen = self.teacher(batch.images).tokens[:, self.teacher.prefix :]
        return {"vectors": vectors, "numbers": numbers, "told": self.tell(decoded), "seen": seen}

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Distillation by cosine, and commitment to the codes."""
        seen = F.normalize(reps["seen"].float(), dim=-1)
        cosine = (F.normalize(reps["told"].float(), dim=-1) * seen).sum(-1)
        codebook = self.tokeniser.codebook
        numbers = reps["numbers"]
        commitment = (codebook.codes[numbers] - reps["vectors"]).square().sum(-1).mean()
        # The best constant answer points along the teacher's mean token.
        constant = 1.0 - float(seen.flatten(0, 1).mean(0).norm())
        terms = {
            "distillation": Term(1.0 - cosine.mean(), chance=constant, formula="1 - |mean teacher token|"),
            "commitment": Term(commitment, self.config.commitment),
        }
        share = torch.bincount(numbers.flatten(), minlength=len(codebook.codes)) / numbers.numel()
        report = {
            "cosine": cosine.detach().mean(),
            "codes_used": (share > 0).float().mean(),
            "perplexity": torch.special.entr(share).sum().exp(),
        }
        return Losses(terms, report=report, updates={"vectors": world.gather(reps["vectors"], "none")})

    @torch.no_grad()
    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """The codes follow the vectors of all ranks."""
        self.tokeniser.codebook.follow(updates["vectors"].flatten(0, 1))
