"""Runs in a row: of a recipe's own, and written out on the command line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import QUICK, own_data
from safetensors.torch import load_file
from torch.nn import functional as F

from multiway.cli.main import main
from multiway.config import ConfigError
from multiway.engine.run import Run
from multiway.recipes import recipe_function
from multiway.recipes.clip import ClipRecipe, clip
from multiway.recipes.clipa import ClipaRecipe
from multiway.recipes.command import planned
from multiway.recipes.flip import FlipRecipe
from multiway.recipes.stages import Stage, as_recipe, changed, derived, runs, split_stages

SMALL = [*QUICK, "--method.image.patch", "4", "--method.image.layers", "1", "--method.text.layers", "1", "--batch", "8"]


def test_a_stage_is_the_recipe_with_some_fields_changed() -> None:
    recipe = replace(clip(), out="runs/x", init="runs/before")
    first, last = runs(
        recipe, (Stage("a"), Stage("b", {"settings.optimiser.warmup": 3.0, "view.size": 32, "data": "digits"}))
    )
    assert first == ("1-a", replace(recipe, out="runs/x/1-a"))
    name, part = last
    assert name == "2-b" and part.init == "runs/x/1-a" and part.out == "runs/x/2-b" and part.data == "digits"
    assert part.settings.optimiser == replace(recipe.settings.optimiser, warmup=3.0) and part.view.size == 32
    own = runs(recipe, (Stage("a"), Stage("b", {"init": "image=runs/c"})))
    assert own[1][1].init == "image=runs/c"  # what is said stands
    for wrong in ("veiw.size", "view.sise", "data.size"):
        with pytest.raises(
            ConfigError, match=f"has no field '{wrong.partition('.')[2] or wrong}'|has no field '{wrong}'"
        ):
            changed(recipe, {wrong: 1})
    assert as_recipe(derived(clip(), FlipRecipe, tune_steps=7), ClipRecipe) == clip()


def test_options_are_shared_out() -> None:
    args = ["clip", "--lr", "1", "--stage", "a", "--drop", "0.5", "--stage=b-2", "--steps", "3"]
    assert split_stages(args) == (["clip", "--lr", "1"], [("a", ["--drop", "0.5"]), ("b-2", ["--steps", "3"])])
    assert split_stages(["clip"]) == (["clip"], [])
    # Wherever it stands nothing is trained; where the last stage goes is nothing that one may say alone.
    assert split_stages(["clip", "--stage", "a", "--dry-run"]) == (["clip", "--dry-run"], [("a", [])])
    for late in (["--out", "x"], ["--out=x"]):
        with pytest.raises(ConfigError, match="give --out before the first"):
            split_stages(["clip", "--stage", "a", *late])
    for wrong in (
        ["clip", "--stage"],
        ["clip", "--stage", "--lr", "1"],
        ["clip", "--stage", "../a"],
        ["clip", "--stage="],
    ):
        with pytest.raises(ConfigError, match="expected a name of letters"):
            split_stages(wrong)


def test_the_command_line_gives_each_stage_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    stages = planned([
        "siglip", "--batch", "32", "--seed", "5", "--stage", "a", "--drop", "0.5", "--data", "digits",
        "--stage", "b", "--optimiser.unfreeze", "^image", "0.5", "--batch", "16",
    ])  # fmt: skip
    assert [(name, part.out, part.init) for name, part in stages] == [
        ("1-a", "runs/siglip-tiny/1-a", ""),
        ("2-b", "runs/siglip-tiny/2-b", "runs/siglip-tiny/1-a"),
    ]
    (_, first), (_, last) = stages
    assert isinstance(first, type(last)) and (first.drop, first.data, first.settings.batch) == (0.5, "digits", 32)  # type: ignore[attr-defined]
    assert (last.drop, last.settings.batch, last.settings.seed) == (0.0, 16, 5)  # type: ignore[attr-defined]
    assert last.settings.optimiser.unfreeze == (("^image", 0.5),)
    assert [name for name, _ in planned(["clip", "--out", "a"])] == [""]
    for args, complaint in (
        (["clip", "--stage"], "expected a name"),
        (["flip", "--stage", "a"], "flip has stages of its own (1-dropped, 2-whole)"),
        (["clip", "--stage", "a", "--dorp", "0.5"], "--dorp"),
    ):
        with pytest.raises(SystemExit):
            planned(args)
        assert complaint in capsys.readouterr().err


def test_flip_and_clipa_are_clip_in_two_stages() -> None:
    flip = replace(recipe_function("flip")(), out="o")
    assert isinstance(flip, FlipRecipe)
    (_, dropped), (_, whole) = flip.stages()
    assert type(dropped) is ClipRecipe and dropped.name == "clip" and dropped.drop == 0.5
    assert whole.drop == 0.0 and whole.settings.steps == whole.settings.end_of_schedule == 60  # type: ignore[attr-defined]
    large = recipe_function("flip")("vit-l-14")
    assert large.tune_steps * large.settings.batch == pytest.approx(0.32 * 400e6, rel=1e-3)  # type: ignore[attr-defined]

    clipa = replace(recipe_function("clipa")("vit-l-14"), out="o")
    assert isinstance(clipa, ClipaRecipe)
    (_, short), (_, full) = clipa.stages()
    assert (short.view.size, short.method.image.size, short.tokenizer.context, short.method.text.context) == (
        84,
        84,
        8,
        8,
    )
    assert (full.view.size, full.method.image.size, full.init_context, full.method.text.context) == (224, 224, 32, 32)
    # The authors' configurations: 8e-6 x B / 256, a tenth of it for 131 M samples.
    assert short.settings.lr == pytest.approx(2.048e-3) and full.settings.lr == pytest.approx(1.024e-4)
    assert full.settings.steps * full.settings.batch == 131_072_000 and short.method.image.positions == "sincos"
    with pytest.raises(KeyError, match="CLIPA has no preset `rn50`"):
        recipe_function("clipa")("rn50")
    with pytest.raises(ConfigError, match="expected a ViT whose patches divide"):
        replace(clipa, short_size=90)


def test_every_stage_is_a_run_that_begins_from_the_one_before(
    caption_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the second stage, the same command goes on there; once more, it changes nothing."""
    data = own_data(caption_folder, "run")
    stages = ["--stage", "dropped", "--drop", "0.5", "--steps", "3", "--stage", "whole", "--lr", "1e-12"]
    args = ["train", "clip", *data, *SMALL, *stages]
    assert main([*args, "--steps", "2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "stage 1-dropped of 2" in shown and "stage 2-whole of 2" in shown and "is not trained yet" in shown
    assert main([*args, "--steps", "2", "--horizon", "4"]) == 0
    first, last = (Run.read(caption_folder / "run" / name) for name in ("1-dropped", "2-whole"))
    assert first.config["drop"] == 0.5 and "drop" not in last.config and last.config["init"] == str(first.path)
    weights = [load_file(each.path / "model.safetensors") for each in (first, last)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)
    before = (first.path / "metrics.jsonl").read_bytes()
    assert main([*args, "--steps", "4"]) == 0  # as if it had been stopped after 2 of 4 steps
    assert len(Run.read(last.path).metrics()) == 4 and (first.path / "metrics.jsonl").read_bytes() == before
    assert main([*args, "--steps", "4"]) == 0 and len(Run.read(last.path).metrics()) == 4


def test_clipa_from_the_command_line_interpolates_positions(caption_folder: Path) -> None:
    args = [
        "train", "clipa", *own_data(caption_folder, "clipa"), *SMALL, "--steps", "2", "--short-size", "8", "--short-context", "5",
        "--tokenizer.context", "12", "--tune-steps", "1", "--tune-batch", "8", "--tune-lr", "1e-12",
    ]  # fmt: skip
    assert main(args) == 0
    folder = caption_folder / "clipa"
    short, full = (load_file(folder / name / "model.safetensors") for name in ("1-short", "2-full"))
    assert short["text.embed.positions"].shape == (5, 32) and short["image.positions"].shape == (4, 32)
    texts = F.interpolate(short["text.embed.positions"].T[None], 12, mode="linear")[0].T
    grid = short["image.positions"].T.view(1, 32, 2, 2)
    pictures = F.interpolate(grid, (4, 4), mode="bicubic").view(32, 16).T
    torch.testing.assert_close(full["text.embed.positions"], texts, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(full["image.positions"], pictures, rtol=1e-5, atol=1e-6)
    assert Run.read(folder / "1-short").config["shorten"] == "block"
    torch.testing.assert_close(full["image.patches.project.weight"], short["image.patches.project.weight"])


def test_another_context_is_asked_for_or_refused(caption_folder: Path) -> None:
    """Positions of texts mean the n-th token: they are interpolated only where that was wanted."""
    data = [*SMALL, "--steps", "1"]
    assert (
        main(
            [
                "train",
                "clip",
                *own_data(caption_folder, "a"),
                *data,
                "--method.text.context",
                "12",
                "--tokenizer.context",
                "12",
            ]
        )
        == 0
    )
    longer = ["train", "clip", *own_data(caption_folder, "b"), *data, "--init", str(caption_folder / "a")]
    assert main([*longer, "--method.text.context", "16"]) == 1  # of other shapes
    assert main([*longer, "--method.text.context", "16", "--init-context", "16"]) == 0
    with pytest.raises(ConfigError, match="there is no --init"):
        replace(clip(), init_context=8)
