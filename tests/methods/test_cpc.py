"""CPC of pictures: patches by themselves, contexts that cannot see below, and what is predicted."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multiway.batch import Batch, DataInfo
from multiway.config import from_json, to_json
from multiway.methods.cpc import Cpc, CpcConfig, RowContext, overlapping
from multiway.methods.method import Step
from multiway.nn.resnet import ResNetConfig
from multiway.world import World

WORLD = World()
SMALL = CpcConfig(ResNetConfig(depths=(1, 1), base=4, stem="cifar"), patch=4, context=6, layers=2, steps=2)


def built(**changed: object) -> Cpc:
    torch.manual_seed(0)
    return Cpc(replace(SMALL, **changed).resolve(DataInfo(classes=3))).train()


def batch(rows: int = 3, side: int = 12) -> Batch:
    make = torch.Generator().manual_seed(1)
    return Batch(
        views=(torch.randn(rows, 3, side, side, generator=make),),
        labels=torch.arange(rows) % 3,
        image_id=torch.arange(rows),
        sample_index=torch.arange(rows),
    )


def test_patches_overlap_by_half() -> None:
    """7 x 7 patches of 64 in 256 pixels; of 8 in 32."""
    images = torch.randn(2, 3, 32, 32)
    patches = overlapping(images, 8)
    assert patches.shape == (2, 7, 7, 3, 8, 8)
    assert torch.equal(patches[1, 3, 5], images[1, :, 12:20, 20:28])
    assert overlapping(torch.zeros(1, 3, 256, 256), 64).shape[1:3] == (7, 7)
    with pytest.raises(ValueError, match="30x30 pixels cannot be cut into patches of 8 that overlap by 4"):
        overlapping(torch.zeros(1, 3, 30, 30), 8)


def test_a_patch_is_encoded_by_itself() -> None:
    """Neither other patches nor other pictures have a say: there is no norm over the batch."""
    method, images = built(), batch().views[0]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in method.modules())
    latents = method.latents(images)
    alone = method.encoder(overlapping(images, 4)[1, 2, 3][None]).pooled
    torch.testing.assert_close(latents[1, 2, 3], alone[0])
    other = images.clone()
    other[1, :, 4:6] += 1.0  # two rows of pixels, which patches of the grid's rows 1 and 2 see
    moved = (method.latents(other) - latents).abs().sum(-1) > 1e-5
    assert moved.any(2).nonzero().tolist() == [[1, 1], [1, 2]]


def test_a_context_sees_its_row_and_those_above_as_far_as_it_reaches() -> None:
    torch.manual_seed(0)
    context = RowContext(5, 8, layers=2)
    latents = torch.randn(1, 6, 5, 5)
    first = context(latents)
    for row in range(6):
        other = latents.clone()
        other[0, row] += 1.0
        changed = (context(other) - first).abs().sum((0, 2, 3)) > 0
        assert changed.nonzero()[:, 0].tolist() == [each for each in range(row, row + 3) if each < 6]
    other = latents.clone()
    other[0, 2, 2] += 1.0
    columns = ((context(other) - first).abs().sum((0, 1, 3)) > 0).nonzero()[:, 0].tolist()
    assert columns == [0, 1, 2, 3, 4]


def test_the_loss_is_equation_4_over_rows_below() -> None:
    method, rows = built(), batch()
    reps = method.encode(rows, Step())
    latents, context = reps["latents"], reps["context"]
    height, width = latents.shape[1:3]
    total = []
    for k in (1, 2):
        below = latents[:, k:].reshape(-1, latents.shape[-1])
        where = {(b, i, j): n for n, (b, i, j) in enumerate(
            (b, i, j) for b in range(3) for i in range(k, height) for j in range(width)
        )}  # fmt: skip
        found = []
        for b in range(3):
            for i in range(height - k):
                for j in range(width):
                    scores = below @ (method.weights[k - 1] @ context[b, i, j])
                    found.append(F.cross_entropy(scores[None], torch.tensor([where[b, i + k, j]])))
        total.append(torch.stack(found).mean())
    losses = method.losses(reps, {}, rows, WORLD, Step())
    torch.testing.assert_close(losses.terms["cpc"].value, torch.stack(total).mean())
    assert set(losses.report) == {
        *(f"{what}_{k}" for what in ("accuracy", "information") for k in (1, 2)),
        "probe_accuracy",
    }


def test_all_learn_and_the_probe_leaks_nothing() -> None:
    found = []
    for classes in (3, 0):
        torch.manual_seed(0)
        method = Cpc(replace(SMALL, probe=classes)).train()
        method.training_step(batch(), WORLD, Step()).total.backward()
        assert all(each.grad is not None for each in method.parameters())
        found.append(method)
    for name, each in found[1].named_parameters():
        assert torch.equal(each.grad, dict(found[0].named_parameters())[name].grad), name  # type: ignore[arg-type]


def test_features_are_the_mean_of_all_patches() -> None:
    method = built().eval()
    images = batch().views[0]
    with torch.no_grad():
        encoded, latents = method.encode_image(images), method.latents(images)
    torch.testing.assert_close(encoded.embedding, F.normalize(latents.mean((1, 2)), dim=1))
    assert encoded.tokens.shape == (3, 25, 8)  # type: ignore[union-attr]


def test_what_cannot_be_predicted_is_named() -> None:
    with pytest.raises(ValueError, match="have 3 rows of patches and 3 steps are to be predicted"):
        built(steps=3).encode(batch(side=8), Step())
    with pytest.raises(ValueError, match="an even patch"):
        replace(SMALL, patch=5)
    with pytest.raises(KeyError, match="there are: tiny, rn101"):
        CpcConfig.preset("nothing")


def test_the_papers_size() -> None:
    config = CpcConfig.preset("rn101")
    assert from_json(CpcConfig, to_json(config)) == config
    with torch.device("meta"):
        method = Cpc(config)
        grid = method.latents(torch.zeros(1, 3, 256, 256))
    assert grid.shape == (1, 7, 7, 1024)
    assert method.weights.shape == (5, 1024, 1024)
    # ResNet-101 without its last stage and classifier: 44,549,160 less 14,964,736 and 2,049,000.
    assert sum(each.numel() for each in method.encoder.parameters()) == 44_549_160 - 14_964_736 - 2_049_000
