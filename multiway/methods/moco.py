"""MoCo: Momentum Contrast for Unsupervised Visual Representation Learning; and its second version.

He, Fan, Wu, Xie, Girshick; CVPR 2020; arXiv 1911.05722. Chen, Fan, Girshick, He; 2020; arXiv 2003.04297. A dictionary look-up: the
query is one view, its key the other's, made by a momentum twin, and the other keys are those of the last batches, kept in a queue
(equations 1 and 2, algorithm 1):

    L = - log exp(q.k+ / tau) / sum over k of exp(q.k / tau)

The queue makes the dictionary large without a large batch; the twin, slow (m = 0.999), makes its keys consistent. v2 takes SimCLR's
head of two layers, its blur and a cosine schedule.

Where the memory is is a choice here, to compare as the paper does (figure 2): `queue`; `batch`, the keys of this batch alone, with
gradient (end to end); `bank`, one row for each picture, where key and negatives are what they were when last seen. Only the queue
needs a twin.

Departures: the queue begins empty instead of random; keys that show the query's own picture, which the paper has among the
negatives, are left out. The paper shuffles keys between GPUs (section 3.3): a query and its key in the same small group of rows
would be told by the group's batch statistics. With one batch norm over the rows of all ranks there are no groups to be told by, and
that is the default; `norm_groups` makes groups, as the authors do on one GPU for CIFAR-10, and shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.losses.info_nce import info_nce
from multiway.methods.method import Losses, Reps, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.siamese import Siamese, SiameseConfig, Views
from multiway.methods.view_health import freshness, pressure
from multiway.nn.backbone import BackboneConfig, resnet
from multiway.nn.bank import MemoryBank
from multiway.nn.batch_norm import in_groups, shuffled
from multiway.nn.mlp_head import MOCO_V1, MOCO_V2, MlpHeadConfig
from multiway.nn.queue import FeatureQueue
from multiway.world import World

__all__ = ["Moco", "MocoConfig"]


@dataclass(frozen=True)
class MocoConfig(SiameseConfig):
    """Sizes of MoCo; for what is not named here see `SiameseConfig`.

    Attributes:
        memory: where the negatives come from.
        queue: K, rows of the queue, or of the bank that each query meets.
        samples: rows of the bank; filled in from the data.
        temperature: tau (v1: 0.07; v2: 0.2).
        norm_groups: parts of the rows whose batch statistics are their own; 0 for one over all rows of all ranks. Needs the queue.
        shuffle: whether keys go through the groups in another order than their queries.
    """

    backbone: BackboneConfig = resnet(18, "cifar", base=16)
    projector: MlpHeadConfig = MOCO_V2
    twin: bool = True
    momentum: float = 0.99
    momentum_end: float = 0.99
    memory: Literal["queue", "batch", "bank"] = "queue"
    queue: int = 4096
    samples: int = 0
    temperature: float = 0.2
    norm_groups: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_groups and self.memory != "queue":
            raise ConfigError(
                f"norm_groups={self.norm_groups} is for keys that go through the network by themselves, as with memory=queue; "
                f"given memory={self.memory}"
            )

    def resolve(self, data: DataInfo) -> MocoConfig:
        """The config with probe and bank as large as the data ask for."""
        return replace(super().resolve(data), samples=self.samples or data.samples)

    @classmethod
    def preset(cls, name: str) -> MocoConfig:
        """`tiny`; `v1-rn50` and `v2-rn50`, the papers'; `v2-rn18-cifar`, the authors' demonstration.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        large = cls(resnet(50), queue=65_536, momentum=0.999, momentum_end=0.999)
        presets = {
            "tiny": cls(),
            "v1-rn50": replace(large, projector=MOCO_V1, temperature=0.07),
            "v2-rn50": large,
            "v2-rn18-cifar": cls(resnet(18, "cifar"), MOCO_V1, temperature=0.1, norm_groups=8),
        }
        return preset_named(name, presets, "MoCo")


class Moco(Siamese):
    """Query encoder, key encoder, and the keys of before."""

    name = "moco"
    config_class = MocoConfig
    config: MocoConfig
    own_state = (*Siamese.own_state, "queue.", "bank.")

    def __init__(self, config: MocoConfig) -> None:
        if config.memory != "queue":
            config = replace(config, twin=False)
        super().__init__(config)
        if config.norm_groups:
            in_groups(self, config.norm_groups)
        width = self.projector.output
        self.queue = FeatureQueue(config.queue, {"key": width}, ("image_id",)) if config.memory == "queue" else None
        self.bank = MemoryBank(max(1, config.samples), width) if config.memory == "bank" else None

    def encode(self, batch: Batch, step: Step) -> Reps:
        """As every method on views; with groups the keys in another order, and put back (section 3.3)."""
        if not (self.config.norm_groups and self.config.shuffle):
            return super().encode(batch, step)
        query, keys, *rest = batch.views
        order, back = shuffled(len(keys), keys.device)
        reps = super().encode(replace(batch, views=(query, keys[order], *rest)), step)
        return {**reps, "target/0": reps["target/0"][back]}

    def online_views(self, views: Views) -> Views:
        """The query's; where keys are of this batch and learn, theirs too."""
        return views[:2] if self.config.memory == "batch" else views[:1]

    def target_views(self, views: Views) -> Views:
        """The key's."""
        return views[1:2]

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """The query among its key and all that is remembered."""
        config, own = self.config, batch.image_id
        assert own is not None and batch.sample_index is not None
        updates: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        if config.memory == "batch":
            found = info_nce(online[0], online[1], world, config.temperature, key_id=own, gradient="global")
            report = pressure(online[0], online[1], config.temperature, own, own)
        elif self.queue is not None:
            kept = self.queue.read()
            found = info_nce(online[0], target[0], world, config.temperature, kept["key"], own, kept["image_id"])
            fresh = {"key": target[0].detach().float(), "image_id": own}
            updates = {name: world.turns(world.gather(each)) for name, each in fresh.items()}
            report = pressure(online[0], kept["key"], config.temperature, own, kept["image_id"])
            report["freshness"] = freshness(target[0], own, kept["key"], kept["image_id"])
            report["queue_age"] = torch.tensor(len(kept["key"]) / len(updates["key"]))
        else:
            assert self.bank is not None
            rows, others = batch.sample_index, self.bank.draw(config.queue, world)
            key, negatives = self.bank.read(rows), self.bank.read(others)
            found = info_nce(online[0], key, world, config.temperature, negatives, rows, others)
            updates = {"key": world.gather(online[0].detach().float()), "sample_index": world.gather(rows)}
            report = pressure(online[0], negatives, config.temperature, rows, others)
            report["freshness"] = F.cosine_similarity(online[0].detach().float(), key).mean()
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({"info_nce": term}, report={"accuracy": found.accuracy, **report}, updates=updates)

    @torch.no_grad()
    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """The new keys enter, the oldest leave."""
        if self.queue is not None:
            self.queue.push({name: updates[name] for name in ("key", "image_id")})
        if self.bank is not None:
            self.bank.write(updates["sample_index"], updates["key"])
