"""InstDisc: Unsupervised Feature Learning via Non-Parametric Instance Discrimination.

Wu, Xiong, Yu, Lin; CVPR 2018; arXiv 1805.01978. Every picture is a class of its own, and its weights are its own feature, kept in a
memory bank: there is nothing to learn but the network (equation 2). The softmax over n classes is learnt by telling the picture's
row from m drawn as noise (equations 4 to 7), with its normaliser Z estimated once, and a proximal term smooths what is learnt from
rows that are seen once an epoch (equation 9):

    h(i, v) = P(i|v) / (P(i|v) + m / n),     L = - log h(i, v) - sum over m of log(1 - h(i', v))  +  lambda |v - v_bank|^2

After the step the row moves half of the way to the new feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.batch import Batch, DataInfo
from multiway.losses.nce import log_partition, nce, proximal
from multiway.methods.method import Losses, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.siamese import Siamese, SiameseConfig, Views
from multiway.methods.view_health import pressure
from multiway.nn.backbone import BackboneConfig, resnet
from multiway.nn.bank import MemoryBank
from multiway.nn.mlp_head import MOCO_V1, MlpHeadConfig
from multiway.world import World

__all__ = ["InstDisc", "InstDiscConfig"]


@dataclass(frozen=True)
class InstDiscConfig(SiameseConfig):
    """Sizes of InstDisc; for what is not named here see `SiameseConfig`.

    Attributes:
        samples: n, rows of the bank; filled in from the data.
        noise: m, rows that each picture is told from.
        mix: the old feature's share in a row.
        temperature: tau (0.07; on CIFAR-10 the code has 0.1).
        proximal: lambda.
        keep_z: share of Z that a step leaves as it was; at 1 it is the first batch's for good, as published. That suits a bank which
            many batches fill. Of a few thousand rows all take on the common direction of new features within steps, and noise
            that was unlikely under the first Z no longer is: the loss only grows.
    """

    backbone: BackboneConfig = resnet(18, "cifar", base=16)
    projector: MlpHeadConfig = MOCO_V1
    targets: int = 0
    samples: int = 0
    noise: int = 1024
    mix: float = 0.5
    temperature: float = 0.1
    proximal: float = 0.0
    keep_z: float = 1.0

    def resolve(self, data: DataInfo) -> InstDiscConfig:
        """The config with probe and bank as large as the data ask for."""
        return replace(super().resolve(data), samples=self.samples or data.samples)

    @classmethod
    def preset(cls, name: str) -> InstDiscConfig:
        """`tiny`; `rn50` and `rn18-cifar`, the published ones.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        presets = {
            "tiny": cls(keep_z=0.9),
            "rn18-cifar": cls(resnet(18, "cifar"), noise=4096),
            "rn50": cls(resnet(50), noise=4096, temperature=0.07, proximal=30.0),
        }
        return preset_named(name, presets, "InstDisc")


class InstDisc(Siamese):
    """A network and a bank of what it said before."""

    name = "instdisc"
    config_class = InstDiscConfig
    config: InstDiscConfig
    own_state = (*Siamese.own_state, "bank.", "log_z")
    log_z: Tensor

    def __init__(self, config: InstDiscConfig) -> None:
        if config.samples < 1:
            raise ValueError("the bank has no rows yet; call config.resolve(data_info) first")
        super().__init__(config)
        self.bank = MemoryBank(config.samples, self.projector.output, config.mix)
        self.register_buffer("log_z", torch.full((), float("nan")))

    def online_views(self, views: Views) -> Views:
        """One is enough: what it is to agree with is in the bank."""
        return views[:1]

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """The picture's row against rows drawn as noise."""
        config, rows = self.config, batch.sample_index
        assert rows is not None
        own = self.bank.read(rows)
        drawn = self.bank.draw(config.noise, world, len(rows))
        noise = self.bank.read(drawn)
        estimated = log_partition(online[0], own, noise, config.samples, world, config.temperature)
        log_z = torch.where(self.log_z.isnan(), estimated, self.log_z)
        found = nce(online[0], own, noise, config.samples, log_z, config.temperature)
        terms = {"nce": Term(found.loss, chance=found.chance, formula=found.formula)}
        if config.proximal > 0:
            terms["proximal"] = Term(proximal(online[0], own), config.proximal)
        stale = F.cosine_similarity(online[0].detach().float(), own).mean()
        updates = {"rows": world.gather(rows), "features": world.gather(online[0].detach().float())}
        return Losses(
            terms,
            report={
                "accuracy": found.accuracy,
                "freshness": stale,
                **pressure(online[0], noise, config.temperature, rows, drawn),
            },
            updates={**updates, "log_z": estimated.detach()[None]},
        )

    @torch.no_grad()
    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Rows move towards the new features; Z is what the first batch said, or follows."""
        self.bank.write(updates["rows"], updates["features"])
        new, keep = updates["log_z"].mean(), self.config.keep_z
        self.log_z.copy_(torch.where(self.log_z.isnan(), new, self.log_z.lerp(new, 1.0 - keep)))
