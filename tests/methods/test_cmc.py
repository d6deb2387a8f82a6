"""CMC: which views meet which, what each encoder sees, and the banks."""

from dataclasses import replace

import pytest
import torch

from multiway.batch import Batch, DataInfo
from multiway.config import from_json, to_json
from multiway.losses.nce import nce
from multiway.methods.cmc import Cmc, CmcConfig
from multiway.methods.method import Step
from multiway.nn.backbone import resnet
from multiway.nn.channels import CHANNELS
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.world import World

WORLD, ALL = World(), tuple(CHANNELS)


def built(**changed: object) -> Cmc:
    torch.manual_seed(0)
    config = CmcConfig(backbone=resnet(18, "cifar", base=4), projector=MlpHeadConfig(layers=1, output=8), noise=6)
    return Cmc(replace(config, **changed).resolve(DataInfo(samples=20, classes=3))).train()


def batch(rows: int = 6) -> Batch:
    make = torch.Generator().manual_seed(1)
    return Batch(
        views=(torch.rand(rows, 3, 16, 16, generator=make),),
        labels=torch.arange(rows) % 3,
        image_id=torch.arange(rows),
        sample_index=torch.arange(rows) + 5,
    )


def test_the_core_meets_each_and_in_the_full_graph_all_meet() -> None:
    core, full = CmcConfig(views=ALL, graph="core"), CmcConfig(views=ALL)
    assert core.pairs == ((0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0))
    assert len(full.pairs) == 4 * 3 == len(set(full.pairs))
    assert set(built(views=ALL, graph="core").training_step(batch(), WORLD, Step()).terms) == {
        *("l_to_ab", "ab_to_l", "l_to_sobel", "sobel_to_l", "l_to_coarse", "coarse_to_l"), "probe",
    }  # fmt: skip
    for wrong in (("l",), ("l", "l"), ("l", "depth")):
        with pytest.raises(ValueError, match="expected two or more different ones of l, ab, sobel, coarse"):
            CmcConfig(views=wrong)


def test_each_direction_asks_the_other_views_bank() -> None:
    method, rows = built(), batch()
    torch.manual_seed(3)
    losses = method.training_step(rows, WORLD, Step())
    torch.manual_seed(3)
    drawn = method.banks["l"].draw(6, World(), 6)  # type: ignore[operator]
    reps, at = method.encode(rows, Step()), rows.sample_index
    for number, (own, other) in enumerate((("l", "ab"), ("ab", "l"))):
        bank, log_z = method.banks[other], losses.updates["log_z"][0, number]
        wanted = nce(reps[f"projected/{own}"], bank.read(at), bank.read(drawn), 20, log_z, 0.07)  # type: ignore[operator]
        torch.testing.assert_close(losses.terms[f"{own}_to_{other}"].value, wanted.loss)


def test_an_encoder_sees_its_own_channels_alone() -> None:
    """Other colours of the same lightness: L's feature stays, ab's does not; and the reverse."""
    method = built().eval()
    grey = torch.rand(4, 1, 16, 16).expand(4, 3, 16, 16)
    brighter = (grey * 0.5 + 0.5).contiguous()
    with torch.no_grad():
        (light, colour), (other_light, other) = (
            [pooled for pooled, _ in method._towers(each)] for each in (grey.contiguous(), brighter)
        )
    assert not torch.allclose(light, other_light) and torch.allclose(colour, other, atol=1e-3)
    for name in ("l", "ab"):
        first = method.encoders[name].stem[0]  # type: ignore[union-attr, index]
        assert first.weight.shape == (4, CHANNELS[name], 3, 3)


def test_a_gradient_of_one_direction_reaches_its_own_encoder_alone() -> None:
    method = built()
    method.training_step(batch(), WORLD, Step()).terms["l_to_ab"].value.backward()
    touched = {name.split(".")[1] for name, each in method.named_parameters() if each.grad is not None}
    assert touched == {"l"}
    assert all(each.grad is not None for each in _learnt(built(views=ALL)).parameters())


def _learnt(method: Cmc) -> Cmc:
    method.training_step(batch(), WORLD, Step()).total.backward()
    return method


def test_nothing_moves_before_after_step_and_then_the_rows_of_all_banks_do() -> None:
    method, rows = built(), batch()
    before = {name: method.banks[name].features.clone() for name in ("l", "ab")}  # type: ignore[union-attr, operator]
    losses = method.training_step(rows, WORLD, Step())
    assert all(torch.equal(each, method.banks[name].features) for name, each in before.items())  # type: ignore[arg-type]
    assert bool(method.log_z.isnan().all())
    method.after_step(Step(), losses.updates)
    for name, each in before.items():
        moved = (method.banks[name].features != each).any(1).nonzero()[:, 0].tolist()  # type: ignore[union-attr]
        assert moved == list(range(5, 11))
    first = method.log_z.clone()
    method.after_step(Step(), method.training_step(rows, WORLD, Step()).updates)
    assert torch.equal(method.log_z, first) and bool(first.isfinite().all())


def test_features_are_those_of_all_encoders_end_to_end() -> None:
    method = built(views=ALL).eval()
    with torch.no_grad():
        encoded = method.encode_image(batch().views[0])
    assert encoded.embedding.shape == (6, 4 * 32) and encoded.tokens.shape == (6, 4, 4 * 32)  # type: ignore[union-attr]
    torch.testing.assert_close(encoded.embedding.norm(dim=1), torch.ones(6))
    # Every view weighs the same.
    torch.testing.assert_close(encoded.embedding.view(6, 4, 32).norm(dim=2), torch.full((6, 4), 0.5))


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        method = Cmc(replace(CmcConfig.preset("rn50"), samples=1000))
    encoders = sum(each.numel() for each in method.encoders.parameters())
    # Two ResNet-50 without classifiers, whose first layers see one and two channels instead of three.
    assert encoders == 2 * (25_557_032 - 2049 * 1000) - 3 * 64 * 49
    assert method.width == 4096
    assert from_json(CmcConfig, to_json(CmcConfig.preset("rn50-half"))) == CmcConfig.preset("rn50-half")
    with pytest.raises(KeyError, match="there are: tiny, rn50"):
        CmcConfig.preset("nothing")
    with pytest.raises(ValueError, match="resolve"):
        Cmc(CmcConfig())
