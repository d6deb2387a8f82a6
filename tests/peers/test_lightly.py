"""Self-supervised losses and heads equal lightly's: values, gradients, weights copied. Runs in the peers' environment.

Where lightly departs from the papers' code that is named here: its heads have other biases, its prototypes one of their own, its
SimCLR head's last normalisation a shift.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip(
        "torchvision, which lightly needs, is not installed here; run `make test-peers`", allow_module_level=True
    )
lightly_loss = pytest.importorskip("lightly.loss", reason="lightly is not installed here; run `make test-peers`")

from lightly.loss.hypersphere_loss import HypersphereLoss  # noqa: E402
from lightly.loss.swav_loss import sinkhorn as their_sinkhorn  # noqa: E402
from lightly.models.modules import heads as theirs  # noqa: E402

from multiway.losses.info_nce import info_nce  # noqa: E402
from multiway.losses.koleo import koleo  # noqa: E402
from multiway.losses.masked_patches import masked_patches  # noqa: E402
from multiway.losses.nt_xent import nt_xent  # noqa: E402
from multiway.losses.regress import regress  # noqa: E402
from multiway.losses.self_distillation import self_distillation  # noqa: E402
from multiway.losses.sinkhorn import sinkhorn  # noqa: E402
from multiway.losses.swapped import swapped  # noqa: E402
from multiway.losses.uniformity import alignment, uniformity  # noqa: E402
from multiway.nn import mlp_head  # noqa: E402
from multiway.nn.center import Center, mean_outputs  # noqa: E402
from multiway.nn.mlp_head import MlpHead  # noqa: E402
from multiway.nn.prototypes import Prototypes  # noqa: E402
from multiway.world import World  # noqa: E402

ALONE = World()


def draw(count: int, rows: int = 12, width: int = 16, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator).requires_grad_() for _ in range(count)]


def same(ours: torch.Tensor, peers: torch.Tensor, leaves: list[torch.Tensor], rtol: float = 1e-4) -> None:
    """Equal values and gradients."""
    torch.testing.assert_close(ours, peers.squeeze(), rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(peers, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent(temperature: float) -> None:
    a, b = draw(2)
    same(nt_xent([a, b], ALONE, temperature).loss, lightly_loss.NTXentLoss(temperature)(a, b), [a, b])


def test_info_nce_against_a_queue() -> None:
    query, key = draw(2)
    theirs = lightly_loss.NTXentLoss(0.1, memory_bank_size=(40, 16))
    negatives = theirs.memory_bank.bank.detach().clone()
    negatives = negatives if negatives.shape == (40, 16) else negatives.t()
    found = info_nce(query, key.detach(), ALONE, 0.1, negatives)
    same(found.loss, theirs(query, key.detach()), [query])
    assert found.formula == "ln 41"


def test_negative_cosine() -> None:
    p, z = draw(2), draw(2, seed=1)
    criterion = lightly_loss.NegativeCosineSimilarity()
    peers = 0.5 * (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach()))
    same(regress(p, z, ALONE, "cosine").loss, peers, p)
    torch.testing.assert_close(regress(p, z, ALONE, "byol").loss, 2 + 2 * peers)


@pytest.mark.parametrize("queue", [0, 9])
@pytest.mark.parametrize("small", [0, 3])
def test_swav(small: int, queue: int) -> None:
    scores = [F.normalize(each, dim=1) for each in draw(2 + small, 12, 20)]
    scores = [each.detach().requires_grad_() for each in scores]
    kept = [F.normalize(each, dim=1).detach() for each in draw(2, queue, 20, seed=5)] if queue else None
    peers = lightly_loss.SwaVLoss()(scores[:2], scores[2:], kept)
    codes = [
        sinkhorn(torch.cat([each.detach(), kept[n]]) if kept else each, ALONE)[:12] for n, each in enumerate(scores[:2])
    ]
    torch.testing.assert_close(codes[0] if not kept else sinkhorn(scores[0], ALONE), their_sinkhorn(scores[0].detach()))
    same(swapped(scores, codes, ALONE).loss, peers, scores)


def test_dino_over_several_steps() -> None:
    """The centre too: theirs moves within the loss, ours after it, so that each step sees the same."""
    criterion, center = lightly_loss.DINOLoss(20, teacher_temp=0.05), Center(20, 0.9)
    for step in range(3):
        student, teacher = draw(5, 8, 20, seed=step), [each.detach() for each in draw(2, 8, 20, seed=50 + step)]
        found = self_distillation(student, teacher, center.value, ALONE, 0.1, 0.05)
        same(found.loss, criterion(teacher, student), student)
        center.follow(mean_outputs(teacher, ALONE))
        torch.testing.assert_close(center.value, criterion.center.flatten())


def test_ibot() -> None:
    mask = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[2] = False
    hidden = int(mask.sum())
    (student,), teacher = draw(1, hidden, 20), draw(1, hidden, 20, seed=1)[0].detach()
    criterion = lightly_loss.IBOTPatchLoss(20, 0.07, 0.1)
    criterion.center.center.copy_(torch.linspace(-1, 1, 20)[None])
    found = masked_patches(student, teacher, mask.flatten(1), torch.linspace(-1, 1, 20), 0.1, 0.07)
    same(found.loss, criterion(teacher, student, mask), [student])


def test_koleo() -> None:
    x = draw(1)
    same(koleo(x[0], ALONE).loss, lightly_loss.KoLeoLoss()(x[0]), x)


def test_alignment_and_uniformity() -> None:
    a, b = (each.detach() for each in draw(2))
    for t in (1.0, 2.0):
        even = (uniformity(a, ALONE, t) + uniformity(b, ALONE, t)) / 2
        torch.testing.assert_close(alignment(a, b, ALONE) + even, HypersphereLoss(t)(a, b), rtol=1e-5, atol=1e-5)


HEADS = {
    "simclr": (replace(mlp_head.SIMCLR, output=8, output_norm="batch"), lambda: theirs.SimCLRProjectionHead(16, 16, 8)),
    "simclr v2": (
        replace(mlp_head.SIMCLR_V2, output=8, output_norm="batch"),
        lambda: theirs.SimCLRProjectionHead(16, 16, 8, num_layers=3),
    ),
    "moco v2": (replace(mlp_head.MOCO_V2, output=8), lambda: theirs.MoCoProjectionHead(16, 16, 8)),
    "moco v3": (
        replace(mlp_head.MOCO_V3, hidden=24, output=8, output_norm="batch"),
        lambda: theirs.MoCoProjectionHead(16, 24, 8, num_layers=3, batch_norm=True),
    ),
    "byol": (
        replace(mlp_head.BYOL, hidden=24, output=8, bias=False, output_bias=True),
        lambda: theirs.BYOLProjectionHead(16, 24, 8),
    ),
    "simsiam": (
        replace(mlp_head.SIMSIAM, output=16),
        lambda: theirs.SimSiamProjectionHead(16, 16, 16),
    ),
    "simsiam predictor": (
        replace(mlp_head.SIMSIAM_PREDICTOR, hidden=4),
        lambda: theirs.SimSiamPredictionHead(16, 4, 16),
    ),
    "swav": (replace(mlp_head.SWAV, hidden=24, output=8, bias=False), lambda: theirs.SwaVProjectionHead(16, 24, 8)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str) -> None:
    """Layer for layer, so that weights go over by name; in training, and then with the running statistics it made."""
    config, build = HEADS[name]
    peer, ours = build(), MlpHead(16, config)
    ours.load_state_dict(peer.state_dict())
    x = draw(1)[0]
    same(ours(x).square().mean(), peer(x).square().mean(), [x])
    torch.testing.assert_close(ours.eval()(x), peer.eval()(x))


def test_dinos_head() -> None:
    peer = theirs.DINOProjectionHead(16, 24, 6, 30)
    ours = MlpHead(16, replace(mlp_head.DINO, hidden=24, bottleneck=6, output=30))
    state = peer.state_dict()
    state["last.weight"] = state.pop("last_layer.weight_v")
    assert bool((state.pop("last_layer.weight_g") == 1).all())
    ours.load_state_dict(state)
    x = draw(1)[0]
    torch.testing.assert_close(ours(x), peer(x))
    same(ours(x).square().mean(), peer(x).square().mean(), [x])
    # Both begin the same way.
    spreads = [
        head.layers[0].weight.std().item() for head in (MlpHead(256, mlp_head.DINO), theirs.DINOProjectionHead(256))
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02)


def test_prototypes() -> None:
    peer, ours = theirs.SwaVPrototypes(16, 30), Prototypes(16, 30)
    with torch.no_grad():
        peer.heads[0].bias.zero_()  # the papers' code has none
        ours.weight.copy_(peer.heads[0].weight)
    peer.normalize()
    ours.normalise()
    x = F.normalize(draw(1)[0].detach(), dim=1)
    torch.testing.assert_close(ours(x), peer(x))
