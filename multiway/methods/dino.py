"""DINO: Emerging Properties in Self-Supervised Vision Transformers.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin; ICCV 2021; arXiv 2104.14294. Self-distillation without labels: the student
says of every view what its moving average, the teacher, says of the large ones (equations 1 to 4, algorithm 1):

    L = sum over large x, views x' != x of  H(P_t(x), P_s(x')),     P_t = softmax((g_t - c) / tau_t),  P_s = softmax(g_s / tau_s)

Two collapses threaten and cancel each other (section 5.3): *centring* (c, the mean output) alone makes outputs even, *sharpening*
(tau_t < tau_s) alone makes one output win. `--method.no-centring` or `--method.teacher-temperature 0.1` show them. No predictor,
no negatives, no batch norm. The last layer learns nothing during the first epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multiway.batch import Batch
from multiway.config import ConfigError
from multiway.losses.self_distillation import self_distillation, sharpen
from multiway.losses.uniformity import alignment
from multiway.methods.method import Losses, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.siamese import Siamese, SiameseConfig, Views
from multiway.methods.view_health import ROWS, winners
from multiway.nn.backbone import VIT_TINY, BackboneConfig, resnet, vit
from multiway.nn.center import Center, mean_outputs
from multiway.nn.mlp_head import DINO, MlpHeadConfig
from multiway.world import World

__all__ = ["Dino", "DinoConfig"]


@dataclass(frozen=True)
class DinoConfig(SiameseConfig):
    """Sizes of DINO; for what is not named here see `SiameseConfig`.

    Attributes:
        student_temperature: tau_s.
        teacher_temperature: tau_t, in the end.
        warm_temperature: tau_t at the start, from which it rises in a line
        warm_until: until this share of the training.
        centring: whether the mean output is taken off.
        center_momentum: of the centre.
        still: share of the training during which the last layer does not learn.
    """

    backbone: BackboneConfig = VIT_TINY
    projector: MlpHeadConfig = replace(DINO, hidden=256, output=512, bottleneck=64)
    twin: bool = True
    momentum: float = 0.99
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warm_temperature: float = 0.04
    warm_until: float = 0.1
    centring: bool = True
    center_momentum: float = 0.9
    still: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        # The end of a temperature's rise is met after hours.
        if min(self.student_temperature, self.teacher_temperature, self.warm_temperature) <= 0:
            raise ConfigError(
                f"temperatures are {self.student_temperature} of the student, {self.warm_temperature} to {self.teacher_temperature} of "
                "the teacher; expected more than 0"
            )

    @classmethod
    def preset(cls, name: str) -> DinoConfig:
        """`tiny`; `vit-s-16`, `vit-s-8`, `vit-b-16`, `vit-b-8` and `rn50`, the published ones.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        large = cls(
            projector=DINO, momentum=0.996, teacher_temperature=0.07, warm_until=30 / 300, still=1 / 300
        )  # fmt: skip
        sizes = {
            f"vit-{size[0]}-{patch}": vit(size, patch, drop_path=0.1) for size in ("small", "base") for patch in (16, 8)
        }
        presets = {"tiny": cls()} | {name: replace(large, backbone=one) for name, one in sizes.items()}
        presets["rn50"] = cls(resnet(50), DINO, momentum=0.996, still=1 / 100)
        return preset_named(name, presets, "DINO")


class Dino(Siamese):
    """A student, its average as teacher, and a centre."""

    name = "dino"
    config_class = DinoConfig
    config: DinoConfig
    own_state = (*Siamese.own_state, "center.")

    def __init__(self, config: DinoConfig) -> None:
        super().__init__(config)
        self.center = Center(self.projector.output, config.center_momentum)

    def teacher_temperature_at(self, step: Step) -> float:
        """tau_t: from the warm one to its own in a line."""
        config = self.config
        share = min(1.0, step.progress / config.warm_until) if config.warm_until > 0 else 1.0
        return config.warm_temperature + share * (config.teacher_temperature - config.warm_temperature)

    def head_is_still(self, step: Step) -> bool:
        """Section A: the last layer is fixed during the first epoch."""
        return step.progress < self.config.still

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """What the student says of every view against what the teacher says of the large ones."""
        config, center = self.config, self.center.value if self.config.centring else None
        temperature = self.teacher_temperature_at(step)
        found = self_distillation(online, target, center, world, config.student_temperature, temperature)
        # Outputs have a large common part, of which the centre is; what tells pictures apart is in the targets.
        seen = [sharpen(each[:ROWS], center, temperature) for each in target[:2]]
        return Losses(
            {"distillation": Term(found.loss, chance=found.chance, formula=found.formula)},
            report={
                "accuracy": found.accuracy,
                "target_entropy": found.target_entropy,
                "usage": found.usage,
                "divergence": found.divergence,
                "winners": winners(online[: len(target)]),
                "teacher_temperature": torch.tensor(temperature),
                **({"alignment": alignment(seen[0], seen[1], World())} if len(seen) > 1 else {}),
            },
            features={"targets": seen[0]},
            updates={"outputs": mean_outputs(target, world)},
        )

    @torch.no_grad()
    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """The centre follows the teacher's mean output."""
        self.center.follow(updates["outputs"])
