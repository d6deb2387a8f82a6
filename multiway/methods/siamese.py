"""What methods on several views of a picture share: a network, what it is to agree with, and a probe on the side.

A picture is seen twice or more (`data/views.py`). The *online* branch is backbone f, projector g and perhaps a predictor q; the
*target* branch is the same network, or its momentum twin (`nn/twin.py`), without predictor:

    z_v = g(f(x_v)),   p_v = q(z_v)          online, of every view v
    z'_v = sg(z_v)   or   g'(f'(x_v))        target, of the first views, that see most of the picture

A method's file says what the two have to do with one another: its loss. What is switched here is what papers take away to see
whether it is needed: predictor, twin, stop-gradient (Chen and He, SimSiam, 2021, arXiv 2011.10566, section 4).

The probe is a linear classifier on the backbone's features that sends no gradient back; it shows, while a run trains, what the
labels that the method does not see could be read off by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.methods.method import Losses, Method, Pairs, Reps, Step
from multiway.methods.probed import add_probe, probe_of
from multiway.methods.view_health import of_views
from multiway.nn.backbone import VIT_TINY, BackboneConfig, backbone
from multiway.nn.mlp_head import MlpHead, MlpHeadConfig
from multiway.nn.twin import copy_weights, follow, gap, twin_of, without_noise
from multiway.world import World

__all__ = ["Siamese", "SiameseConfig", "Views"]

Views = Sequence[Tensor]
"""Of each view (B, D)."""


@dataclass(frozen=True)
class SiameseConfig:
    """What every such method has; each sets its own.

    Attributes:
        backbone: the network whose features are wanted.
        projector: head on it.
        predictor: head on the projector's output in the online branch; None for none.
        predict: whether it is used; False is what papers take away to see it collapse.
        twin: whether the target branch is a momentum twin; else it is the network itself.
        stop_gradient: whether no gradient enters through the target branch. A twin's never does.
        momentum: of the twin, at the start.
        momentum_end: and at the end, between which it follows half a cosine.
        targets: how many of the first views the target branch sees.
        together: whether views of one size go through the network as one batch; with batch norm their statistics are then common.
        probe: classes of the probe; 0 for none. Filled in from the data.
    """

    backbone: BackboneConfig = VIT_TINY
    projector: MlpHeadConfig = MlpHeadConfig()
    predictor: MlpHeadConfig | None = None
    predict: bool = True
    twin: bool = False
    stop_gradient: bool = True
    momentum: float = 0.996
    momentum_end: float = 1.0
    targets: int = 2
    together: bool = True
    probe: int = 0

    def __post_init__(self) -> None:
        if not (0.0 <= self.momentum <= 1.0 and 0.0 <= self.momentum_end <= 1.0):
            raise ConfigError(
                f"the twin's momentum goes from {self.momentum} to {self.momentum_end}; expected numbers from 0 to 1"
            )

    def resolve(self, data: DataInfo) -> Self:
        """The config with a probe for the data's classes, where they have any."""
        return replace(self, probe=self.probe or data.classes)


class Siamese(Method):
    """Branches, twin and probe. A method adds `agree`, and `remember` if something of a step is kept for later ones."""

    own_state: ClassVar[tuple[str, ...]] = ("twin.", "probe.")
    config: SiameseConfig
    # With batch norm in the backbone rows of a batch do see one another, in all of these methods.

    def __init__(self, config: SiameseConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone(config.backbone)
        width = self.backbone.width
        self.projector = MlpHead(width, config.projector)
        used = config.predictor if config.predict else None
        self.predictor = None if used is None else MlpHead(self.projector.output, used)
        self.probe = probe_of(width, config.probe)
        self.twin = nn.ModuleList(without_noise(twin_of(part)) for part in self.students) if config.twin else None

    @property
    def students(self) -> tuple[nn.Module, ...]:
        """The parts that have a twin."""
        return self.backbone, self.projector

    def started(self) -> None:
        """After other weights were loaded the twin equals them again."""
        if self.twin is not None:
            copy_weights(self.twin, self.students)

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> the backbone's vector (B, W) on the unit sphere, and its tokens. Heads are for training alone."""
        pooled, tokens = self.backbone(images)
        return Encoded(F.normalize(pooled.float(), dim=-1), tokens)

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Projections and predictions of the online views, what the target branch makes of its own, and features for the probe.

        Returns:
            `projected/v`, `predicted/v` where there is a predictor, `target/v` and `features`, each (B, D).
        """
        features = self._encoded(self.backbone, self.online_views(batch.views))
        projected = self._headed(self.projector, features, step)
        reps = _named("projected", projected)
        if self.predictor is not None:
            reps |= _named("predicted", self._headed(self.predictor, projected, step))
        if self.probe is not None:
            reps["features"] = features[0].detach()  # of one view: the others show the same pictures
        if self.twin is None:
            stopped = self.config.stop_gradient
            own = [each.detach() if stopped else each for each in projected[: self.config.targets]]
        else:
            with torch.no_grad():
                seen = self._encoded(self.twin[0], self.target_views(batch.views))
                own = self._headed(self.twin[1], seen, step)
        return reps | _named("target", own)

    def online_views(self, views: Views) -> Views:
        """Which views the online branch sees: all of them."""
        return views

    def target_views(self, views: Views) -> Views:
        """Which views a twin sees: the first, as many as the config says."""
        return views[: self.config.targets]

    def _encoded(self, network: nn.Module, views: Views) -> list[Tensor]:
        return self._in_runs(lambda images: network(images, tokens=False).pooled, views)

    def _headed(self, head: nn.Module, features: Views, step: Step) -> list[Tensor]:
        still = self.head_is_still(step)
        return self._in_runs(lambda rows: head(rows, still=still), features)

    def head_is_still(self, step: Step) -> bool:
        """Whether a head's last layer learns nothing yet (DINO's first epoch)."""
        return False

    def _in_runs(self, part: Callable[[Tensor], Tensor], inputs: Views) -> list[Tensor]:
        """A part applied to each of several inputs; neighbours of one shape at once, where that is wanted."""
        if not self.config.together:
            return [part(each) for each in inputs]
        found: list[Tensor] = []
        while len(found) < len(inputs):
            rest = inputs[len(found) :]
            run = next((n for n, each in enumerate(rest) if each.shape != rest[0].shape), len(rest))
            found += part(torch.cat(list(rest[:run]))).chunk(run)
        return found

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """The method's loss.

        Args:
            online: of every view (B, D): predictions where there is a predictor, else projections.
            target: of the first views (B, D).
            batch, world, step: as in `losses`.
        """
        raise TypeError(f"{type(self).__name__} does not define agree")

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """What the method asks, and beside it the probe."""
        online = _views(reps, "projected" if self.predictor is None else "predicted")
        found = self.agree(online, _views(reps, "target"), batch, world, step)
        if not found.features:  # a method whose heads give no embeddings has its own idea of what to watch
            found.features["projected"] = reps["projected/0"].detach()
            found.report |= of_views(reps, self.twin is not None)
        if "features" in reps:
            found.features["backbone"] = reps["features"]
        if self.twin is not None:
            found.report["twin_gap"] = gap(self.twin, self.students)
            found.report["momentum"] = torch.tensor(self.momentum_at(step))
        add_probe(found, self.probe, reps.get("features"), batch)
        return found

    def momentum_at(self, step: Step) -> float:
        """m of the twin, from `momentum` to `momentum_end` along half a cosine (Grill et al., BYOL, 2020, arXiv 2006.07733, 3.2)."""
        first, last = self.config.momentum, self.config.momentum_end
        return last - (last - first) * (math.cos(math.pi * step.progress) + 1) / 2

    @torch.no_grad()
    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """The twin follows; then whatever the method keeps."""
        if self.twin is not None:
            follow(self.twin, self.students, self.momentum_at(step))
        self.remember(step, updates)

    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """What the method keeps of a step for later ones: a queue, a centre."""


def _named(name: str, views: Views) -> dict[str, Tensor]:
    return {f"{name}/{view}": each for view, each in enumerate(views)}


def _views(reps: Reps, name: str) -> list[Tensor]:
    return [reps[f"{name}/{view}"] for view in range(sum(key.startswith(f"{name}/") for key in reps))]
