"""CMC: Contrastive Multiview Coding.

Tian, Krishnan, Isola; ECCV 2020; arXiv 1906.05849. What several sensors say of one scene belongs together: each view has an
encoder of its own, and the feature of one view has to find that of the same picture in another's memory bank, among noise
(sections 3.2 and 3.4, `losses/nce.py`). With L(i, j) = L_i->j + L_j->i for views i and j, of M (equations 6 and 7):

    core         L = sum over j > 1 of L(1, j)              the first view is the one that counts
    full graph   L = sum over i < j of L(i, j)

Views here are channels of one crop (`nn/channels.py`): L and ab of Lab, as in the paper's experiments on ImageNet; edges and a
coarse copy can be added. A picture's features are those of all encoders, one after the other.

Departures: encoders are post-activation ResNets with batch norm (`nn/resnet.py`); Z is estimated for each ordered pair of views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.losses.nce import log_partition, nce
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.probed import add_probe, probe_of
from multiway.nn.backbone import resnet
from multiway.nn.bank import MemoryBank
from multiway.nn.channels import CHANNELS, channels
from multiway.nn.mlp_head import MOCO_V1, MlpHead, MlpHeadConfig
from multiway.nn.resnet import ResNet, ResNetConfig
from multiway.world import World

__all__ = ["Cmc", "CmcConfig"]


@dataclass(frozen=True)
class CmcConfig:
    """Sizes of CMC.

    Attributes:
        views: names of `nn.channels.CHANNELS`, the core view first; two or more.
        graph: which pairs of views are contrasted.
        backbone: each view's encoder, but for its number of channels.
        projector: each view's head.
        samples: n, rows of each bank; filled in from the data.
        noise: m, rows that each picture is told from (4,096 in the code; 16,384 in the paper).
        mix: the old feature's share in a row.
        temperature: tau.
        probe: classes of the probe; 0 for none. Filled in from the data.
    """

    views: tuple[str, ...] = ("l", "ab")
    graph: Literal["core", "full"] = "full"
    backbone: ResNetConfig = resnet(18, "cifar", base=16)
    projector: MlpHeadConfig = MOCO_V1
    samples: int = 0
    noise: int = 1024
    mix: float = 0.5
    temperature: float = 0.07
    probe: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.views if name not in CHANNELS]
        if unknown or len(set(self.views)) != len(self.views) or len(self.views) < 2:
            raise ValueError(f"views are {self.views}; expected two or more different ones of {', '.join(CHANNELS)}")

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Ordered pairs (i, j): the feature of view i asks j's bank."""
        count = len(self.views)
        either = [(0, j) for j in range(1, count)] if self.graph == "core" else list(combinations(range(count), 2))
        return tuple(pair for i, j in either for pair in ((i, j), (j, i)))

    def resolve(self, data: DataInfo) -> CmcConfig:
        """The config with probe and banks as large as the data ask for."""
        return replace(self, samples=self.samples or data.samples, probe=self.probe or data.classes)

    @classmethod
    def preset(cls, name: str) -> CmcConfig:
        """`tiny`; `rn50`, a ResNet-50 for L and another for ab, as the code has them; `rn50-half`, half as wide.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        presets = {
            "tiny": cls(),
            "rn50": cls(backbone=resnet(50), noise=16_384),
            "rn50-half": cls(backbone=resnet(50, base=32), noise=16_384),
        }
        return preset_named(name, presets, "CMC")


class Cmc(Method):
    """An encoder, a head and a bank for each view."""

    name = "cmc"
    config_class = CmcConfig
    config: CmcConfig
    own_state = ("banks.", "log_z", "probe.")
    log_z: Tensor

    def __init__(self, config: CmcConfig) -> None:
        if config.samples < 1:
            raise ValueError("the banks have no rows yet; call config.resolve(data_info) first")
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({name: _encoder(config.backbone, CHANNELS[name]) for name in config.views})
        widths = [int(encoder.width) for encoder in self.encoders.values()]  # type: ignore[arg-type]
        self.width = sum(widths)
        heads = [MlpHead(width, config.projector) for width in widths]
        self.projectors = nn.ModuleDict(dict(zip(config.views, heads, strict=True)))
        self.banks = nn.ModuleDict(
            {
                name: MemoryBank(config.samples, head.output, config.mix)
                for name, head in zip(config.views, heads, strict=True)
            }
        )
        self.probe = probe_of(self.width, config.probe)
        self.register_buffer("log_z", torch.full((len(config.pairs),), torch.nan))

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) in [0, 1] -> all encoders' vectors, each on its unit sphere, end to end and scaled to length 1 (B, W); and
        their places (B, h x w, W).
        """
        towers = self._towers(images)
        embedding = torch.cat([F.normalize(pooled.float(), dim=-1) for pooled, _ in towers], 1)
        return Encoded(embedding / len(towers) ** 0.5, torch.cat([tokens for _, tokens in towers], 2))

    def _towers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        seen = channels(images, self.config.views)
        return [self.encoders[name](view) for name, view in zip(self.config.views, seen, strict=True)]

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Of each view `projected/name` (B, D), and `features` (B, W) for the probe."""
        images = batch.views[0] if batch.views else batch.images
        if images is None:
            raise ValueError("CMC learns from pictures and the batch has none; use the recipe `cmc`")
        pooled = [each for each, _ in self._towers(images)]
        reps = {
            f"projected/{name}": self.projectors[name](each)
            for name, each in zip(self.config.views, pooled, strict=True)
        }
        if self.probe is not None:
            reps["features"] = torch.cat(pooled, 1).detach()
        return reps

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Each view's features against other views' banks, in both directions."""
        config, rows = self.config, batch.sample_index
        assert rows is not None
        features = {name: reps[f"projected/{name}"] for name in config.views}
        # One draw for all pairs, as in the code.
        drawn = self._bank(0).draw(config.noise, world, len(rows))
        found, estimates = Losses({}), []
        for number, (i, j) in enumerate(config.pairs):
            query, bank = features[config.views[i]], self._bank(j)
            own, noise = bank.read(rows), bank.read(drawn)
            estimate = log_partition(query, own, noise, config.samples, world, config.temperature)
            log_z = torch.where(self.log_z[number].isnan(), estimate, self.log_z[number])
            scored = nce(query, own, noise, config.samples, log_z, config.temperature)
            name = f"{config.views[i]}_to_{config.views[j]}"
            found.terms[name] = Term(scored.loss, chance=scored.chance, formula=scored.formula)
            found.report[f"{name}_accuracy"] = scored.accuracy
            estimates.append(estimate)
        for number, (name, each) in enumerate(features.items()):
            fresh = each.detach().float()
            found.features[name] = fresh
            found.report[f"{name}_freshness"] = F.cosine_similarity(fresh, self._bank(number).read(rows)).mean()
            found.updates[f"features/{name}"] = world.gather(fresh)
        found.updates |= {"rows": world.gather(rows), "log_z": torch.stack(estimates).detach()[None]}
        add_probe(found, self.probe, reps.get("features"), batch)
        return found

    def _bank(self, view: int) -> MemoryBank:
        return self.banks[self.config.views[view]]  # type: ignore[return-value]

    @torch.no_grad()
    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Rows move towards the new features; each Z is what the first batch said."""
        for number, name in enumerate(self.config.views):
            self._bank(number).write(updates["rows"], updates[f"features/{name}"])
        if bool(self.log_z.isnan().any()):
            self.log_z.copy_(updates["log_z"].mean(0))


def _encoder(config: ResNetConfig, count: int) -> ResNet:
    """A ResNet of pictures with so many channels."""
    tower = ResNet(config)
    first = tower.stem[0]
    assert isinstance(first, nn.Conv2d)
    own = nn.Conv2d(count, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(own.weight, mode="fan_out", nonlinearity="relu")
    tower.stem[0] = own
    return tower
