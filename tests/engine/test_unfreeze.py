"""Parts that join: frozen until their step, then trained as if they always had been; by the step alone."""

from dataclasses import replace

import pytest
import torch
from test_loop import SETTINGS, Memory, Rows, Toy
from torch import nn

from multiway.config import ConfigError
from multiway.engine.loop import train
from multiway.engine.optim import OptimiserSpec, build_optimiser, parameter_groups, set_rates
from multiway.engine.unfreeze import Joining, joining_rules, joining_steps, top_down
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.layer_decay import layer_depths
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World


class Two(Toy):
    """A second map below the first, which joins later."""

    def __init__(self) -> None:
        super().__init__(dropout=0.1)
        self.below = nn.Linear(4, 4)

    def encode(self, batch, step):
        return {"out": nn.functional.dropout(self.map(self.below(batch.images)), self.dropout, self.training)}


def settings(kind: str = "adamw", **more):
    optimiser = OptimiserSpec(
        warmup=2, clip=0.0, weight_decay=0.1, exempt=False, unfreeze=(("^below", 5),), kind=kind, **more
    )
    return replace(SETTINGS, optimiser=optimiser)


def run(method: Two, memory: Memory, steps: int = 12, kind: str = "adamw") -> Memory:
    train(method, Rows(), replace(settings(kind), steps=steps, horizon=12), World(), memory, finish=lambda batch: batch)
    return memory


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_equals_a_loop_written_out(kind: str) -> None:
    """The slow twin: an optimiser that has never heard of `below` for five steps, then a second one for it."""
    found, twin = Two(), Two()
    twin.load_state_dict(found.state_dict())
    start = {name: tensor.clone() for name, tensor in found.state_dict().items()}
    run(found, Memory(), kind=kind)
    spec = replace(settings(kind).optimiser, unfreeze=())
    twin.train()
    optimisers = {part: build_optimiser(getattr(twin, part), spec, []) for part in ("map", "below")}
    for index, batch in zip(range(12), Rows().batches(0, 12), strict=True):
        torch.manual_seed((SETTINGS.seed * 1_000_003 + index) * 1_009)
        twin(batch, World(), Step(index)).total.backward()
        for part, optimiser in optimisers.items():
            if part == "map" or index >= 5:
                set_rates(optimiser.param_groups, index, 12, SETTINGS.lr, spec)
                optimiser.step()
        twin.zero_grad()
    for name, tensor in found.named_parameters():
        torch.testing.assert_close(tensor, twin.get_parameter(name), rtol=1e-5, atol=1e-6)
        assert not torch.equal(tensor, start[name])


def test_what_is_frozen_has_no_gradient_and_does_not_move() -> None:
    method = Two()
    before = method.below.weight.detach().clone()
    grads: list[tuple[bool, bool]] = []
    method.map.register_forward_hook(
        lambda *_: grads.append((method.below.weight.requires_grad, bool(method.below.weight.grad is not None)))
    )
    run(method, Memory(), steps=5)
    assert grads == [(False, False)] * 5 and torch.equal(method.below.weight, before)  # not even decayed
    joins = Two()
    joins.map.register_forward_hook(lambda *_: grads.append((joins.below.weight.requires_grad, False)))
    grads.clear()
    run(joins, Memory(), steps=12)
    assert [learns for learns, _ in grads] == [False] * 5 + [True] * 7


def test_stopping_and_going_on_changes_nothing() -> None:
    """Before the step at which it joins, at it, and after."""
    straight = Two()
    whole = run(straight, Memory())
    for stop in (3, 5, 7):
        first = run(Two(), Memory(), steps=stop)
        again = Two()
        resumed = run(again, Memory(first.saved[stop][:3]))
        assert [each["loss"] for each in whole.records if each["step"] > stop][-1] == resumed.records[-1]["loss"]
        for name, tensor in straight.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name


def test_rules_are_shares_or_steps_and_the_first_that_fits_counts() -> None:
    names = ["a.x", "a.y", "b"]
    assert joining_steps(names, [("y", 0.07), ("^a", 30)], 100) == {"a.x": 30, "a.y": 7, "b": 0}
    with pytest.raises(ConfigError, match="'c' matches no trained parameter"):
        joining_steps(names, [("c", 1)], 100)
    groups = parameter_groups(Two(), OptimiserSpec(), [])
    with pytest.raises(ConfigError, match="nothing to learn before step 3"):
        Joining(groups, [(".", 3)], 100)
    joining = Joining(groups, [("^below", 3)], 100)
    assert [joining.at(step) for step in (0, 1, 3, 4, 2)] == [True, False, True, False, True]  # back again, too
    for wrong in ({"gradual": 1.0}, {"gradual": -0.1}, {"unfreeze": (("a", -1.0),)}):
        with pytest.raises(ConfigError, match="layers join over"):
            OptimiserSpec(**wrong)


def test_layers_join_from_the_top() -> None:
    """ULMFiT: heads first, then the uppermost block of each tower, at last what lies below all blocks."""
    torch.manual_seed(0)
    method = Clip(
        ClipConfig(
            image=VisionConfig(size=16, patch=8, width=16, layers=3, heads=2),
            text=TextConfig(vocabulary=30, context=8, width=16, layers=2, heads=2),
            embedding=8,
        )
    )
    rules = joining_rules(method, OptimiserSpec(gradual=0.4, unfreeze=((r"^text\.", 90),)))
    names = [name for name, _ in method.named_parameters()]
    found = joining_steps(names, rules, 100)
    assert found["log_scale"] == found["image_projection.weight"] == found["image.transformer.norm.weight"] == 0
    blocks = [found[f"image.transformer.blocks.{block}.attention.qkv.weight"] for block in (2, 1, 0)]
    assert blocks == [10, 20, 30] and found["image.patches.project.weight"] == found["image.class_token"] == 40
    assert {found[name] for name in names if name.startswith("text.")} == {90}  # what is written out comes first
    assert top_down([], 0.5) == [] and max(depth for _, depth in layer_depths(method)) == 4
