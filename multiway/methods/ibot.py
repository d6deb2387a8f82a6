"""iBOT: Image BERT Pre-Training with Online Tokenizer; and what DINOv2 adds to it.

Zhou, Wei, Wang, Shen, Xie, Yuille, Kong; ICLR 2022; arXiv 2111.07832. Oquab and others; DINOv2: Learning Robust Visual Features
without Supervision; 2023; arXiv 2304.07193. DINO, and beside it masked image modelling whose tokeniser is the teacher itself: some
patches of the student's large views are covered by a token, and of each the student says what the teacher, who sees the view
whole, says of it (equations 2 and 3). With M_i the hidden patches of large view i,

    L = L_dino(class tokens)  +  lambda mean_i 1 / |M_i| sum over p in M_i of  H(P_t(p), P_s(p))

The head is the class token's (section 3.3: shared heads are better at this size), each has a centre of its own, and a patch's
teacher may be warmer. Half of the large views show all of their patches.

DINOv2's additions (its section 4), each an option: heads apart (`heads_apart`), Sinkhorn's balancing in place of centres
(`balance`), and KoLeo on the class tokens of each large view (`koleo`).

`Batch.patch_mask` is (B, T x N) here: the masks of the first large view's patches, then those of the second. Without it this is
DINO, to the bit.

Departures: as many patches are hidden as were drawn, where the code's blocks may end below that. The gains of the heads' last
layers are fixed at 1 (the code frees them for ViT-S).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.config import ConfigError
from multiway.losses.cross_view import cross_view
from multiway.losses.koleo import koleo
from multiway.losses.masked_patches import masked_patches
from multiway.losses.sinkhorn import sinkhorn
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.siamese import Views
from multiway.methods.view_health import ROWS, winners
from multiway.nn.backbone import VIT_TINY, vit
from multiway.nn.center import Center, mean_outputs
from multiway.nn.hidden_patches import cover, pooled
from multiway.nn.mlp_head import DINO, MlpHead, MlpHeadConfig
from multiway.nn.pool import Tower
from multiway.nn.twin import twin_of
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["Ibot", "IbotConfig"]


@dataclass(frozen=True)
class IbotConfig(DinoConfig):
    """Sizes of iBOT; for what is not named here see `DinoConfig`.

    Attributes:
        patch_weight: lambda (lambda_2 of the code).
        patch_temperature: tau_t of patches, in the end; it is warmed up as the class token's is.
        heads_apart: whether patches have a head of their own.
        patch_projector: it, where it is not of the class token's kind.
        balance: what keeps one output from winning: the mean output taken off, or codes of equal use (`losses/sinkhorn.py`).
        centre_of: which patches make the patches' mean output: all, as in iBOT's code, or the hidden ones, as in DINOv2's, which
            spares the teacher's head most of its work.
        koleo: weight of KoLeo for each large view (DINOv2: 0.1); 0 for none.
    """

    backbone: VisionConfig = VIT_TINY
    patch_weight: float = 1.0
    patch_temperature: float = 0.04
    heads_apart: bool = False
    patch_projector: MlpHeadConfig | None = None
    balance: Literal["mean", "sinkhorn"] = "mean"
    centre_of: Literal["all", "hidden"] = "all"
    koleo: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_temperature <= 0:
            raise ConfigError(f"patch_temperature is {self.patch_temperature}; expected more than 0")

    @classmethod
    def preset(cls, name: str) -> IbotConfig:
        """`tiny`; `vit-s-16`, `vit-b-16`, iBOT's; `dinov2-vit-l-16`, the code's short run on ImageNet; `dinov2-vit-l-14`.

        The last has heads apart and Sinkhorn's balancing, but no SwiGLU in its blocks.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        large = cls(
            projector=replace(DINO, output=8192), momentum=0.996, teacher_temperature=0.07, patch_temperature=0.07,
            warm_until=30 / 800, still=1 / 800,
        )  # fmt: skip
        second = replace(
            large, backbone=vit("large", layer_scale=1e-5), projector=DINO, momentum=0.992, warm_until=30 / 100,
            still=1 / 100, centre_of="hidden", koleo=0.1,
        )  # fmt: skip
        presets = {
            "tiny": cls(),
            "vit-s-16": replace(large, backbone=vit("small")),
            "vit-b-16": replace(large, backbone=vit("base"), warm_until=30 / 400, still=1 / 400),
            "dinov2-vit-l-16": second,
            "dinov2-vit-l-14": replace(
                second,
                backbone=vit("large", 14, layer_scale=1e-5),
                projector=replace(DINO, output=131_072, bottleneck=384),
                heads_apart=True,
                patch_projector=replace(DINO, output=131_072),
                balance="sinkhorn",
                momentum=0.994,
                warm_until=30 / 500,
                still=1 / 500,
            ),
        }
        return preset_named(name, presets, "iBOT")


class Ibot(Dino):
    """DINO whose student sees parts, and answers for what it does not see."""

    name = "ibot"
    config_class = IbotConfig  # type: ignore[assignment]
    config: IbotConfig
    own_state = (*Dino.own_state, "patch_center.")
    backbone: VisionTransformer

    def __init__(self, config: IbotConfig) -> None:
        super().__init__(config)
        width = self.backbone.width
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.patch_projector: MlpHead | None = None
        if config.heads_apart:
            self.patch_projector = MlpHead(width, config.patch_projector or config.projector)
            if self.twin is not None:
                self.twin.append(twin_of(self.patch_projector))
        self.patch_center = Center(self._heads(self.students)[1].output, config.center_momentum)

    @property
    def students(self) -> tuple[nn.Module, ...]:
        """The parts that have a twin; the mask token has none, for the teacher sees everything."""
        # The base makes the first twins before there is a head for patches.
        own = getattr(self, "patch_projector", None)
        return super().students if own is None else (*super().students, own)

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        """What the target comes from: the twins, or without any the network itself."""
        return self.students if self.twin is None else tuple(self.twin)

    @staticmethod
    def _heads(parts: Sequence[nn.Module]) -> tuple[MlpHead, MlpHead]:
        """The head of class tokens and that of patches, which may be the same."""
        return parts[1], parts[-1]  # type: ignore[return-value]

    def masks(self, batch: Batch) -> list[Tensor] | None:
        """(B, N) bool of each large view, True at hidden patches; None where the batch hides none.

        Raises:
            ValueError: if the mask is not of these views' patches.
        """
        if batch.patch_mask is None:
            return None
        patch, large = self.config.backbone.patch, batch.views[: self.config.targets]
        counts = [(view.shape[2] // patch) * (view.shape[3] // patch) for view in large]
        if batch.patch_mask.shape[1] != sum(counts):
            raise ValueError(
                f"the mask is of {batch.patch_mask.shape[1]} patches a row and the {len(large)} large views have {counts}; iBOT hides "
                f"patches of each large view, laid side by side: use the recipe `ibot`, with --patches.patch {patch}"
            )
        return list(batch.patch_mask.bool().split(counts, 1))

    def patch_temperature_at(self, step: Step) -> float:
        """tau_t of patches: from the warm one to its own in a line."""
        config = self.config
        share = min(1.0, step.progress / config.warm_until) if config.warm_until > 0 else 1.0
        return config.warm_temperature + share * (config.patch_temperature - config.warm_temperature)

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """As DINO's, but that the student's large views are covered in part; and the patches of both.

        Returns:
            beside `projected/v`, `target/v` and `features`: `class/v` (B, W), what heads stand on, of the large views, and where
            something is hidden `patches/v` and `shown/v` (B, N, W), the student's and the teacher's last patch tokens.
        """
        masks, count = self.masks(batch), self.config.targets
        large, small = batch.views[:count], batch.views[count:]
        teacher, prefix = self.teachers, self.backbone.prefix
        reps: dict[str, Tensor] = {}
        if masks is None:
            features = self._encoded(self.backbone, batch.views)
        else:
            seen = self._towers(self._covered, large, masks)
            features = [each.pooled for each in seen] + self._encoded(self.backbone, small)
            reps |= _numbered("patches", [each.tokens[:, prefix:] for each in seen])
        projected = self._headed(self.projector, features, step)
        reps |= _numbered("projected", projected) | _numbered("class", features[:count])
        if self.predictor is not None:
            reps |= _numbered("predicted", self._headed(self.predictor, projected, step))
        if self.probe is not None:
            reps["features"] = features[0].detach()
        with torch.no_grad():
            if masks is None:
                whole = self._encoded(teacher[0], large)
            else:
                shown = self._towers(teacher[0], large)
                whole = [each.pooled for each in shown]
                reps |= _numbered("shown", [each.tokens[:, prefix:] for each in shown])
            return reps | _numbered("target", self._headed(self._heads(teacher)[0], whole, step))

    def _covered(self, images: Tensor, mask: Tensor) -> Tower:
        """What the student makes of pictures (B, 3, H, W) with patches (B, N) hidden."""
        tokens = cover(self.backbone, images, mask, self.mask_token)
        return pooled(self.backbone, self.backbone.transformer(tokens))

    def _towers(self, look: Callable[..., Tower], *inputs: Sequence[Tensor]) -> list[Tower]:
        """All tokens of each large view; of all views at once where they are of one size and the config lets them go together."""
        if not self.config.together or len({each.shape for each in inputs[0]}) > 1:
            return [look(*each) for each in zip(*inputs, strict=True)]
        tower = look(*(torch.cat(list(each)) for each in inputs))
        count = len(inputs[0])
        return [Tower(*each) for each in zip(tower.pooled.chunk(count), tower.tokens.chunk(count), strict=True)]

    def agree(self, online: Views, target: Views, batch: Batch, world: World, step: Step) -> Losses:
        """DINO's loss on class tokens; with Sinkhorn's codes of all large views together for targets, where so configured."""
        if self.config.balance == "mean":
            return super().agree(online, target, batch, world, step)
        temperature = self.teacher_temperature_at(step)
        codes = sinkhorn(torch.cat(list(target)), world, temperature).chunk(len(target))
        found = cross_view(online, codes, self.config.student_temperature, world)
        return Losses(
            {"distillation": Term(found.loss, chance=found.chance, formula=found.formula)},
            report={
                "accuracy": found.accuracy,
                "target_entropy": found.target_entropy,
                "usage": found.usage,
                "divergence": found.divergence,
                "winners": winners(online[: len(target)]),
                "teacher_temperature": torch.tensor(temperature),
            },
            features={"targets": codes[0][:ROWS]},
        )

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Class tokens, hidden patches, and KoLeo."""
        found = super().losses(reps, pairs, batch, world, step)
        masks = self.masks(batch)
        if masks is None:
            # DDP waits for the gradient of every parameter.
            idle = [self.mask_token, *([] if self.patch_projector is None else self.patch_projector.parameters())]
            found.terms["patches"] = Term(
                0.0 * torch.stack([each.sum() for each in idle]).sum(), formula="nothing hidden"
            )
        else:
            self._add_patches(found, reps, masks, world, step)
        if self.config.koleo > 0:
            large = range(self.config.targets)
            spread = [koleo(reps[f"class/{view}"], world) for view in large]
            value = torch.stack([each.loss for each in spread]).mean()
            weight = self.config.koleo * len(spread)
            found.terms["koleo"] = Term(value, weight, chance=spread[0].chance, formula=spread[0].formula)
            found.report["nearest_distance"] = torch.stack([each.distance for each in spread]).mean()
        return found

    def _add_patches(self, found: Losses, reps: Reps, masks: list[Tensor], world: World, step: Step) -> None:
        """The loss at hidden patches, view by view: no other is put through the student's head."""
        config, hidden = self.config, torch.cat(masks)
        temperature = self.patch_temperature_at(step)
        tokens = torch.cat([reps[f"patches/{view}"] for view in range(len(masks))])
        said = self._heads(self.students)[1](tokens[hidden], still=self.head_is_still(step))
        with torch.no_grad():
            shown, head = (
                torch.cat([reps[f"shown/{view}"] for view in range(len(masks))]),
                self._heads(self.teachers)[1],
            )
            if config.balance == "sinkhorn":
                # Targets are given as logits whose softmax they are.
                codes = sinkhorn(head(shown[hidden]), world, temperature)
                target, center, temperature = codes.log(), None, 1.0
            else:
                every = head(shown if config.centre_of == "all" else shown[hidden])
                found.updates["patch_outputs"] = mean_outputs([every], world)
                target = every[hidden] if config.centre_of == "all" else every
                center = self.patch_center.value if config.centring else None
        loss = masked_patches(said, target, hidden, center, config.student_temperature, temperature)
        found.terms["patches"] = Term(loss.loss, config.patch_weight, chance=loss.chance, formula=loss.formula)
        found.report |= {
            "patch_accuracy": loss.accuracy,
            "patch_target_entropy": loss.target_entropy,
            "hidden": hidden.float().mean(),
        }

    @torch.no_grad()
    def remember(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Both centres follow; with Sinkhorn's balancing there is nothing to keep."""
        if self.config.balance == "mean":
            super().remember(step, updates)
        if "patch_outputs" in updates:
            self.patch_center.follow(updates["patch_outputs"])


def _numbered(name: str, views: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{view}": each for view, each in enumerate(views)}
