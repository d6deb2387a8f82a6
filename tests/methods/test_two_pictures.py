"""ALBEF and BLIP with two pictures: what they make of them, how they begin from a run with one, and text assignment."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from multiway_batches import INFO, toy_batch
from peer_weights import randomise
from torch import Tensor

from multiway.abilities import Encoded, FusesTwo, abilities_of
from multiway.batch import Batch
from multiway.hub.file import WeightsError
from multiway.hub.start import Started, start_from
from multiway.losses.ta import thirds
from multiway.methods import METHODS, method_class
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.blip import BlipConfig
from multiway.methods.method import Method, Step
from multiway.methods.text_assignment import TextAssignment
from multiway.methods.two_pictures import AlbefTwo, BlipTwo
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes import recipe_function
from multiway.world import World

VISION = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2)
READER = TextConfig(width=32, layers=2, heads=2, causal=False, pool="class")
CONFIGS: dict[str, Any] = {
    "albef": AlbefConfig(image=VISION, text=READER, embedding=20, queue=16).resolve(INFO),
    "blip": BlipConfig(image=VISION, text=replace(READER, cross_width=24), embedding=20, queue=16).resolve(INFO),
}
BOTH = pytest.mark.parametrize("name", CONFIGS)
BATCH, OTHER = toy_batch(8), toy_batch(8, 1).images
LATE = Step(index=90, epoch=3, progress=0.9)


def one(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return randomise(method_class(name)(CONFIGS[name]))  # type: ignore[call-arg]


@cache
def two(name: str) -> Any:
    torch.manual_seed(0)
    return randomise(method_class(method_class(name).two_pictures)(CONFIGS[name]))  # type: ignore[call-arg]


def begun(method: Method, run: Method) -> Started:
    """As `--init` does it."""
    return start_from(method, method.adopt(run.state_dict()), "runs/a", own=run.own_state)


def read(method: Any, left: Tensor, right: Tensor, batch: Batch = BATCH) -> Tensor:
    text = method.encode_text(batch.text, batch.text_mask)
    return method.fuse_two(method.encode_image(left), method.encode_image(right), text).pooled


def gap(left: Tensor, right: Tensor) -> float:
    """Relative to the spread over rows, of which there is some."""
    assert left.std(0).mean() > 1e-3
    return ((left - right).abs().max() / left.std(0).mean()).item()


# --- what they make of two pictures ----------------------------------------------------------------------------------------


@BOTH
@torch.no_grad()
def test_both_pictures_their_order_and_the_words_matter(name: str) -> None:
    method = two(name)
    assert isinstance(method, FusesTwo) and "fuse_two" in abilities_of(method)
    fused = read(method, BATCH.images, OTHER)
    assert fused.shape == (8, method.fused_width)
    assert gap(fused, read(method, BATCH.images, OTHER.roll(1, 0))) > 1e-2
    assert gap(fused, read(method, BATCH.images.roll(1, 0), OTHER)) > 1e-2
    assert gap(fused, read(method, OTHER, BATCH.images)) > 1e-2
    turned = replace(BATCH, text=BATCH.text.roll(1, 0), text_mask=BATCH.text_mask.roll(1, 0))
    assert gap(fused, read(method, BATCH.images, OTHER, turned)) > 1e-2


@BOTH
@torch.no_grad()
def test_rows_are_read_by_themselves(name: str) -> None:
    method = two(name)
    fused = read(method, BATCH.images, OTHER)
    for row in range(8):
        length = int(BATCH.text_mask[row].sum())  # without padding
        some = Batch(text=BATCH.text[row : row + 1, :length], text_mask=BATCH.text_mask[row : row + 1, :length])
        alone = read(method, BATCH.images[row : row + 1], OTHER[row : row + 1], some)
        assert gap(fused, torch.cat([fused[:row], alone, fused[row + 1 :]])) < 1e-4


@torch.no_grad()
def test_albef_slowly() -> None:
    """Every block twice, row by row, with the second's own weights and the first's keys and values."""
    method = two("albef")
    fused = read(method, BATCH.images, OTHER)
    for row in range(8):
        length = int(BATCH.text_mask[row].sum())
        _, tokens = method.student.encode_text(BATCH.text[row : row + 1, :length], None)
        pictures = [method.student.encode_image(each[row : row + 1])[1] for each in (BATCH.images, OTHER)]
        for first, second in zip(method.student.fusion.blocks, method.two.blocks, strict=True):
            tokens = first(tokens, pictures[0])
            tokens = second(tokens, first.cross.key_value(pictures[1]))
        assert gap(fused, torch.cat([fused[:row], method.student.fusion.norm(tokens)[:, 0], fused[row + 1 :]])) < 1e-4


@BOTH
@torch.no_grad()
def test_one_picture_is_read_as_before(name: str) -> None:
    """Of its abilities none is lost, and none changes by the parts that are added."""
    method, before = two(name), one(name)
    before.load_state_dict({key: value for key, value in method.state_dict().items() if not key.startswith("two.")})
    assert set(abilities_of(method)) == {*abilities_of(before), "fuse_two"} and "fuse_two" not in abilities_of(before)
    odds = [
        each.match(each.encode_image(BATCH.images), each.encode_text(BATCH.text, BATCH.text_mask))
        for each in (method, before)
    ]
    assert torch.equal(*odds)


def test_a_blip_that_cannot_match_fuses_nothing() -> None:
    captioner = BlipTwo(replace(CONFIGS["blip"], lacks=("encode_text", "compare", "match", "match_with_maps")))
    assert not {"fuse", "fuse_two"} & set(abilities_of(captioner)) and "generate" in abilities_of(captioner)


# --- beginning from a run that reads one -----------------------------------------------------------------------------------


@BOTH
@torch.no_grad()
def test_a_run_with_one_picture_fills_all(name: str) -> None:
    run = one(name, seed=1)
    method = method_class(run.two_pictures)(run.config).eval()
    started = begun(method, run)
    assert not started.new and not started.left and started.numbers[0] == started.numbers[1]
    state, theirs = method.state_dict(), run.state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.items() if not key.startswith(run.own_state))
    if name == "albef":
        ours = {key.removeprefix("two."): value for key, value in state.items() if key.startswith("two.")}
        assert all(torch.equal(value, theirs[f"student.fusion.{key}"]) for key, value in ours.items())
        assert len(ours) == len(run.student.fusion.state_dict()) - 2 * 2 - 2  # keys and values, and the last norm
    else:  # which then makes of equal pictures what it makes of one
        text = run.encode_text(BATCH.text, BATCH.text_mask)
        single = run.fuse(run.encode_image(BATCH.images), text).pooled
        assert gap(single, read(method, BATCH.images, BATCH.images)) < 1e-4
    assert read(method, BATCH.images, OTHER).isfinite().all()


@BOTH
@torch.no_grad()
def test_a_run_with_two_is_taken_as_it_is(name: str) -> None:
    run, method = two(name), method_class(two(name).name)(CONFIGS[name]).eval()  # type: ignore[call-arg]
    started = begun(method, run)
    assert not started.new and not started.left
    assert torch.equal(read(method, BATCH.images, OTHER), read(run, BATCH.images, OTHER))


def test_what_does_not_fit_is_named() -> None:
    deeper = Albef(replace(CONFIGS["albef"], fusion_layers=3))
    with pytest.raises(WeightsError, match=r"left over: student\.fusion\.blocks\.2"):
        begun(AlbefTwo(CONFIGS["albef"]), deeper)
    with pytest.raises(WeightsError, match=r"missing: student\.fusion\.blocks\.2"):
        begun(AlbefTwo(deeper.config), Albef(CONFIGS["albef"]))
    # One that reads one picture has no use for the parts; it is told so.
    with pytest.raises(WeightsError, match=r"left over: two\.blocks\.0"):
        begun(Albef(CONFIGS["albef"]), AlbefTwo(CONFIGS["albef"]))


def test_who_has_a_method_for_two() -> None:
    paired = {name: method_class(name).two_pictures for name in METHODS if method_class(name).two_pictures}
    assert paired == {
        "albef": "albef-two", "albef-two": "albef-two", "albef-ta": "albef-two", "blip": "blip-two", "blip-two": "blip-two",
    }  # fmt: skip
    for name, other in paired.items():
        assert method_class(other).name == other and method_class(other).config_class is method_class(name).config_class


@pytest.mark.parametrize(("kind", "part"), [(AlbefTwo, "fusion"), (BlipTwo, "text")])
def test_every_part_learns_from_pairs_of_pictures(kind: Any, part: str) -> None:
    torch.manual_seed(0)
    method = kind(CONFIGS["albef" if kind is AlbefTwo else "blip"])
    read(method, BATCH.images, OTHER).square().sum().backward()
    for name, parameter in [*method.two.named_parameters(), *getattr(method.student, part).named_parameters()]:
        # The words below are reached, the final position and the keys' bias hardly: it shifts all scores alike.
        assert parameter.grad is not None, name
        if "bias" not in name:
            assert parameter.grad.abs().sum() > 0, name


# --- text assignment -------------------------------------------------------------------------------------------------------


def assigner(seed: int = 0) -> TextAssignment:
    torch.manual_seed(seed)
    return randomise(TextAssignment(CONFIGS["albef"]), seed)  # type: ignore[return-value]


def big() -> Batch:
    return toy_batch(24)


def test_the_loss_is_the_formula() -> None:
    """Row by row: the two pictures and the text, through the doubled blocks and the head."""
    method, batch = assigner(), big()
    torch.manual_seed(5)
    losses = method(batch, World(), LATE)
    torch.manual_seed(5)
    reps = method.encode(batch, LATE)
    pairs = method.mine(reps, batch, World(), LATE)
    assert torch.equal(pairs["labels"], thirds(batch.sample_index, 3)) and len(set(pairs["labels"].tolist())) == 3
    rows = []
    for i in range(24):
        length = int(batch.text_mask[i].sum())
        own, wrong = batch.image_id[i], [int(batch.image_id[pairs[side][i]]) for side in ("left", "right")]
        assert {0: wrong[0] == own != wrong[1], 1: wrong[0] != own == wrong[1]}.get(int(pairs["labels"][i]), True)
        assert wrong[0] != wrong[1]
        text = method.encode_text(batch.text[i : i + 1, :length], None)
        shown = [method.encode_image(batch.images[pairs[side][i : i + 1]]) for side in ("left", "right")]
        rows.append(-method.ta_head(method.fuse_two(*shown, text).pooled).log_softmax(1)[0, pairs["labels"][i]])
    term = losses.terms["ta"]
    torch.testing.assert_close(term.value, torch.stack(rows).mean(), rtol=1e-4, atol=1e-5)
    assert term.chance == pytest.approx(math.log(3)) and term.formula == "ln 3"
    assert all(value.isfinite() for value in losses.report.values()) and losses.report["left_out"] == 0


def test_a_replay_is_exact_and_another_epoch_is_not() -> None:
    method, batch = assigner(), big()
    values = []
    for step in (LATE, LATE, replace(LATE, epoch=4)):
        torch.manual_seed(5)
        values.append(float(method(batch, World(), step).total.detach()))
    assert values[0] == values[1] != values[2]


def test_gradients_reach_what_reads_and_nothing_else() -> None:
    torch.manual_seed(0)
    method = TextAssignment(CONFIGS["albef"])
    method(big(), World(), LATE).total.backward()
    rests = (
        "twin.",
        "temperature",
        "match_head.",
        "student.words.",
        "student.image_projection",
        "student.text_projection",
    )
    for name, parameter in method.named_parameters():
        reached = parameter.grad is not None
        assert reached == (not name.startswith(rests)), name
        assert not reached or "bias" in name or parameter.grad.abs().sum() > 0, name
    assert method.rests  # DDP looks for them


def test_a_step_changes_nothing_by_itself_and_nothing_follows_it() -> None:
    method = assigner().train()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    losses = method(big(), World(), LATE)
    losses.total.backward()
    method.after_step(LATE, losses.updates)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_it_can_learn_which_picture_a_text_belongs_to() -> None:
    """The same arrangements of the same pairs again and again; a head that saw one picture, or no order, would stay at ln 3."""
    torch.manual_seed(0)
    method, batch = TextAssignment(CONFIGS["albef"]), big()
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
    seen = []
    for _ in range(30):
        torch.manual_seed(5)
        losses = method(batch, World(), Step())
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        seen.append(float(losses.total.detach()))
    assert seen[0] > 1.0 and seen[-1] < 0.7, (seen[0], seen[-1])


@torch.no_grad()
def test_it_begins_from_albef_and_is_tuned_without_its_head() -> None:
    """albef -> albef-ta -> the base of a tuned run: nothing is lost but the head, which is its own."""
    run, method, base = one("albef", seed=1), assigner(), AlbefTwo(CONFIGS["albef"]).eval()
    first = begun(method, run)
    assert not first.new and not first.left
    randomise(method, seed=2)
    then = begun(base, method)
    assert not then.new and not then.left
    assert torch.equal(read(base, BATCH.images, OTHER), read(method, BATCH.images, OTHER))
    assert base.name == method.two_pictures and TextAssignment.own_state == ("twin.", "queue.", "ta_head.")


def test_recipes() -> None:
    for preset in ("tiny", "base"):
        recipe = recipe_function("albef-ta")(preset)
        before = recipe_function("albef")(preset)
        assert recipe.method == before.method and recipe.view.size == before.view.size
    assert isinstance(recipe_function("albef-ta")("tiny").build(INFO), TextAssignment)


def test_two_pictures_of_either_size_are_told_apart_from_beams() -> None:
    """One picture for several texts is a mistake here, not a convenience."""
    method = two("albef")
    text = method.encode_text(BATCH.text, BATCH.text_mask)
    image = method.encode_image(BATCH.images)
    single = Encoded(image.embedding[:1], image.tokens[:1])
    with pytest.raises(ValueError, match="8 texts with 8 left and 1 right"):
        method.fuse_two(image, single, text)
