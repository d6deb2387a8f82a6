"""Fine-tuning: every method with a head for every kind of examples, and what the heads read."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from multiway_batches import INFO, WORDS
from peer_weights import randomise
from tuning import BLIND, DUAL, FUSED, KINDS, METHODS, TASK_OF, VIEW, toy_examples, tuned, tuning_batch

from multiway.abilities import Encoded, LacksAbility, abilities_of
from multiway.config import ConfigError, to_json
from multiway.data.processor import Processor
from multiway.engine.optim import OptimiserSpec, parameter_groups
from multiway.hub.file import read_model, write_model
from multiway.hub.model import Model
from multiway.methods.clip import Clip
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.methods.layer_decay import layer_rates
from multiway.methods.method import Step
from multiway.nn.vit import VisionConfig
from multiway.tasks import TASKS
from multiway.world import World

POINTS = [name for name in METHODS if name != "coca"]
CASES = [(name, kind) for name in METHODS for kind in KINDS if kind != "pointed" or name in POINTS]
ABLE = {"asked": "answer", "judged": "judge", "two": "judge", "chosen": "choose", "pointed": "point"}


def loss_of(method: FineTune, batch: Any) -> Any:
    return method(batch, World(), Step())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_teaches_method_and_head(name: str, kind: str) -> None:
    method = tuned(name, kind).train()
    losses = loss_of(method, tuning_batch(kind))
    losses.total.backward()
    (term,) = losses.terms.values()
    assert torch.isfinite(losses.total) and term.chance is not None and 0 <= losses.report["accuracy"] <= 1
    assert losses.total > 0.2 * term.chance
    learns = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(n.startswith("head.") for n in learns)
    assert any(n.startswith("base.") and ("word" in n or "text" in n) for n in learns)
    if method.sees:
        assert any(n.startswith("base.") and ("image" in n or "patches" in n) for n in learns)
    assert ABLE[kind] in abilities_of(method) and "encode_image" in abilities_of(method)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_it_still_does_what_the_method_does(name: str) -> None:
    method = tuned(name)
    assert set(abilities_of(method)) == {*abilities_of(method.base), "encode_image", "answer"}
    batch = tuning_batch()
    text = method.encode_text(batch.text, batch.text_mask)
    if "compare" in abilities_of(method.base):
        image = method.encode_image(batch.images)
        assert torch.equal(method.compare(image, text), method.base.compare(image, text))
    if "fuse" in abilities_of(method.base):
        assert method.fused_width == method.base.fused_width
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = method.nothing_of_the_kind


@torch.no_grad()
def test_the_adapter_of_a_dual_encoder_is_the_formula() -> None:
    method, batch = tuned("clip"), tuning_batch()
    v = method.base.encode_image(batch.images).embedding[batch.pictures[:, 0]]
    t = method.base.encode_text(batch.text, batch.text_mask).embedding
    wanted = method.head(torch.cat([v, t, v * t, abs(v - t)], 1))
    torch.testing.assert_close(method.encode(batch, Step())["logits"], wanted)
    # FILIP has no embedding: the mean of the real tokens stands for it.
    filip = tuned("filip")
    text = filip.encode_text(batch.text, batch.text_mask)
    rows = [tokens[mask].mean(0) for tokens, mask in zip(text.tokens, text.mask, strict=True)]
    image = filip.encode_image(batch.images).rows(batch.pictures[:, 0])
    v, t = image.tokens.mean(1), torch.stack(rows)
    torch.testing.assert_close(filip.answer(image, text), filip.head(torch.cat([v, t, v * t, abs(v - t)], 1)))


@torch.no_grad()
def test_the_head_of_a_fused_method_reads_its_pairs() -> None:
    method, batch = tuned("albef"), tuning_batch()
    image, text = method.base.encode_image(batch.images), method.base.encode_text(batch.text, batch.text_mask)
    for row in range(len(batch)):
        pair = method.base.fuse(image.rows(batch.pictures[row]), text.rows(torch.tensor([row]))).pooled
        torch.testing.assert_close(method.encode(batch, Step())["logits"][row], method.head(pair)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["albef", "clip", "bert", "simvlm"])
@torch.no_grad()
def test_the_blind_see_nothing_to_the_bit(name: str, kind: str) -> None:
    batch = tuning_batch(kind)
    other = replace(batch, images=batch.images.flip(0) + torch.randn_like(batch.images))
    blind = tuned(name, kind, blind=name != "bert")
    assert torch.equal(blind.encode(batch, Step())["logits"], blind.encode(other, Step())["logits"])
    if name != "bert":
        seeing = tuned(name, kind)
        assert not torch.equal(seeing.encode(batch, Step())["logits"], seeing.encode(other, Step())["logits"])
        # What it is compared with is the same method, and the rest of the batch still counts.
        assert len(blind.state_dict()) == len(seeing.state_dict())
    if kind == "asked":
        words = replace(batch, text=batch.text.roll(1, 0), text_mask=batch.text_mask.roll(1, 0))
        assert not torch.equal(blind.encode(batch, Step())["logits"], blind.encode(words, Step())["logits"])


TWO = [
    (name, two) for name in FUSED for two in ("pair", "triplet", "pair-attention") if (name, two) != ("vlmo", "triplet")
]


@pytest.mark.parametrize(("name", "two"), [*TWO, ("clip", "pair"), ("filip", "pair")])
@torch.no_grad()
def test_of_two_pictures_each_and_their_order_matter(name: str, two: Any) -> None:
    method, batch = tuned(name, "two", two=two), tuning_batch("two")
    randomise(method)

    def scores(pictures: torch.Tensor) -> torch.Tensor:
        return method.encode(replace(batch, pictures=pictures), Step())["logits"]

    own, count = scores(batch.pictures), len(batch.images)
    for changed in (batch.pictures.flip(1), *((batch.pictures + torch.tensor(by)) % count for by in ((0, 1), (1, 0)))):
        assert ((scores(changed) - own).abs() > 1e-5).any(1).all(), changed
    assert torch.equal(scores(batch.pictures.clone()), own)


def test_two_pictures_are_refused_where_they_cannot_be_read_together() -> None:
    with pytest.raises(ConfigError, match=r"vlmo does not read two pictures in one sequence.*--method.two pair"):
        tuned("vlmo", "two", two="triplet")
    for two in ("triplet", "pair-attention"):
        with pytest.raises(ConfigError, match=f"clip reads no picture with its text.*given {two}"):
            tuned("clip", "two", two=two)
    method = tuned("albef", "two")
    one = Encoded(torch.zeros(1, 0), torch.zeros(1, 3, 24))
    with pytest.raises(ValueError, match="1 pictures for each sentence; this model was tuned with 2"):
        method.judge((one,), one)


@pytest.mark.parametrize("name", ["albef", "clip"])
@torch.no_grad()
def test_choices_that_are_not_there_change_nothing(name: str) -> None:
    method, batch = tuned(name, "chosen"), tuning_batch("chosen")
    assert not batch.choices_mask.any(2).all(), "the test needs unequal numbers of choices"
    reps = method.encode(batch, Step())
    for row in range(len(batch)):
        count = int(batch.choices_mask[row].any(1).sum())
        alone = replace(
            batch.rows(row, row + 1),
            choices=batch.choices[row : row + 1, :count],
            choices_mask=batch.choices_mask[row : row + 1, :count],
        )
        torch.testing.assert_close(method.encode(alone, Step())["logits"][0], reps["logits"][row, :count])
        assert (reps["logits"][row, count:] < -1e30).all()
    noise = batch.choices.masked_fill(~batch.choices_mask.any(2)[..., None], 9)
    assert torch.equal(method.encode(replace(batch, choices=noise), Step())["logits"], reps["logits"])
    chance = method.losses(reps, {}, batch, World(), Step()).terms["choose"].chance
    assert chance == pytest.approx(float(batch.choices_mask.any(2).sum(1).double().log().mean()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["albef", "clip"])
def test_micro_batches_give_the_gradient_of_the_whole(name: str, kind: str) -> None:
    method, batch = tuned(name, kind), tuning_batch(kind)

    def gradient(parts: int) -> dict[str, torch.Tensor]:
        method.zero_grad()
        for part in range(parts):
            size = len(batch) // parts
            (loss_of(method, batch.rows(part * size, (part + 1) * size)).total / parts).backward()
        return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}

    whole, split = gradient(1), gradient(4)
    assert whole.keys() == split.keys()
    for each in whole:
        torch.testing.assert_close(split[each], whole[each], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in ("albef", "clip", "bert", "beit3-itc") for k in KINDS])
@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name: str, kind: str, tmp_path: Path) -> None:
    method = tuned(name, kind)
    write_model(tmp_path / "model.safetensors", method, Processor(VIEW, WORDS))
    model = read_model(tmp_path / "model.safetensors")
    assert isinstance(model, Model) and ABLE[kind] in model.abilities()
    task, examples = replace(TASKS[TASK_OF[kind]], resamples=20), toy_examples(kind)  # type: ignore[type-var]
    result = task.run(model, examples)
    assert result.metrics and result.details == task.run(Model(method, Processor(VIEW, WORDS)), examples).details
    # In smaller batches the same but for rounding.
    model.batch = 5
    ours = [metric.value for metric in task.run(model, examples).metrics.values()]
    assert ours == pytest.approx([metric.value for metric in result.metrics.values()], abs=0.1)
    with pytest.raises(LacksAbility, match="lacks"):
        TASKS["vcr" if kind != "chosen" else "vqa"].run(model, examples)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": ""}, "name a run"),
        ({"answers": ("one",)}, "1 answers leave nothing to choose"),
        ({"pictures": 2}, "asked examples are about one picture.*given 2"),
        ({"kind": "judged", "pictures": 3}, "judged ones about one or two; given 3"),
        ({"head_rate": 0.0}, "given head_rate 0"),
        ({"layer_decay": 1.5}, "layer_decay 1.5"),
    ],
)
def test_what_cannot_be_tuned_is_refused(options: dict, complaint: str) -> None:
    good = tuned("clip").config
    with pytest.raises(ConfigError, match=complaint):
        FineTune(replace(good, **options))


def test_what_reads_no_text_or_keeps_no_patches_is_refused() -> None:
    captioner = replace(METHODS["blip"].resolve(INFO), lacks=("encode_text", "compare", "match", "match_with_maps"))
    with pytest.raises(ConfigError, match="blip does not read pictures and texts"):
        FineTune(FineTuneConfig("blip", to_json(captioner), answers=("a", "b")))
    with pytest.raises(ConfigError, match="coca keeps of a picture 6 queries, which lie nowhere"):
        tuned("coca", "pointed")


# --- learning rates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_rates_fall_from_block_to_block(name: str) -> None:
    method = tuned(name, "two" if name == "albef" else "asked", head_rate=5.0, layer_decay=0.5)
    groups = parameter_groups(method, OptimiserSpec(), method.learning_rates())  # each rule fits some parameter
    factors = {n: group["factor"] for group in groups for n in group["names"]}
    assert all(factor == 5.0 for n, factor in factors.items() if n.startswith("head."))
    for n, factor in factors.items():
        if ".blocks.1." in n:
            assert factor == 0.5
        elif ".blocks.0." in n:
            assert factor == (0.5 if n.replace(".blocks.0.", ".blocks.1.") not in factors else 0.25)
        elif n.endswith(("patches.project.weight", "words.weight", ".positions")) and n.startswith("base."):
            assert factor in (0.125, 0.25), n
    twins = [n for n, p in method.named_parameters() if not p.requires_grad]
    assert not set(twins) & set(factors) and (name not in ("albef", "blip") or twins)


def test_each_tower_counts_its_own_blocks() -> None:
    config = replace(METHODS["clip"], image=VisionConfig(size=16, patch=4, width=24, layers=3, heads=2))
    rates = layer_rates(Clip(config.resolve(INFO)), 0.5)
    factor = {name: next(f for pattern, f in rates if re.search(pattern, name)) for name in (
        "image.transformer.blocks.0.x", "image.transformer.blocks.2.x", "image.positions",
        "text.transformer.blocks.0.x", "text.embed.words.weight")}  # fmt: skip
    assert list(factor.values()) == [0.125, 0.5, 0.0625, 0.25, 0.125]
    assert not any(re.search(pattern, "image_projection.weight") for pattern, _ in rates)


def test_every_rate_is_the_same_by_default() -> None:
    method = tuned("clip")
    assert method.learning_rates() == [(r"^(head|attend|sides)\.", 3.0)]
    assert {*DUAL, *BLIND} <= {*METHODS}
