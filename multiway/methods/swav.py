"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin; NeurIPS 2020; arXiv 2006.09882. Features are compared by the cluster that they fall
into. The code q of a view is its assignment to K prototypes, made even over the batch by Sinkhorn and Knopp's algorithm (equations 3
to 5); every other view has to predict it from its own scores (equations 1 and 2):

    L = mean over views t of the first two, s != t of  - sum_k q_t^k log softmax_k(z_s C / tau)

Small crops beside two large ones make more pairs at little cost (multi-crop, section 3.2). With small batches the features of the
last batches help to make assignments even (`queue`, section 4.4). Prototypes are of length 1 and learn nothing at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.losses.sinkhorn import sinkhorn
from multiway.losses.swapped import swapped
from multiway.methods.method import Losses, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.siamese import Siamese, SiameseConfig, Views
from multiway.methods.view_health import winners
from multiway.nn.backbone import BackboneConfig, resnet
from multiway.nn.mlp_head import SWAV, MlpHeadConfig
from multiway.nn.prototypes import Prototypes
from multiway.nn.queue import FeatureQueue
from multiway.world import World

__all__ = ["Swav", "SwavConfig"]


@dataclass(frozen=True)
class SwavConfig(SiameseConfig):
    """Sizes of SwAV; for what is not named here see `SiameseConfig`.

    Attributes:
        prototypes: K.
        temperature: tau, of predictions.
        epsilon: of the assignments' entropy; small ones are sharp.
        iterations: of Sinkhorn's algorithm.
        queue: features of before that assignments are made with, of each of the two views; 0 for none.
        queue_from: share of the training before which the queue is only filled.
        still: share of the training during which prototypes do not learn (the code: one epoch).
    """

    backbone: BackboneConfig = resnet(18, "cifar", base=16)
    projector: MlpHeadConfig = replace(SWAV, hidden=256)
    prototypes: int = 256
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    queue: int = 0
    queue_from: float = 0.15
    still: float = 0.02

    @classmethod
    def preset(cls, name: str) -> SwavConfig:
        """`tiny`; `rn50`, the paper's; `rn50-256`, with its queue for batches of 256; `rn18-cifar`.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        large = cls(resnet(50), SWAV, prototypes=3000, still=1 / 400)
        presets = {
            "tiny": cls(),
            "rn18-cifar": cls(resnet(18, "cifar"), SWAV, prototypes=100),
            "rn50": large,
            "rn50-256": replace(large, queue=3840, queue_from=15 / 200, still=1 / 200),
        }
        return preset_named(name, presets, "SwAV")


class Swav(Siamese):
    """One network, prototypes, and codes to predict."""

    name = "swav"
    config_class = SwavConfig
    config: SwavConfig
    own_state = (*Siamese.own_state, "queues.")
    queues: nn.ModuleList

    def __init__(self, config: SwavConfig) -> None:
        super().__init__(config)
        width = self.projector.output
        self.prototypes = Prototypes(width, config.prototypes)
        self.queues = nn.ModuleList(
            FeatureQueue(config.queue, {"z": width}) for _ in range(config.targets if config.queue else 0)
        )

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """Each view's scores against the codes of the others."""
        config = self.config
        z = [F.normalize(each.float(), dim=-1) for each in online]
        scores = [self.prototypes(each, still=step.progress < config.still) for each in z]
        codes = [self._codes(view, scores[view], step, world) for view in range(config.targets)]
        found = swapped(scores, codes, world, config.temperature)
        return Losses(
            {"swapped": Term(found.loss, chance=found.chance, formula=found.formula)},
            report={
                "accuracy": found.accuracy,
                "target_entropy": found.target_entropy,
                "usage": found.usage,
                "divergence": found.divergence,
                "winners": winners(scores[: config.targets]),
            },
            updates={f"z/{view}": world.turns(world.gather(z[view].detach())) for view in range(len(self.queues))},
        )

    @torch.no_grad()
    def _codes(self, view: int, scores: Tensor, step: Step, world: World) -> Tensor:
        """(B, K) assignments, even over the batch and what the queue adds to it."""
        config, rows = self.config, len(scores)
        if len(self.queues) and step.progress >= config.queue_from and len(kept := self._kept(view)):
            # The ranks share the queue's rows out, so that each is counted once.
            own = kept[world.rank :: world.size][: len(kept) // world.size]
            scores = torch.cat([scores, self.prototypes(own)])
        return sinkhorn(scores, world, config.epsilon, config.iterations)[:rows]

    def _kept(self, view: int) -> Tensor:
        queue = self.queues[view]
        assert isinstance(queue, FeatureQueue)
        return queue.read()["z"]

    @torch.no_grad()
    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Prototypes go back to length 1; features enter the queue."""
        self.prototypes.normalise()
        for view, queue in enumerate(self.queues):
            assert isinstance(queue, FeatureQueue)
            queue.push({"z": updates[f"z/{view}"]})
