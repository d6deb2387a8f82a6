"""Projectors and predictors: the small networks between a backbone and a self-supervised loss.

All are linear layers with a normalisation and an activation between them. What differs from paper to paper is in
`MlpHeadConfig`, and the papers' choices are the constants below, as their published code has them (widths in brackets are
those of a ResNet-50):

    constant                 layers  widths                 hidden norm   output norm             biases
    MOCO_V1                  1       128                    -             none                    yes      also InstDisc, InvaSpread
    MOCO_V2                  2       [2048] 128             none          none                    yes
    SIMCLR, SIMCLR_V2        2, 3    [2048] 128             batch         batch, without shift    no
    SWAV                     2       2048 128               batch         none                    yes
    BYOL (both networks)     2       4096 256               batch         none                    hidden
    SIMSIAM                  3       [2048 2048] 2048       batch         batch, without affine   no
    SIMSIAM_PREDICTOR        2       512, as its input      batch         none                    output
    MOCO_V3 (ViT)            3       4096 4096 256          batch         batch, without affine   no
    MOCO_V3_RESNET, _PREDICTOR  2    4096 256               batch         batch, without affine   no
    DINO                     3       2048 2048 256, 65536   none          -                       yes      GELU, weight-normalised last
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.prototypes import WeightNormalised

__all__ = [
    "BYOL",
    "DINO",
    "MOCO_V1",
    "MOCO_V2",
    "MOCO_V3",
    "MOCO_V3_PREDICTOR",
    "MOCO_V3_RESNET",
    "SIMCLR",
    "SIMCLR_V2",
    "SIMSIAM",
    "SIMSIAM_PREDICTOR",
    "SWAV",
    "MlpHead",
    "MlpHeadConfig",
]


@dataclass(frozen=True)
class MlpHeadConfig:
    """A head, but for the width of its input, which is the backbone's.

    Attributes:
        layers: linear layers, the last one included (of DINO's: those up to the bottleneck).
        hidden: width between layers; 0 is the input's.
        output: width that comes out; 0 is the input's.
        hidden_norm: after every layer but the last.
        output_norm: after the last; `batch-without-shift` scales but adds nothing, `batch-without-affine` does neither.
        activation: after every hidden layer.
        bias: of the hidden layers.
        output_bias: of the last layer.
        last: `weight-normalised` is DINO's: layers lead to the bottleneck, its vector is put on the unit sphere, and a matrix
            of rows of length 1, without bias, makes the output.
        bottleneck: width before it.
    """

    layers: int = 2
    hidden: int = 0
    output: int = 128
    hidden_norm: Literal["batch", "layer", "none"] = "batch"
    output_norm: Literal["batch", "batch-without-shift", "batch-without-affine", "none"] = "none"
    activation: Literal["relu", "gelu"] = "relu"
    bias: bool = True
    output_bias: bool = True
    last: Literal["linear", "weight-normalised"] = "linear"
    bottleneck: int = 256

    def __post_init__(self) -> None:
        if self.layers < 1 or self.hidden < 0 or self.output < 0 or self.bottleneck < 1:
            raise ValueError(
                f"a head of {self.layers} layers, {self.hidden} hidden, {self.output} out, bottleneck {self.bottleneck}; expected "
                "1 or more layers, widths of 0 (the input's) or more, and a bottleneck of 1 or more"
            )
        if self.last == "weight-normalised" and self.output_norm != "none":
            raise ValueError(f"output_norm is {self.output_norm!r} after a weight-normalised layer; expected 'none'")


MOCO_V1 = MlpHeadConfig(layers=1)
MOCO_V2 = MlpHeadConfig(hidden_norm="none")
SIMCLR = MlpHeadConfig(output_norm="batch-without-shift", bias=False, output_bias=False)
SIMCLR_V2 = replace(SIMCLR, layers=3)
SWAV = MlpHeadConfig(hidden=2048)
BYOL = MlpHeadConfig(hidden=4096, output=256, output_bias=False)
SIMSIAM = MlpHeadConfig(layers=3, output=2048, output_norm="batch-without-affine", bias=False, output_bias=False)
SIMSIAM_PREDICTOR = MlpHeadConfig(hidden=512, output=0, bias=False)
MOCO_V3 = MlpHeadConfig(3, 4096, 256, output_norm="batch-without-affine", bias=False, output_bias=False)
MOCO_V3_RESNET = MOCO_V3_PREDICTOR = replace(MOCO_V3, layers=2)
DINO = MlpHeadConfig(3, 2048, 65536, hidden_norm="none", activation="gelu", last="weight-normalised")


class MlpHead(nn.Module):
    """A head.

    Args:
        width: W of its input.
        config: the rest.
    """

    def __init__(self, width: int, config: MlpHeadConfig) -> None:
        super().__init__()
        self.width, self.output = width, config.output or width
        special = config.last == "weight-normalised"
        widths = [width, *[config.hidden or width] * (config.layers - 1), config.bottleneck if special else self.output]
        parts: list[nn.Module] = []
        for number, (inside, outside) in enumerate(pairwise(widths), 1):
            hidden = number < config.layers
            parts.append(nn.Linear(inside, outside, bias=config.bias if hidden else config.output_bias))
            if hidden:
                parts += [*_norm(config.hidden_norm, outside), nn.ReLU() if config.activation == "relu" else nn.GELU()]
            else:
                parts += _norm(config.output_norm, outside)
        self.layers = nn.Sequential(*parts)
        self.last: WeightNormalised | None = None
        if special:
            # DINO's code, whose bounds are absolute and so cut nothing; the others leave layers at torch's own start.
            for part in self.layers:
                if isinstance(part, nn.Linear):
                    nn.init.normal_(part.weight, std=0.02)
                    if part.bias is not None:
                        nn.init.zeros_(part.bias)
            self.last = WeightNormalised(config.bottleneck, self.output)

    def forward(self, features: Tensor, still: bool = False) -> Tensor:
        """(..., W) -> (..., output).

        Args:
            still: no gradient for a weight-normalised last layer, as in DINO's first epoch. Other heads have no such layer.

        Raises:
            ValueError: for another width.
        """
        if features.shape[-1] != self.width:
            raise ValueError(f"features are {tuple(features.shape)}; this head takes (..., {self.width})")
        # Flat, since a batch normalisation would take the second of three dimensions for the channels.
        out = self.layers(features.reshape(-1, self.width))
        if self.last is not None:
            out = self.last(F.normalize(out.float() if out.dtype.itemsize < 4 else out, dim=-1), still)
        return out.reshape(*features.shape[:-1], self.output)


def _norm(kind: str, width: int) -> list[nn.Module]:
    """No module, or one."""
    if kind == "none":
        return []
    if kind == "layer":
        return [nn.LayerNorm(width)]
    norm = nn.BatchNorm1d(width, affine=kind != "batch-without-affine")
    if kind == "batch-without-shift":
        norm.register_parameter("bias", None)
    return [norm]
