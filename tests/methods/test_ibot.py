"""iBOT: what the student may not see, what it is asked, and what is left of it without masks."""

import math
import socket
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.batch import Batch, DataInfo
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.ibot import Ibot, IbotConfig
from multiway.methods.method import Step
from multiway.nn.mlp_head import DINO, MlpHeadConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

TOWER = VisionConfig(size=16, patch=4, width=16, layers=2, heads=2)
HEAD = replace(DINO, hidden=16, output=24, bottleneck=8)
WORLD, LATE = World(), Step(progress=0.5)


def built(**changed: object) -> Ibot:
    torch.manual_seed(0)
    config = replace(IbotConfig(), backbone=TOWER, projector=HEAD, **changed)
    return Ibot(config.resolve(DataInfo(samples=64, classes=5))).train()


def batch(rows: int = 6, small: int = 2, masked: bool = True) -> Batch:
    """Two views of 16 pixels, 16 patches each, and some of 8; every other large view hides nothing."""
    make = torch.Generator().manual_seed(1)
    mask = torch.rand(rows, 32, generator=make) < 0.4
    mask[::2, :16] = False
    mask[1::2, 16:] = False
    return Batch(
        views=tuple(torch.randn(rows, 3, side, side, generator=make) for side in [16, 16] + [8] * small),
        labels=torch.arange(rows) % 5,
        image_id=torch.arange(rows),
        sample_index=torch.arange(rows),
        patch_mask=mask if masked else None,
    )


def gradients(method: Dino, rows: Batch, step: Step = LATE) -> dict[str, Tensor]:
    method.training_step(rows, WORLD, step).total.backward()
    return {name: each.grad for name, each in method.named_parameters() if each.grad is not None}


def moved(rows: Batch, scale: float = 1.0) -> Batch:
    """Other numbers in the pixels of hidden patches alone."""
    masks = rows.patch_mask.split(16, 1)  # type: ignore[union-attr]
    views = list(rows.views)
    for number, mask in enumerate(masks):
        pixels = mask.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        views[number] = torch.where(pixels, views[number] + scale, views[number])
    return replace(rows, views=tuple(views))


def test_without_masks_it_is_dino_to_the_bit() -> None:
    rows = batch(masked=False)
    ibot = built()
    torch.manual_seed(0)
    config = replace(DinoConfig(), backbone=TOWER, projector=HEAD).resolve(DataInfo(samples=64, classes=5))
    dino = Dino(config).train()
    own, its = gradients(ibot, rows), gradients(dino, rows)
    assert set(own) - set(its) == {"mask_token"} and not bool(own["mask_token"].any())
    for name, each in its.items():
        assert torch.equal(each, own[name]), name
    found, there = ibot.training_step(rows, WORLD, LATE), dino.training_step(rows, WORLD, LATE)
    assert torch.equal(found.total, there.total)
    for method, losses in ((ibot, found), (dino, there)):
        with torch.no_grad():
            method.backbone.class_token.add_(1.0)  # type: ignore[union-attr, operator]
        method.after_step(LATE, losses.updates)
    state = ibot.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in dino.state_dict().items())


def test_a_mask_that_hides_nothing_changes_no_number_of_consequence() -> None:
    rows = batch()
    shown = replace(rows, patch_mask=torch.zeros_like(rows.patch_mask))  # type: ignore[arg-type]
    with_mask = built().training_step(shown, WORLD, LATE)
    without = built().training_step(replace(rows, patch_mask=None), WORLD, LATE)
    torch.testing.assert_close(with_mask.total, without.total)
    assert not bool(with_mask.terms["patches"].value)


def test_hidden_pixels_do_not_reach_the_student_and_do_reach_the_teacher() -> None:
    method, rows = built(), batch()
    reps, other = method.encode(rows, LATE), method.encode(moved(rows), LATE)
    for name, each in reps.items():
        teachers = name.startswith(("target", "shown"))
        assert torch.equal(each, other[name]) is not teachers, name
    seen = replace(rows, views=(rows.views[0] + 1.0, *rows.views[1:]))
    assert not torch.equal(method.encode(seen, LATE)["projected/0"], reps["projected/0"])


def test_a_class_token_answers_for_its_own_view_alone() -> None:
    method, rows = built(), batch()
    other = replace(rows, views=(rows.views[0] * 2.0, *rows.views[1:]))
    reps, moved_reps = method.encode(rows, LATE), method.encode(other, LATE)
    for name, each in reps.items():
        own = name.endswith("/0") or name == "features"
        # Views of one size share a matrix product, whose rounding may depend on its other rows.
        assert torch.allclose(each, moved_reps[name], atol=1e-6) is not own, name


def test_rows_are_local() -> None:
    method, rows = built(), batch()
    whole, part = method.encode(rows, LATE), method.encode(rows.rows(2, 5), LATE)
    for name, each in part.items():
        torch.testing.assert_close(each, whole[name][2:5], msg=name)


def test_the_patch_loss_is_equation_2() -> None:
    """Slowly: view by view, row by row, patch by patch."""
    method, rows = built(patch_temperature=0.07), batch()
    with torch.no_grad():
        method.patch_center.value.normal_(std=0.1)
        for parameter in method.backbone.parameters():  # the teacher is behind
            parameter.add_(0.05 * torch.randn_like(parameter))
    reps = method.encode(rows, LATE)
    total = torch.zeros((), dtype=torch.float64)
    for view, mask in enumerate(method.masks(rows)):  # type: ignore[arg-type]
        for row in range(len(rows)):
            found = []
            for patch in mask[row].nonzero()[:, 0].tolist():
                teacher = (
                    method.teachers[1](reps[f"shown/{view}"][row, patch]).double() - method.patch_center.value.double()
                )
                student = method.projector(reps[f"patches/{view}"][row, patch]).double()
                found.append(-((teacher / 0.07).softmax(0) * (student / 0.1).log_softmax(0)).sum())
            total += torch.stack(found).mean() / (2 * len(rows)) if found else 0.0
    losses = method.losses(reps, {}, rows, WORLD, LATE)
    term = losses.terms["patches"]
    assert float(term.value.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert term.chance == pytest.approx(0.5 * math.log(24))  # every other view hides nothing
    # All of the teacher's patches make the centre.
    every = torch.cat([method.teachers[1](reps[f"shown/{view}"]) for view in range(2)])
    torch.testing.assert_close(losses.updates["patch_outputs"], every.mean((0, 1))[None])


def test_nothing_but_the_loss_changes_with_which_patches_make_the_centre() -> None:
    rows = batch()
    every, hidden = (built(centre_of=which).training_step(rows, WORLD, LATE) for which in ("all", "hidden"))
    assert torch.equal(every.total, hidden.total)  # the centre is still at zero
    assert not torch.allclose(every.updates["patch_outputs"], hidden.updates["patch_outputs"])


def test_the_teacher_gets_no_gradient_and_all_of_the_student_gets_one() -> None:
    own = MlpHeadConfig(2, 16, 12, hidden_norm="none", activation="gelu", last="weight-normalised", bottleneck=8)
    for changed in ({}, {"heads_apart": True, "patch_projector": own}, {"balance": "sinkhorn", "koleo": 0.1}):
        method = built(**changed)
        found = gradients(method, batch())
        assert not any(name.startswith("twin.") for name in found)
        missing = [name for name, each in method.named_parameters() if each.requires_grad and name not in found]
        assert not missing and bool(found["mask_token"].any())
        if method.patch_projector is not None:
            assert bool(found["patch_projector.layers.0.weight"].any()) and len(method.teachers) == 3
            assert method.patch_center.value.shape == (12,)


def test_the_last_layer_rests_in_the_beginning_for_patches_too() -> None:
    assert not bool(gradients(built(), batch(), Step(progress=0.0))["projector.last.weight"].any())


def test_nothing_moves_before_after_step_and_then_both_centres_do() -> None:
    method = built()
    before = {name: each.clone() for name, each in method.state_dict().items()}
    losses = method.training_step(batch(), WORLD, LATE)
    assert all(torch.equal(each, method.state_dict()[name]) for name, each in before.items())
    method.after_step(LATE, losses.updates)
    after = method.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed == {"center.value", "patch_center.value"}


def test_sinkhorn_keeps_no_centre_and_uses_outputs_evenly() -> None:
    method, rows = built(balance="sinkhorn"), batch(rows=32)
    with torch.no_grad():  # the teacher prefers one output by far
        method.teachers[1].last.weight[0] = method.teachers[1](torch.randn(1, 16)).new_ones(8)
    losses = method.training_step(rows, WORLD, LATE)
    assert not losses.updates and torch.isfinite(losses.total)
    mean = built().training_step(rows, WORLD, LATE)
    assert float(losses.report["usage"]) > float(mean.report["usage"])
    method.after_step(LATE, losses.updates)
    assert not bool(method.center.value.any()) and not bool(method.patch_center.value.any())


def test_koleo_pushes_class_tokens_of_a_view_apart() -> None:
    found = built(koleo=0.1).training_step(batch(), WORLD, LATE)
    term = found.terms["koleo"]
    assert term.weight == pytest.approx(0.2)  # DINOv2 adds both large views'
    features = torch.nn.functional.normalize(built().encode(batch(), LATE)["class/0"], dim=1)
    other = torch.nn.functional.normalize(built().encode(batch(), LATE)["class/1"], dim=1)
    slow = 0.0
    for each in (features, other):
        apart = (each[:, None] - each[None]).norm(dim=2) + 10.0 * torch.eye(len(each))
        slow -= float(apart.min(1).values.log().mean()) / 2
    assert float(term.value) == pytest.approx(slow, rel=1e-4)


def test_a_mask_of_other_patches_is_refused() -> None:
    torch.manual_seed(0)
    method = Ibot(replace(IbotConfig(), backbone=replace(TOWER, patch=8), projector=HEAD))
    with pytest.raises(ValueError, match=r"32 patches a row and the 2 large views have \[4, 4\]"):
        method.encode(batch(), LATE)


def test_presets() -> None:
    with pytest.raises(KeyError, match="there are: tiny, vit-s-16"):
        IbotConfig.preset("nothing")
    small = IbotConfig.preset("vit-s-16")
    with torch.device("meta"):
        method = Ibot(small)
    backbone = sum(each.numel() for each in method.backbone.parameters())
    assert backbone == 22_050_664 - 385 * 1000  # DeiT-S without its classifier
    head = (384 + 1) * 2048 + 2049 * 2048 + 2049 * 256 + 256 * 8192
    assert sum(each.numel() for each in method.parameters() if each.requires_grad) == backbone + head + 384
    assert len(method.teachers) == 2
    with torch.device("meta"):
        untied = Ibot(IbotConfig.preset("dinov2-vit-l-14"))
    assert len(untied.teachers) == 3 and untied.patch_center.value.shape == (131_072,)


# --- two ranks -------------------------------------------------------------------------------------------------------


def told(world: World, rows: slice, balance: str) -> dict[str, Tensor]:
    """Loss, gradient and the centres after a step."""
    method, every = built(balance=balance, koleo=0.1, probe=0), batch(rows=8)
    # Ranks hide different numbers of patches.
    own = every.rows(rows.start, rows.stop)
    losses = method.training_step(own, world, LATE)
    losses.total.backward()
    method.after_step(Step(), losses.updates)
    found = {name: each.grad for name, each in method.named_parameters() if each.grad is not None}
    found |= {"loss": losses.total.detach()}
    return {name: each.clone() for name, each in found.items()} | {
        "center": method.center.value.clone(),
        "patch center": method.patch_center.value.clone(),
    }


def work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for balance in ("mean", "sinkhorn"):
        found = told(World(rank, 2), slice(4 * rank, 4 * rank + 4), balance)
        save_file(
            {name: World(rank, 2).mean(each).contiguous() for name, each in found.items()}, f"{out}/{balance}{rank}"
        )
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


def test_two_ranks_are_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, str(tmp_path)), nprocs=2)
    for balance in ("mean", "sinkhorn"):
        alone = told(WORLD, slice(0, 8), balance)
        for rank in range(2):
            found = load_file(tmp_path / f"{balance}{rank}")
            assert set(found) == set(alone)
            for name, each in alone.items():
                torch.testing.assert_close(found[name], each, rtol=2e-4, atol=2e-6, msg=f"{balance} {name}")
