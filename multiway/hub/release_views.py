"""Checkpoints of methods on several views of a picture, as their authors' code writes them: MoCo v1 to v3, SwAV, DINO.

Of two networks the one that is released and measured is taken: MoCo's query encoder, DINO's teacher; the other is left behind and
begins as a copy of it. Queues are left behind too, and begin empty. ImageNet's mean and deviation, 224 pixels out of 256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import Rule, batch_norms, both, laid_out, same
from multiway.hub.timm_names import rules
from multiway.hub.timm_networks import IMAGENET, resnet_of_shapes, vit_of_shapes
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.method import Method
from multiway.methods.moco import Moco, MocoConfig
from multiway.methods.moco_v3 import MocoV3, MocoV3Config
from multiway.methods.swav import Swav, SwavConfig
from multiway.nn.backbone import BackboneConfig
from multiway.nn.mlp_head import DINO, MOCO_V1, MOCO_V2, MOCO_V3, MOCO_V3_PREDICTOR, SWAV, MlpHeadConfig

__all__ = ["from_state"]

_QUERY, _TEACHER, _BASE = "encoder_q.", "teacher.backbone.", "base_encoder."


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """A model from a checkpoint of one of the four, told by its tensors.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    if any(name.startswith(_BASE) for name in theirs):
        method, table = _moco_v3(theirs)
    elif any(name.startswith(_QUERY) for name in theirs):
        method, table = _moco(theirs)
    elif any(name.startswith(_TEACHER) for name in theirs):
        method, table = _dino(theirs)
    else:
        method, table = _swav(theirs)
    report = fill(method, table, theirs, str(file), allow)
    size = getattr(method.config.backbone, "size", IMAGENET.size)
    view = replace(IMAGENET, size=size, shortest=round(size * 256 / 224))
    return Model(method, Processor(view, None), report=report)


def _backbone(theirs: Mapping[str, Tensor], root: str, **more: object) -> BackboneConfig:
    if f"{root}patch_embed.proj.weight" in theirs:
        return vit_of_shapes(theirs, root, **more)
    if f"{root}conv1.weight" not in theirs:
        raise WeightsError(
            f"the checkpoint lacks the tensor {root}conv1.weight; expected a ResNet or a ViT after {root!r}"
        )
    return resnet_of_shapes(theirs, root)


def _head(ours: str, theirs: str) -> list[Rule]:
    """Layers that have the same numbers in both, linear ones and norms."""
    return [*batch_norms((f"{ours}.layers.*", f"{theirs}.*"))]


def _moco(theirs: Mapping[str, Tensor]) -> tuple[Method, Table]:
    """MoCo v1 and v2: `encoder_q.fc` is one layer, or two."""
    backbone = _backbone(theirs, _QUERY)
    single = f"{_QUERY}fc.weight" in theirs
    head, name = (MOCO_V1, f"{_QUERY}fc") if single else (MOCO_V2, f"{_QUERY}fc")
    out = theirs[f"{name}.weight" if single else f"{name}.2.weight"]
    head = replace(head, output=len(out), hidden=0 if single else out.shape[1])
    large = MocoConfig.preset("v1-rn50" if single else "v2-rn50")
    config = replace(
        large, backbone=backbone, projector=head, queue=theirs["queue"].shape[1] if "queue" in theirs else large.queue
    )
    layers = both(("projector.layers.0", name)) if single else _head("projector", name)
    apart = [
        (r"^encoder_k\.", "the momentum twin, which begins anew"),
        (r"^queue(_ptr)?$", "the queue, which begins empty"),
    ]
    return Moco(config), Table("MoCo of its authors", [*rules(backbone, "backbone.", _QUERY), *layers], apart=apart)


def _moco_v3(theirs: Mapping[str, Tensor]) -> tuple[Method, Table]:
    """MoCo v3: 12 heads in each of its ViTs, fixed positions."""
    # Its ViT-S too has 12 heads.
    backbone = _backbone(theirs, _BASE, heads=12, positions="sincos")
    name = next(each for each in ("head", "fc") if any(key.startswith(f"{_BASE}{each}.0.") for key in theirs))
    config = replace(
        MocoV3Config.preset("vit-b"),
        backbone=backbone,
        projector=_sizes(MOCO_V3, theirs, f"{_BASE}{name}"),
        predictor=_sizes(MOCO_V3_PREDICTOR, theirs, "predictor"),
    )
    layers = [*_head("projector", f"{_BASE}{name}"), *_head("predictor", "predictor")]
    apart = [(r"^momentum_encoder\.", "the momentum twin, which begins anew")]
    return MocoV3(config), Table("MoCo v3 of its authors", [*rules(backbone, "backbone.", _BASE), *layers], apart=apart)


def _sizes(head: MlpHeadConfig, theirs: Mapping[str, Tensor], name: str) -> MlpHeadConfig:
    """A head with the number of layers and the widths that a checkpoint's has."""
    linear = [each for key, each in theirs.items() if key.startswith(f"{name}.") and each.ndim == 2]
    return replace(head, layers=len(linear), hidden=len(linear[0]), output=len(linear[-1]))


def _swav(theirs: Mapping[str, Tensor]) -> tuple[Method, Table]:
    """SwAV: prototypes of one number; its head is called a projection head."""
    backbone = _backbone(theirs, "")
    prototypes = theirs["prototypes.weight"]
    head = replace(SWAV, hidden=len(theirs["projection_head.0.weight"]), output=prototypes.shape[1])
    config = replace(SwavConfig.preset("rn50"), backbone=backbone, projector=head, prototypes=len(prototypes))
    layers = [*_head("projector", "projection_head"), *same(("prototypes.weight", "prototypes.weight"))]
    return Swav(config), Table("SwAV of its authors", [*rules(backbone, "backbone."), *layers])


def _dino(theirs: Mapping[str, Tensor]) -> tuple[Method, Table]:
    """DINO's whole checkpoint: teacher, student, centre."""
    backbone = _backbone(theirs, _TEACHER)
    gains, rows = theirs.get("teacher.head.last_layer.weight_g"), theirs["teacher.head.last_layer.weight_v"]
    if gains is not None and not torch.allclose(gains, torch.ones_like(gains)):
        raise WeightsError(
            "the last layer of this DINO has gains that were trained (norm_last_layer=False), and here they are 1; load its backbone alone: "
            "save the entries `teacher.backbone.*` without that beginning"
        )
    layers = [each for key, each in theirs.items() if key.startswith("teacher.head.mlp.") and each.ndim == 2]
    head = replace(DINO, layers=len(layers), hidden=len(layers[0]), bottleneck=len(layers[-1]), output=len(rows))
    found = [
        *rules(backbone, "backbone.", _TEACHER),
        *both(("projector.layers.*", "teacher.head.mlp.*")),
        *same(("projector.last.weight", "teacher.head.last_layer.weight_v")),
        *laid_out("center.value", "dino_loss.center", lambda each: each.flatten(), lambda each: each[None]),
    ]
    table = Table(
        "DINO of its authors", found, empty=[(r"\.last_layer\.weight_g$", "gains of 1")],
        apart=[(r"^student\.", "the student, of which the teacher is the average")],
    )  # fmt: skip
    return Dino(replace(DinoConfig.preset("vit-s-16"), backbone=backbone, projector=head)), table
