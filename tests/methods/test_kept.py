"""What stays as it was in fine-tuning: changes of low rank against full training of the same weights, and frozen parts."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from multiway_batches import INFO
from torch import Tensor, nn
from tuning import DUAL, FUSED, METHODS, tuned, tuning_batch

from multiway.abilities import abilities_of
from multiway.config import ConfigError, to_json
from multiway.engine.optim import OptimiserSpec, build_optimiser, parameter_groups
from multiway.engine.state import tensors_of
from multiway.methods.clip import Clip
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.methods.kept import merged
from multiway.methods.method import Step
from multiway.methods.parts import parts_of
from multiway.nn.resnet import ModifiedResNetConfig
from multiway.world import World

LAYERS = r"blocks.*\.(qkv|query|key_value|out|up|down|module|projection)$|(image|text)_projection$"


def loss_of(method: FineTune, batch: Any) -> Tensor:
    return method(batch, World(), Step()).total


@torch.no_grad()
def moved(method: FineTune) -> FineTune:
    torch.manual_seed(7)
    assert method.changes is not None
    for name, each in method.changes.named_parameters():
        if name.endswith(".up"):
            each.normal_(std=0.1)
    return method


@torch.no_grad()
def written_out(method: FineTune, name: str, kind: str = "asked") -> FineTune:
    """The slow twin: a method that is trained in full, with W + s B A, multiplied here, in place of each changed W."""
    plain = tuned(name, kind)
    state = {key: each for key, each in method.state_dict().items() if not key.startswith("changes.")}
    for layer in method.changes.layers:
        down, up = (method.changes.get_submodule(layer).get_parameter(side) for side in ("down", "up"))
        state[f"base.{layer}.weight"] = state[f"base.{layer}.weight"] + method.config.lora_alpha / 2 * (up @ down)
    plain.load_state_dict(state)
    return plain.eval()


@torch.no_grad()
def seen(method: FineTune, batch: Any) -> list[Tensor]:
    """What the method underneath encodes, and the head's scores."""
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    found = [image.embedding, image.tokens, text.embedding, text.tokens, method.encode(batch, Step())["logits"]]
    return [each for each in found if each is not None]


# --- changes of low rank -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_change_that_is_nothing_yet_changes_nothing(name: str) -> None:
    batch = tuning_batch()
    plain, changed = tuned(name), tuned(name, lora=LAYERS, lora_rank=2)
    plain.base.requires_grad_(False)  # by which torch decides whether it flattens a product: another order of sums
    assert changed.base.state_dict().keys() == plain.base.state_dict().keys()
    for one, other in zip(seen(plain, batch), seen(changed, batch), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", METHODS)
def test_changes_reach_whatever_their_matrices_reach(name: str) -> None:
    """Scores are those of the written-out weights; and with G the full gradient of W, B learns by s G A' and A by s B' G."""
    batch = tuning_batch()
    method = moved(tuned(name, lora=LAYERS, lora_rank=2, lora_alpha=6.0))
    plain = written_out(method, name)
    for one, other in zip(seen(method, batch), seen(plain, batch), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    loss_of(method, batch).backward()
    loss_of(plain, batch).backward()
    reached = 0
    for layer in method.changes.layers:
        full = plain.base.get_submodule(layer).weight.grad
        change = method.changes.get_submodule(layer)
        if full is None:
            assert change.up.grad is None
            continue
        reached += bool(full.abs().max() > 0)
        torch.testing.assert_close(change.up.grad, 3.0 * full @ change.down.T, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(change.down.grad, 3.0 * change.up.T @ full, atol=1e-5, rtol=1e-3)
    assert reached >= 4, method.changes.layers
    assert all(each.grad is None for each in method.base.parameters())
    assert all(each.grad is not None for each in method.head.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_merged_it_is_the_plain_method_with_the_same_rows(name: str) -> None:
    batch, method = tuning_batch(), moved(tuned(name, lora=LAYERS, lora_rank=2, lora_alpha=6.0))
    before = seen(method, batch)
    assert merged(method) is method and method.config.lora == "" and method.changes is None
    for one, other in zip(before, seen(method, batch), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert method.state_dict().keys() == tuned(name).state_dict().keys()
    again = FineTune.from_config_json(method.config_json())
    again.load_state_dict(method.state_dict())
    again.base.requires_grad_(False)
    assert all(torch.equal(a, b) for a, b in zip(seen(again.eval(), batch), seen(method, batch), strict=True))
    assert merged(again) is again


def test_two_pictures_in_the_methods_own_way_with_changes() -> None:
    for kind, method in (("albef-two", METHODS["albef"]), ("blip-two", METHODS["blip"])):
        of = to_json(method.resolve(INFO))
        config = FineTuneConfig(kind, of, "judged", ("no", "yes"), 2, "own", lora=rf"{LAYERS}|^two", lora_rank=2)
        tuned_two, batch = moved(FineTune(config)), tuning_batch("two")
        batch = replace(batch, labels=batch.labels.clamp(max=1))
        loss_of(tuned_two.train(), batch).backward()
        two = [n for n, p in tuned_two.changes.named_parameters() if n.startswith("two.") and p.grad is not None]
        assert len(two) >= 4, two


def test_no_twin_and_nothing_frozen_is_changed() -> None:
    method = tuned("albef", lora=r"attention\.qkv", freeze=("image",))
    layers = method.changes.layers
    assert layers and all(layer.startswith(("student.text.", "student.fusion.")) for layer in layers)
    with pytest.raises(ConfigError, match=r"--method.lora: no linear layer fits 'patches'; there are: student\.text"):
        tuned("albef", lora="patches", freeze=("image",))


def test_what_is_not_trained_has_no_optimiser_state_and_the_rest_learns() -> None:
    method, batch = tuned("clip", lora=r"attention\.qkv", lora_rank=2).train(), tuning_batch()
    before = {name: each.clone() for name, each in method.state_dict().items()}
    optimiser = build_optimiser(method, OptimiserSpec(), method.learning_rates())
    for group in optimiser.param_groups:
        group["lr"] = 0.05
    for _ in range(2):
        optimiser.zero_grad()
        loss_of(method, batch).backward()
        optimiser.step()
    learns = {name for name, each in method.named_parameters() if each.requires_grad}
    assert {name.rpartition(".")[0].partition(".")[0] for name in learns} == {"changes", "head"}
    kept = {
        name.removeprefix("optimiser.").rpartition(".")[0]
        for name in tensors_of(method, optimiser)
        if name.startswith("opt")
    }
    assert kept == learns
    after = method.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == learns


def test_changes_of_lower_blocks_learn_less() -> None:
    method = tuned("clip", lora=r"blocks\.\d|patches", lora_rank=2, layer_decay=0.5)
    groups = parameter_groups(method, OptimiserSpec(), method.learning_rates())
    factors = {n: group["factor"] for group in groups for n in group["names"]}
    named = {n.partition("transformer.blocks.")[2][:1] or n: f for n, f in factors.items() if n.startswith("changes.")}
    assert named == {"0": 0.25, "1": 0.5, "changes.image.patches.project.down": 0.125, "changes.image.patches.project.up": 0.125}  # fmt: skip
    # Blocks above that learn nothing count all the same.
    lower = tuned("clip", lora=r"blocks\.0", lora_rank=2, layer_decay=0.5).learning_rates()
    assert {factor for pattern, factor in lower if pattern.startswith("^changes")} == {0.25}


# --- frozen parts --------------------------------------------------------------------------------------------------------

PARTS = {name: "image" if hasattr(config, "image") else "words" for name, config in (FUSED | DUAL).items()}
PARTS |= {"vilt": "patches", "meter": "text", "vlmo": "blocks", "beit3": "pictures", "beit3-itc": "pictures"}


def noisy(name: str, **options: Any) -> FineTune:
    """A method whose blocks drop half of what they compute, so that the two modes of a part can be told apart."""
    method = tuned(name, **options)
    for module in method.base.modules():
        for rate in ("dropout", "drop_path"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.5)
    return method


@pytest.mark.parametrize(("name", "part"), PARTS.items())
def test_a_frozen_part_learns_nothing_and_is_read_as_in_evaluation(name: str, part: str) -> None:
    method, batch = noisy(name, freeze=(part,)).train(), tuning_batch()
    own = [f"base.{part}.", f"base.student.{part}.", f"base.{part}", f"base.student.{part}"]
    frozen = {n: p for n, p in method.named_parameters() if n.startswith((own[0], own[1])) or n in (own[2], own[3])}
    assert frozen and not any(each.requires_grad for each in frozen.values())
    own_state = tuple(f"base.{each}" for each in method.base.own_state)
    others = [
        n
        for n, p in method.named_parameters()
        if n not in frozen and not p.requires_grad and not n.startswith(own_state)
    ]
    assert not others, "nothing else is frozen"
    loss_of(method, batch).backward()
    assert all(each.grad is None for each in frozen.values())
    assert any(p.grad is not None for n, p in method.named_parameters() if n.startswith("base."))
    modes = {n.removeprefix("base.").removeprefix("student."): m.training for n, m in method.named_modules()}
    assert not any(mode for n, mode in modes.items() if n == part or n.startswith(f"{part}."))
    assert modes[""] and any(modes.values())
    method.eval().train()
    assert not any(
        m.training
        for n, m in method.base.named_modules()
        if n.removeprefix("student.").startswith(f"{part}.") and not n.startswith(method.base.own_state)
    )


def test_a_frozen_tower_keeps_no_graph_and_gives_the_same_rows_every_time() -> None:
    batch = tuning_batch()
    for freeze, still in (((), False), (("image", "image_projection"), True), (("base",), True)):
        method = noisy("clip", freeze=freeze).train()
        one, other = (method.encode_image(batch.images) for _ in range(2))
        assert one.embedding.requires_grad is not still and torch.equal(one.embedding, other.embedding) is still
    assert not [n for n, p in method.named_parameters() if p.requires_grad and not n.startswith("head.")]
    assert torch.equal(one.embedding, method.eval().encode_image(batch.images).embedding)


@pytest.mark.parametrize("options", [{"freeze": ("image",)}, {"freeze": ("base",)}, {"lora": "text.*qkv"}])
def test_running_statistics_stand_still(options: dict[str, Any]) -> None:
    config = replace(
        METHODS["clip"], image=ModifiedResNetConfig(size=32, depths=(1, 1, 1, 1), base=8, heads=4, output=20)
    )
    of = to_json(config.resolve(INFO))
    method = FineTune(FineTuneConfig("clip", of, answers=("a", "b", "c", "d", "e"), **options)).train()
    batch = tuning_batch()
    batch = replace(batch, images=nn.functional.interpolate(batch.images, (32, 32)))
    kept = {n: each.clone() for n, each in method.named_buffers()}
    loss_of(method, batch).backward()
    assert kept and all(torch.equal(each, kept[n]) for n, each in method.named_buffers())
    free = FineTune(FineTuneConfig("clip", of, answers=("a", "b", "c", "d", "e"))).train()
    loss_of(free, batch)
    assert any(not torch.equal(each, kept[n]) for n, each in free.named_buffers()), "else the test shows nothing"


def test_a_copy_keeps_still_what_is_frozen_in_it() -> None:
    method = copy.deepcopy(tuned("clip", freeze=("image",))).train()
    assert not method.base.image.training and method.base.text.training


def test_rates_with_a_frozen_tower_fit_what_still_learns() -> None:
    method = tuned("clip", freeze=("image",), layer_decay=0.5)
    groups = parameter_groups(method, OptimiserSpec(), method.learning_rates())  # each rule fits some parameter
    names = [n for group in groups for n in group["names"]]
    assert not any("image." in n for n in names) and {group["factor"] for group in groups} >= {0.125, 0.25, 0.5, 3.0}


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"clip has no part 'vision' that could be frozen; there are: base \(all of it\), .*image, .*text",
    ):
        tuned("clip", freeze=("vision",))
    with pytest.raises(ConfigError, match="albef has no part 'twin'"):
        tuned("albef", freeze=("twin",))
    with pytest.raises(ConfigError, match="nothing is left that lora could change"):
        tuned("clip", freeze=("base",), lora="qkv")
    with pytest.raises(ConfigError, match="given lora_rank 0"):
        tuned("clip", lora="qkv", lora_rank=0)
    with pytest.raises(ConfigError, match="lora_alpha -1"):
        tuned("clip", lora="qkv", lora_alpha=-1.0)
    with pytest.raises(ConfigError, match=r"no regular expression"):
        tuned("clip", lora="(")
    with pytest.raises(ConfigError, match=r"image\.transformer\.blocks\.0\.attention\.qkv: .*expected 1 to 23"):
        tuned("clip", lora="qkv", lora_rank=24)


def test_parts_are_what_a_method_consists_of() -> None:
    clip = Clip(METHODS["clip"].resolve(INFO))
    assert set(parts_of(clip.state_dict())) == {"log_scale", "image", "image_projection", "text", "text_projection"}
    albef = tuned("albef").base
    assert set(parts_of(albef.state_dict(), albef.own_state)) == {
        "temperature", "image", "text", "fusion", "image_projection", "text_projection", "words", "match_head"
    }  # fmt: skip
    assert "compare" in abilities_of(clip)
