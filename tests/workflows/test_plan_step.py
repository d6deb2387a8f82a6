"""Work of a step: equal to torch's own count of the real one, and to a formula by hand."""

from dataclasses import replace

import pytest
import torch
from small_recipes import small
from torch.utils.flop_counter import FlopCounterMode

from multiway.data.blur import blur
from multiway.data.source import DataError
from multiway.recipes import RECIPES, recipe_function
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare, run_recipe
from multiway.workflows.plan_batch import SAMPLE, StandIn, hollow_batch, open_rows
from multiway.workflows.plan_fake import shapes_only
from multiway.workflows.plan_meter import Meter
from multiway.workflows.plan_step import trace
from multiway.workflows.step_times import whole_step
from multiway.world import World

SHALLOW = {"clip": ("--method.image.layers", "2", "--method.text.layers", "2"), "albef": ("--method.image.layers", "2")}


@pytest.mark.parametrize("name", ["clip", "mae", "byol", "albef"])
def test_as_torch_counts_the_real_step(name: str) -> None:
    """In bf16, where attention is written out on a processor; torch counts no fused one there."""
    recipe = small(name, "--batch", str(SAMPLE), "--precision", "bf16", *SHALLOW.get(name, ()))
    found = trace(recipe, open_rows(recipe))
    step, ready = whole_step(recipe), prepare(recipe, World())
    with FlopCounterMode(display=False) as counted:
        ready.finish(ready.loader.batch(0))  # some augmentations are convolutions
        step()
    # ALBEF fuses as many different pictures as its negatives happen to name.
    assert found.flops == pytest.approx(counted.get_total_flops(), rel=0.03 if name == "albef" else 1e-9)


def test_a_block_by_hand() -> None:
    """Of N tokens of width W: 24 N W^2 + 4 N^2 W forward (qkv 6, out 2, two layers of 4 W 16; scores and mix), twice that back."""
    rows, width, tokens, patch = 8, 64, 65, 4  # one of them the class token
    base = [
        "--precision",
        "bf16",
        "--method.backbone.width",
        str(width),
        "--method.backbone.patch",
        str(patch),
        "--patches.patch",
        str(patch),
    ]

    def flops(layers: int) -> float:
        recipe = small("simmim", "--batch", str(rows), *base, "--method.backbone.layers", str(layers))
        assert (recipe.method.backbone.size // patch) ** 2 + 1 == tokens
        return trace(recipe, open_rows(recipe)).flops

    assert flops(3) - flops(2) == 3 * rows * (24 * tokens * width**2 + 4 * tokens**2 * width)


def test_attention_is_counted_the_same_written_out_and_fused() -> None:
    """Forward both ways alike; a fused backward computes the scores once more: 5 products instead of 4."""

    def run(fused: bool) -> tuple[float, float]:
        query, key, value = (torch.randn(2, 4, 80, 16, requires_grad=True) for _ in range(3))
        with Meter() as meter:
            if fused:
                mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
            else:
                mixed = torch.softmax(query @ key.transpose(-1, -2), -1) @ value
            forward = sum(each.flops for each in meter.operations)
            mixed.sum().backward()
        return forward, sum(each.flops for each in meter.operations) - forward

    (forward, back), (fused_forward, fused_back) = run(False), run(True)
    assert forward == fused_forward == 2 * 2 * 2 * 4 * 80 * 80 * 16
    assert back == 2 * forward and fused_back == 2.5 * forward


def test_memory_by_hand() -> None:
    """Three tensors of 4 KB, of which at most two are there at once, and a view, which takes nothing."""
    with Meter(block=64) as meter:
        first = torch.ones(1024)
        second = first + 1
        view = second[10:]
        del first
        third = view * 2
    assert meter.peak == 2 * 4096 and meter.total == 2 * 4096 - 0
    assert [each.bytes for each in meter.operations if each.name == "add"] == [2 * 4096]
    del second, view, third
    assert meter.total == 0


def test_micro_batches_are_counted_as_often_as_there_are() -> None:
    """A whole batch in one, and in eight: the same products; cached, the encoders once more forward."""
    whole, parts, cached = (
        trace(recipe, open_rows(recipe))
        for recipe in (
            small("clip", "--batch", "64", *SHALLOW["clip"]),
            small("clip", "--batch", "64", *SHALLOW["clip"], "--accumulate", "8"),
            small("clip", "--batch", "64", *SHALLOW["clip"], "--cache", "8"),
        )
    )
    # Scores against the batch are 64 x 64, or 8 times 8 x 8; all else is the same.
    assert parts.flops == pytest.approx(whole.flops, rel=0.001)
    assert cached.flops == pytest.approx(4 / 3 * whole.flops, rel=0.02)
    assert cached.peak < 0.5 * whole.peak and parts.peak < 0.5 * whole.peak


def test_what_gradient_caching_keeps_elsewhere() -> None:
    recipe = small("albef", "--batch", "32", "--cache", "8", "--precision", "bf16", *SHALLOW["albef"])
    away = replace(recipe, settings=replace(recipe.settings, cache_on_cpu=True))
    here, there = (trace(each, open_rows(each), gpu=True) for each in (recipe, away))
    assert there.peak < here.peak
    assert there.host - here.host == pytest.approx(here.at_peak["gradient cache"], rel=0.25)


def test_ranks_share_the_batch() -> None:
    recipe = small("clip", "--batch", "64", *SHALLOW["clip"])
    one, four = trace(recipe, open_rows(recipe)), trace(recipe, open_rows(recipe), ranks=4)
    assert four.rows == 16 and one.sent == 0 and four.sent > 0
    assert four.flops == pytest.approx(one.flops / 4, rel=0.05)
    with pytest.raises(
        ValueError, match=r"batch 64 does not divide into 3 ranks x 1 micro-batches; choose a multiple of 3"
    ):
        trace(recipe, open_rows(recipe), ranks=3)


def test_caching_is_refused_as_in_training() -> None:
    recipe = small("simclr", "--batch", "32", "--cache", "8")
    with pytest.raises(ValueError, match="batch normalisation"):
        trace(recipe, open_rows(recipe))


def test_a_plan_leaves_nothing_behind() -> None:
    """No draw is taken from anybody's generator, methods are built as before, and nothing without numbers is kept for others."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    recipe = small("dino", "--batch", "8")
    trace(recipe, open_rows(recipe), gpu=True)
    assert torch.equal(torch.rand(4), expected)
    assert recipe.drawn is not None
    for view in recipe.drawn.views:
        even = torch.full((1, 3, view.size, view.size), 0.5)
        torch.testing.assert_close(blur(even, torch.ones(1), view.taps), even)
    assert torch.nn.Linear(4, 4).weight.std() > 0 and type(torch.nn.Linear(4, 4).weight) is torch.nn.Parameter


def test_rows_of_data_and_rows_in_their_place() -> None:
    there = open_rows(small("clip", "--batch", "64"))
    assert there.why_not == "" and 5 < there.tokens <= 32 and there.samples == 256 and there.seconds > 0
    away = open_rows(small("clip", "--data", "nowhere.jsonl", "--batch", "64"), samples=1000)
    assert "nowhere.jsonl" in away.why_not and away.tokens == 32 and away.samples == 1000 and away.seconds == 0
    assert away.info.vocabulary == 300
    short = open_rows(small("clip", "--data", "nowhere.jsonl", "--batch", "64"), tokens=9)
    with shapes_only():
        batch = hollow_batch(short, 50)
        assert batch.text is not None and batch.images is not None and batch.image_id is not None
        assert batch.text.shape == (50, 9) and batch.images.shape[0] == 50 and len(batch) == 50
        assert batch.image_id.unique().shape == (50,)


def test_a_published_size_on_the_bundled_pictures_is_not_what_is_meant() -> None:
    """Its captions would be a fifth as long as those that it is made for."""
    rows = open_rows(recipe_function("clip")("vit-b-32"))
    assert "not what clip vit-b-32 is made for" in rows.why_not and rows.tokens == 77


def test_a_stand_in_is_a_source() -> None:
    source = StandIn("web", 10, 5, 8)
    assert len(source) == 10 and source.row(3).captions != source.row(4).captions and source.image(0).size == (8, 8)
    assert source.row(1).image_id != source.row(2).image_id
    with pytest.raises(DataError):
        small("clip", "--data", "nowhere.jsonl").open("nowhere.jsonl", "train")


def _runs(recipe: Recipe, gpu: bool) -> None:
    found = trace(recipe, open_rows(recipe), gpu=gpu)
    assert found.peak > sum(found.persistent.values()) > 0 and found.flops > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("vqkd", "beit", "beit3")])
def test_every_recipe(name: str) -> None:
    """Those left out need another run."""
    _runs(small(name, "--batch", "16"), gpu=True)


@pytest.mark.slow
def test_a_recipe_that_borrows(tmp_path) -> None:
    white = ["--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5"]
    quick = ["--steps", "1", "--batch", "8", "--view.crop", "squash", "--view.augment", "none"]
    run_recipe(small("clip", *white, *quick, "--out", str(tmp_path / "teacher")), World())
    tokeniser = small("vqkd", "--teacher", str(tmp_path / "teacher"), "--steps", "1", "--batch", "8")
    _runs(tokeniser, gpu=False)
    run_recipe(replace(tokeniser, out=str(tmp_path / "codes")), World())
    _runs(small("beit", "--codes", str(tmp_path / "codes"), "--batch", "8"), gpu=True)
    _runs(small("beit3", "--codes", str(tmp_path / "codes"), "--batch", "32"), gpu=True)
