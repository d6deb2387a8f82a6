"""Training steps of SimCLR, SimSiam, BYOL, MoCo and DINO beside the same steps built from lightly's parts, views included.

    make peers && .venv-peers/bin/python benchmarks/view_steps.py                    all contests, fp32 and bf16
    .venv-peers/bin/python benchmarks/view_steps.py --contest dino --size mid --rounds 5 --threads 1 --no-views

A step begins with pictures in memory (ours: uint8 tensors, as the loader keeps them; lightly's: Pillow images, as its transforms take
them), draws the views, and ends with the optimiser. Both sides have a network of the same shape (ResNet-18 with a stem for small
pictures: ours, torchvision's; a ViT: ours, timm's), heads of the same widths, AdamW fused, the same batch and precision. The papers'
views for small pictures on both sides; lightly's run one picture at a time in the training process, as ours run in it. Both keep maps
channels last, which lightly's users have to ask for: `--plain` leaves them as its examples do. `--no-views` times the rest alone, on
the same ready-made views.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "peers"))

import torch
from contest import DTYPES, Contender, Precision, race, training_step
from torch import Tensor, nn
from with_torchvision import ensure_torchvision

from multiway.batch import Batch, ViewSpec
from multiway.data import view_presets
from multiway.data.emoji import Emoji
from multiway.data.view import draw
from multiway.data.views import ViewsSpec, draw_views
from multiway.engine.compiling import compile_networks
from multiway.engine.optim import OptimiserSpec, build_optimiser
from multiway.methods.byol import Byol, ByolConfig
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.method import Method, Step
from multiway.methods.moco import Moco, MocoConfig
from multiway.methods.simclr import SimClr, SimClrConfig
from multiway.methods.simsiam import SimSiam, SimSiamConfig
from multiway.nn.backbone import resnet
from multiway.nn.mlp_head import BYOL, DINO, MOCO_V2, SIMCLR, SIMSIAM, SIMSIAM_PREDICTOR
from multiway.nn.vit import VisionConfig
from multiway.world import World

SIZES = {"tiny": (32, 16, 64), "mid": (32, 64, 64)}  # pixels, channels of the ResNet's first stage, rows
WIDTHS = {"tiny": (128, 4, 2), "mid": (256, 6, 4)}  # of the ViT: width, layers, heads
VIEW = ViewSpec(crop="pad", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Entry:
    """A contest: our method and views; lightly's transform, model, and its loss of a list of views."""

    ours: Callable[[], Method]
    views: ViewsSpec
    transform: Any
    theirs: Callable[[], nn.Module]
    loss: Callable[[Any, list[Tensor]], Tensor]


def their_resnet(base: int) -> nn.Module:
    """torchvision's ResNet-18 with a stem for small pictures and as many channels as asked for."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def __init__(self) -> None:
            super().__init__(BasicBlock, [2, 2, 2, 2])
            self.inplanes = base
            self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(base)
            self.maxpool = nn.Identity()  # type: ignore[assignment]
            for stage in range(4):
                layer = self._make_layer(BasicBlock, base << stage, 2, stride=2 if stage else 1)
                setattr(self, f"layer{stage + 1}", layer)
            self.fc = nn.Identity()  # type: ignore[assignment]

    return Narrow()


def their_vit(pixels: int, width: int, layers: int, heads: int) -> nn.Module:
    """timm's, for pictures of several sides."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        pixels, 4, embed_dim=width, depth=layers, num_heads=heads, num_classes=0, dynamic_img_size=True
    )


def simclr(size: str) -> Entry:
    """SimCLR with NT-Xent over the batch."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    pixels, base, _ = SIZES[size]
    config = SimClrConfig(backbone=resnet(18, "cifar", base), projector=SIMCLR, temperature=0.5)
    criterion = NTXentLoss(temperature=0.5)

    def model() -> nn.Module:
        return nn.Sequential(their_resnet(base), SimCLRProjectionHead(8 * base, 8 * base, 128))

    def loss(net: Any, views: list[Tensor]) -> Tensor:
        return criterion(*(net(each) for each in views))  # type: ignore[no-any-return]

    transform = SimCLRTransform(input_size=pixels, cj_strength=0.5, gaussian_blur=0.0)
    return Entry(lambda: SimClr(config), view_presets.simclr_cifar(pixels), transform, model, loss)


def simsiam(size: str) -> Entry:
    """SimSiam: each view's prediction beside the other's projection, which no gradient reaches."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimCLRTransform

    pixels, base, _ = SIZES[size]
    projector, predictor = replace(SIMSIAM, hidden=256, output=256), replace(SIMSIAM_PREDICTOR, hidden=64)
    config = SimSiamConfig(resnet(18, "cifar", base), projector, predictor)
    criterion = NegativeCosineSimilarity()

    def model() -> nn.Module:
        online = nn.Sequential(their_resnet(base), SimSiamProjectionHead(8 * base, 256, 256))
        return nn.ModuleDict({"online": online, "predictor": SimSiamPredictionHead(256, 64, 256)})

    def loss(net: Any, views: list[Tensor]) -> Tensor:
        first, second = (net["online"](each) for each in views)
        told = net["predictor"](first), net["predictor"](second)
        return 0.5 * (criterion(told[0], second.detach()) + criterion(told[1], first.detach()))  # type: ignore[no-any-return]

    transform = SimCLRTransform(input_size=pixels, cj_strength=0.5, gaussian_blur=0.0)
    return Entry(lambda: SimSiam(config), view_presets.simclr_cifar(pixels), transform, model, loss)


def byol(size: str) -> Entry:
    """BYOL: each view's prediction beside the twin's projection of the other."""
    import copy

    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import SimCLRTransform

    pixels, base, _ = SIZES[size]
    head = replace(BYOL, hidden=512, output=128)
    config = ByolConfig(resnet(18, "cifar", base), head, head)
    criterion = NegativeCosineSimilarity()

    def model() -> nn.Module:
        online = nn.Sequential(their_resnet(base), BYOLProjectionHead(8 * base, 512, 128))
        net = nn.ModuleDict({"online": online, "predictor": BYOLPredictionHead(128, 512, 128)})
        net["twin"] = copy.deepcopy(online).requires_grad_(False)
        return net

    def loss(net: Any, views: list[Tensor]) -> Tensor:
        update_momentum(net["online"], net["twin"], 0.99)
        told = [net["predictor"](net["online"](each)) for each in views]
        with torch.no_grad():
            seen = [net["twin"](each) for each in views]
        return 0.5 * (criterion(told[0], seen[1]) + criterion(told[1], seen[0]))  # type: ignore[no-any-return]

    transform = SimCLRTransform(input_size=pixels, cj_strength=0.5, gaussian_blur=0.0)
    return Entry(lambda: Byol(config), view_presets.simclr_cifar(pixels), transform, model, loss)


def moco(size: str) -> Entry:
    """MoCo v2 with a queue of 4,096."""
    import copy

    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import MoCoProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import MoCoV2Transform

    pixels, base, _ = SIZES[size]
    config = MocoConfig(backbone=resnet(18, "cifar", base), projector=MOCO_V2, queue=4096)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))

    def model() -> nn.Module:
        net = nn.ModuleDict({"online": nn.Sequential(their_resnet(base), MoCoProjectionHead(8 * base, 8 * base, 128))})
        net["twin"] = copy.deepcopy(net["online"]).requires_grad_(False)
        return net

    def loss(net: Any, views: list[Tensor]) -> Tensor:
        update_momentum(net["online"], net["twin"], 0.99)
        query = net["online"](views[0])
        with torch.no_grad():
            key = net["twin"](views[1])
        return criterion(query, key)  # type: ignore[no-any-return]

    transform = MoCoV2Transform(input_size=pixels, min_scale=0.08, gaussian_blur=0.0)
    return Entry(lambda: Moco(config), view_presets.moco_v2_cifar(pixels), transform, model, loss)


def dino(size: str) -> Entry:
    """DINO with two large and four small views."""
    from lightly.loss import DINOLoss
    from lightly.models.modules.heads import DINOProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import DINOTransform

    pixels, _, _ = SIZES[size]
    width, layers, heads = WIDTHS[size]
    tower = VisionConfig(size=pixels, patch=4, width=width, layers=layers, heads=heads)
    config = DinoConfig(backbone=tower, projector=replace(DINO, hidden=512, output=2048, bottleneck=128))
    criterion = DINOLoss(output_dim=2048)

    def branch() -> nn.Module:
        return nn.Sequential(their_vit(pixels, width, layers, heads), DINOProjectionHead(width, 512, 128, 2048))

    def model() -> nn.Module:
        # Its weight normalisation cannot be copied; the twin begins elsewhere, which costs no time.
        return nn.ModuleDict({"online": branch(), "twin": branch().requires_grad_(False)})

    def loss(net: Any, views: list[Tensor]) -> Tensor:
        update_momentum(net["online"], net["twin"], 0.99)
        with torch.no_grad():
            teacher = [net["twin"](each) for each in views[:2]]
        return criterion(teacher, [net["online"](each) for each in views], epoch=1)  # type: ignore[no-any-return]

    views = view_presets.dino(pixels, count=4)
    transform = DINOTransform(pixels, local_crop_size=views.views[-1].size, n_local_views=4)
    return Entry(lambda: Dino(config), views, transform, model, loss)


ENTRIES = {"simclr": simclr, "simsiam": simsiam, "byol": byol, "moco": moco, "dino": dino}


def enter(
    entry: Entry, rows: int, precision: Precision, with_views: bool, plain: bool, compiled: bool = False
) -> list[Contender]:
    """Both sides, each with pictures of its own kind of the same emoji; both by torch.compile where that is asked for."""
    source = Emoji.open("train")
    side = entry.views.views[0].size
    view = replace(VIEW, size=side)
    squares = torch.stack([torch.from_numpy(draw(source.image(n), view, side).copy()) for n in range(rows)])
    from PIL import Image

    pillow = [Image.fromarray(each.numpy()) for each in squares]
    squares = squares.permute(0, 3, 1, 2).contiguous()
    ids = torch.arange(rows)
    torch.manual_seed(0)
    method, theirs = entry.ours(), entry.theirs()
    if not plain:
        theirs = theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(method, Method)
    if compiled:
        compile_networks(method)
        for part in theirs.children():  # a ModuleDict is not called itself
            part.compile()
    world, generator = World(), torch.Generator().manual_seed(0)
    ready = draw_views(squares, torch.rand(rows, entry.views.draws, dtype=torch.float64), entry.views, view)

    def drawn() -> tuple[Tensor, ...]:
        draws = torch.rand(rows, entry.views.draws, dtype=torch.float64, generator=generator)
        return draw_views(squares, draws, entry.views, view)

    def our_loss() -> Tensor:
        batch = Batch(views=drawn() if with_views else ready, image_id=ids, sample_index=ids)
        losses = method.training_step(batch, world, Step(progress=0.5))
        kept.append(losses.updates)
        return losses.total

    def peer_loss() -> Tensor:
        views: list[Tensor] = list(ready)
        if with_views:
            views = [torch.stack(each) for each in zip(*(entry.transform(picture) for picture in pillow), strict=True)]
        return entry.loss(theirs, views)

    kept: list[dict[str, Tensor]] = []
    spec = OptimiserSpec(weight_decay=0.05)
    optimiser = build_optimiser(method, spec, [])
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    own = training_step(method.train(), optimiser, our_loss, precision)

    def our_step() -> float:
        value = own()
        method.after_step(Step(progress=0.5), kept.pop())
        return value

    learn = [each for each in theirs.parameters() if each.requires_grad]
    peer = torch.optim.AdamW(learn, lr=1e-3, weight_decay=0.05, fused=True)
    return [
        Contender(f"lightly {precision}", precision, training_step(theirs.train(), peer, peer_loss, precision)),
        Contender(f"ours {precision}", precision, our_step),
    ]


def main() -> None:
    """Hold the contests and print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--contest", nargs="+", choices=sorted(ENTRIES), default=list(ENTRIES))
    parser.add_argument("--size", nargs="+", choices=sorted(SIZES), default=["tiny"])
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-views", action="store_true")
    parser.add_argument("--compile", action="store_true", help="both sides through torch.compile as well")
    parser.add_argument(
        "--plain", action="store_true", help="lightly's networks as its examples have them, not channels last"
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if not ensure_torchvision():
        raise SystemExit("torchvision and lightly are needed, in an environment of their own: make peers")
    print("| | precision | lightly, ms/picture | ours, ms/picture | faster |\n|---|---|---|---|---|")
    for size in asked.size:
        rows = SIZES[size][2]
        for name in asked.contest:
            entry = ENTRIES[name](size)
            ours, theirs = (sum(p.numel() for p in net().parameters()) for net in (entry.ours, entry.theirs))
            if abs(ours - theirs) > 0.02 * theirs:
                raise SystemExit(f"{name}: {ours:,} parameters against {theirs:,}; the two are not of one shape")
            for precision, compiled in itertools.product(asked.precision, [False, True][: 1 + asked.compile]):
                contenders = enter(entry, rows, precision, not asked.no_views, asked.plain, compiled)
                times = race(contenders, asked.rounds, asked.steps)
                peer, own = f"lightly {precision}", f"ours {precision}"
                cells = [f"{1000 * times.median(each) / rows:.2f}" for each in (peer, own)]
                label = f"{precision}, compiled" if compiled else precision
                print(
                    f"| {name} {size} | {label} | {cells[0]} | {cells[1]} | {times.ratio(peer, own):.2f}x |", flush=True
                )


if __name__ == "__main__":
    main()
