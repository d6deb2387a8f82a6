"""Branches, twins and probes: what all methods on several views share, and what each must not do."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multiway.batch import Batch, DataInfo
from multiway.config import ConfigError
from multiway.methods import method_class
from multiway.methods.method import Step
from multiway.methods.siamese import Siamese
from multiway.nn.backbone import backbone, resnet, vit
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.world import World

NAMES = ["simclr", "simsiam", "byol", "moco", "moco-v3", "swav", "dino", "instdisc", "invaspread"]
INFO = DataInfo(samples=64, classes=5)
SMALL = resnet(18, "cifar", base=4)
WORLD = World()


def batch(rows: int = 8, views: int = 2, small: int = 0, side: int = 16, seed: int = 0) -> Batch:
    """Random views, `small` of them of half the side."""
    make = torch.Generator().manual_seed(seed)
    sides = [side] * (views - small) + [side // 2] * small
    return Batch(
        views=tuple(torch.randn(rows, 3, each, each, generator=make) for each in sides),
        labels=torch.arange(rows) % 5,
        image_id=torch.arange(rows),
        sample_index=torch.arange(rows),
    )


def built(name: str, **changed: object) -> Siamese:
    """A method at `tiny` with a smaller backbone."""
    torch.manual_seed(0)
    kind = method_class(name)
    config = kind.config_class.preset("tiny")
    if name in ("moco-v3", "dino"):
        own = replace(config.backbone, size=16, patch=4, width=16, layers=1, heads=2)
    else:
        own = SMALL
    found = kind(replace(config, backbone=own, **changed).resolve(INFO))
    assert isinstance(found, Siamese)
    return found.train()


def stepped(method: Siamese, rows: Batch, step: Step | None = None) -> dict[str, Tensor]:
    """One forward and backward; the gradient of each parameter that has one."""
    step = step or Step(progress=0.5)
    losses = method.training_step(rows, WORLD, step)
    losses.total.backward()
    return {name: each.grad for name, each in method.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_the_network_learns_the_twin_does_not_and_the_probe_leaks_nothing(name: str) -> None:
    method, blind = built(name), built(name, probe=0)
    assert method.probe is not None
    blind.probe = None
    blind.load_state_dict({key: each for key, each in method.state_dict().items() if not key.startswith("probe")})
    torch.manual_seed(1)
    own = stepped(method, batch())
    torch.manual_seed(1)
    without = stepped(blind, batch())
    assert {key for key in own if key.startswith("probe.")} == {"probe.weight", "probe.bias"}
    assert not any(key.startswith("twin.") for key in own)
    learnt = {key for key in own if not key.startswith("probe.")}
    assert learnt == set(without) and any(key.startswith("backbone.") for key in learnt)
    for key in learnt:
        assert torch.equal(own[key], without[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_before_after_step(name: str) -> None:
    """Skipping a step is not calling `after_step`; running statistics of batch norms are no state of the method's own."""
    method = built(name)
    before = {key: each.nan_to_num(7.0) for key, each in method.state_dict().items()}
    losses = method.training_step(batch(), WORLD, Step())
    after = method.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key].nan_to_num(7.0))}
    assert all("running_" in key or "num_batches" in key for key in moved), moved
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(0.1)
    method.after_step(Step(), losses.updates)
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], method.state_dict()[key])}
    kept = {"moco": {"twin", "queue"}, "moco-v3": {"twin"}, "byol": {"twin"}, "dino": {"twin", "center"},
            "instdisc": {"bank", "log_z"}}  # fmt: skip
    assert changed - {"backbone", "projector", "predictor"} >= kept.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_measured_by_its_backbone(name: str) -> None:
    method = built(name).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        encoded = method.encode_image(images)
    assert encoded.embedding.shape == (3, method.backbone.width)
    assert torch.allclose(encoded.embedding.norm(dim=1), torch.ones(3), atol=1e-5)


def test_a_momentum_twin_is_behind_by_its_momentum() -> None:
    """Of a student that stands still the gap after t steps is m^t of the first (section 2 of the specification)."""
    method = built("byol", momentum=0.9, momentum_end=0.9)
    assert method.twin is not None
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    first = next(iter(method.backbone.parameters())) - next(iter(method.twin[0].parameters()))
    for _ in range(7):
        method.after_step(Step(), {})
    last = next(iter(method.backbone.parameters())) - next(iter(method.twin[0].parameters()))
    torch.testing.assert_close(last, first * 0.9**7)


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.996), (0.5, 0.998), (1.0, 1.0)])
def test_the_momentum_rises_along_half_a_cosine(progress: float, momentum: float) -> None:
    method = built("byol", momentum=0.996)
    assert method.momentum_at(Step(progress=progress)) == pytest.approx(momentum)


def test_views_of_one_side_may_go_together_where_no_norm_sees_the_batch() -> None:
    """With a transformer and no batch norm the two ways of calling are the same."""
    head = MlpHeadConfig(hidden=32, output=16, hidden_norm="none")
    views = batch(views=5, small=3)
    tower = vit("tiny", patch=4, pixels=16, width=16, layers=1, heads=2)
    found = []
    for together in (True, False):
        torch.manual_seed(0)
        method = method_class("simclr")(
            replace(
                method_class("simclr").config_class.preset("tiny"), backbone=tower, projector=head, together=together
            )
        )
        found.append(method.encode(views, Step()))
    assert list(found[0]) == list(found[1])
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key])


def test_a_stopped_target_gets_no_gradient_and_an_open_one_does() -> None:
    rows = batch()
    closed, opened = stepped(built("simsiam"), rows), stepped(built("simsiam", stop_gradient=False), rows)
    # Through the target branch the projector's gradient changes.
    key = "projector.layers.0.weight"
    assert not torch.allclose(closed[key], opened[key])
    reps = built("simsiam").encode(rows, Step())
    assert not reps["target/0"].requires_grad and reps["predicted/0"].requires_grad
    assert built("simsiam", stop_gradient=False).encode(rows, Step())["target/0"].requires_grad


def test_moco_encodes_query_and_key_once_each() -> None:
    method = built("moco")
    seen: list[tuple[str, int]] = []
    for name, part in (("online", method.backbone), ("twin", method.twin[0])):  # type: ignore[index]
        part.register_forward_hook(lambda m, a, o, name=name: seen.append((name, len(a[0]))))
    method.encode(batch(rows=8, views=2), Step())
    assert seen == [("online", 8), ("twin", 8)]


def test_mocos_keys_go_through_the_groups_in_another_order_and_come_back() -> None:
    rows = batch(rows=12)
    same = replace(rows, views=(rows.views[0],) * 2)  # and the twin is still the network
    told = built("moco", norm_groups=3, shuffle=False).encode(same, Step())
    # What shuffling is for: a group's statistics give the key away.
    torch.testing.assert_close(told["target/0"], told["projected/0"])
    hidden = built("moco", norm_groups=3).encode(same, Step())
    assert (hidden["target/0"] - hidden["projected/0"]).abs().max() > 0.01
    still = built("moco", norm_groups=3).eval().encode(same, Step())
    torch.testing.assert_close(still["target/0"], still["projected/0"])
    with pytest.raises(ConfigError, match=r"norm_groups=3 is for keys .* given memory=bank"):
        built("moco", norm_groups=3, memory="bank")


@pytest.mark.parametrize("memory", ["queue", "batch", "bank"])
def test_mocos_memories_share_an_interface(memory: str) -> None:
    method = built("moco", memory=memory, queue=16)
    rows = batch()
    losses = method.training_step(rows, WORLD, Step())
    term = losses.terms["info_nce"]
    assert torch.isfinite(term.value) and term.chance is not None
    method.after_step(Step(), losses.updates)
    again = method.training_step(rows, WORLD, Step()).terms["info_nce"]
    if memory == "queue":  # of the eight rows that it holds by now one shows the query's own picture
        assert again.chance == pytest.approx(math.log(8))
    if memory == "bank":
        assert again.chance == pytest.approx(math.log(17), abs=0.2)
    assert (method.twin is None) == (memory != "queue")


def test_dino_matches_no_view_with_itself_and_small_views_with_the_large_alone() -> None:
    method = built("dino")
    reps = method.encode(batch(views=5, small=3), Step())
    assert (
        sum(key.startswith("projected/") for key in reps) == 5 and sum(key.startswith("target/") for key in reps) == 2
    )
    losses = method.training_step(batch(views=5, small=3), WORLD, Step(progress=0.5))
    assert set(losses.report) >= {"target_entropy", "usage", "divergence", "momentum", "twin_gap"}


def test_dinos_last_layer_rests_in_the_beginning() -> None:
    for progress, moves in ((0.0, False), (0.5, True)):
        own = stepped(built("dino"), batch(), Step(progress=progress))
        (last,) = [each for key, each in own.items() if key.startswith("projector.last")]
        assert bool(last.abs().max() > 0) is moves


def test_swavs_prototypes_stay_on_the_sphere_and_rest_in_the_beginning() -> None:
    for progress, moves in ((0.0, False), (0.5, True)):
        method = built("swav")
        own = stepped(method, batch(), Step(progress=progress))
        assert bool(own["prototypes.weight"].abs().max() > 0) is moves
        with torch.no_grad():
            method.prototypes.weight.mul_(3.0)  # type: ignore[union-attr]
        method.after_step(Step(), {})
        norms = method.prototypes.weight.norm(dim=1)  # type: ignore[union-attr]
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_swavs_queue_takes_part_in_the_assignment_once_it_may() -> None:
    method = built("swav", queue=32, queue_from=0.3)
    for number in range(4):
        rows = batch(seed=number)
        method.remember(Step(), method.training_step(rows, WORLD, Step()).updates)
    rows = batch(seed=9)
    torch.manual_seed(0)
    early = method.training_step(rows, WORLD, Step(progress=0.2)).terms["swapped"].value
    late = method.training_step(rows, WORLD, Step(progress=0.4)).terms["swapped"].value
    assert not torch.equal(early, late)


def test_instdiscs_normaliser_is_estimated_once_or_follows() -> None:
    method = built("instdisc", keep_z=1.0)
    assert bool(method.log_z.isnan())  # type: ignore[union-attr]
    method.after_step(Step(), method.training_step(batch(), WORLD, Step()).updates)
    first = method.log_z.clone()  # type: ignore[union-attr]
    method.after_step(Step(), method.training_step(batch(seed=1), WORLD, Step()).updates)
    assert torch.equal(first, method.log_z) and bool(first.isfinite())  # type: ignore[arg-type]
    follows = built("instdisc", keep_z=0.75)
    estimates = []
    for seed in (0, 1):
        updates = follows.training_step(batch(seed=seed), WORLD, Step()).updates
        follows.after_step(Step(), updates)
        estimates.append(updates["log_z"].mean())
    torch.testing.assert_close(follows.log_z, 0.75 * estimates[0] + 0.25 * estimates[1])


def test_moco_v3_leaves_the_patch_projection_as_it_began() -> None:
    own = stepped(built("moco-v3"), batch())
    assert not any(key.startswith("backbone.patches") for key in own)
    assert any(key.startswith("backbone.patches") for key in stepped(built("moco-v3", freeze_patches=False), batch()))


def test_a_constant_network_scores_what_is_called_chance() -> None:
    """The collapse of section 2: ln(2 N - 1), 2 - 2 |mean target| and their kin are what equal outputs score."""
    for name, wanted in (("simclr", torch.tensor(15.0).log()), ("moco-v3", 2 * 2 * 0.2 * torch.tensor(8.0).log())):
        method = built(name)
        same = [torch.ones(8, 16)] * 2
        term = next(iter(method.agree(same, same, batch(), WORLD, Step()).terms.values()))
        assert float(term.value) == pytest.approx(float(wanted), rel=1e-5) == pytest.approx(term.chance, rel=1e-5)


def test_backbones_have_the_published_sizes() -> None:
    """He et al., 2016: 11.69 M and 25.56 M with a classifier of 1,000; DeiT: ViT-S has 22.05 M with one."""
    count = {depth: sum(p.numel() for p in backbone(resnet(depth)).parameters()) for depth in (18, 50)}
    assert count[18] + 513 * 1000 == 11_689_512 and count[50] + 2049 * 1000 == 25_557_032
    small = sum(p.numel() for p in backbone(vit("small")).parameters())
    assert small + 385 * 1000 == 22_050_664
    with pytest.raises(KeyError, match="no ResNet-20; there are: 18, 34, 50"):
        resnet(20)
    with pytest.raises(KeyError, match="no ViT of the size 'giant'"):
        vit("giant")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("byol", "momentum", 1.5),
        ("moco", "momentum_end", -0.1),
        ("dino", "teacher_temperature", 0.0),
        ("ibot", "warm_temperature", 0.0),
        ("ibot", "patch_temperature", 0.0),
    ],
)
def test_what_would_be_noticed_after_hours_is_refused_at_once(name: str, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=str(value)):
        replace(method_class(name).config_class.preset("tiny"), **{field: value})


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_named_when_one_is_missing(name: str) -> None:
    with pytest.raises(KeyError, match="there are: tiny"):
        method_class(name).config_class.preset("nothing")


def test_a_run_on_two_ranks_is_the_run_on_one(tmp_path: Path) -> None:
    """Batch norms take their statistics over the rows of both."""
    from command_line import multiway
    from safetensors.torch import load_file

    from multiway.cli.main import main

    args = ["train", "byol", "--data", "digits", "--steps", "2", "--batch", "8", "--device", "cpu", "--precision", "fp32",
            "--threads", "1", "--log-every", "1", "--method.backbone.base", "4", "--views.views", "--out"]  # fmt: skip
    args = [each for each in args if each != "--views.views"]
    done = multiway(*args, str(tmp_path / "two"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert main([*args, str(tmp_path / "one")]) == 0
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert set(one) == set(two)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=2e-3, atol=2e-4, msg=name)


def test_a_teacher_does_not_depend_on_chance() -> None:
    """Drop path and dropout are the student's; its twin, in training mode too, says the same twice."""
    tower = vit("tiny", patch=4, pixels=16, width=16, layers=3, heads=2, drop_path=0.5, dropout=0.3)
    kind = method_class("dino")
    torch.manual_seed(0)
    method = kind(replace(kind.config_class.preset("tiny"), backbone=tower)).train()  # type: ignore[call-arg]
    rows = batch()
    with torch.no_grad():
        torch.manual_seed(1)
        first = method.encode(rows, Step())
        torch.manual_seed(2)
        second = method.encode(rows, Step())
    assert torch.equal(first["target/0"], second["target/0"]) and not torch.equal(
        first["projected/0"], second["projected/0"]
    )
