"""Patches left out, a curriculum and parts that join, all in one run: by any number of ranks, and stopped at any step, the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import QUICK, multiway, own_data
from safetensors.torch import load_file

from multiway.cli.main import main
from multiway.engine.run import Run
from multiway.recipes.command import parse
from multiway.recipes.training import prepare
from multiway.world import World

THRIFT = [
    *QUICK, "--batch", "16", "--lr", "0.002", "--horizon", "8", "--checkpoint-every", "8", "--method.image.layers", "2",
    "--method.text.layers", "2", "--method.image.patch", "4", "--drop", "0.5", "--tokenizer.context", "5", "--shorten", "random",
    "--curriculum", "length", "--pacing.start", "0.4", "--pacing.phases", "3", "--method.text.buckets", "2",
    "--optimiser.unfreeze", r"^text\.", "3", "--optimiser.gradual", "0.7",
]  # fmt: skip


def test_ranks_and_stops_change_nothing(caption_folder: Path) -> None:
    def run(out: str, *more: str, ranks: int = 1) -> Run:
        args = ["train", "clip", *own_data(caption_folder, out), *THRIFT, *more]
        if ranks == 1:
            assert main(args) == 0
        else:
            done = multiway(*args, ranks=ranks)
            assert done.returncode == 0, done.stderr[-3000:]
        return Run.read(caption_folder / out)

    alone, together = run("one", "--steps", "8"), run("two", "--steps", "8", ranks=2)
    for first, second in zip(alone.metrics(), together.metrics(), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
    for stop in ("2", "5"):
        run("stopped", "--steps", stop)
    stopped = run("stopped", "--steps", "8")
    assert [each["loss"] for each in stopped.metrics()] == [each["loss"] for each in alone.metrics()]
    weights, again, others = (load_file(each.path / "model.safetensors") for each in (alone, stopped, together))
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=2e-4, msg=name)


def test_other_scores_are_another_run(caption_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = caption_folder / "scores.jsonl"
    args = ["train", "clip", *own_data(caption_folder, "run"), *THRIFT, "--curriculum", str(scores), "--steps", "1"]
    ready = prepare(parse(["clip", *own_data(caption_folder, "x")]), World())
    keys = [ready.source.row(row).key for row in range(len(ready.source))]
    scores.write_text("".join(f'{{"key": "{key}", "score": {place}}}\n' for place, key in enumerate(keys)))
    assert main(args) == 0
    recipe = parse(args[1:])
    paced = prepare(recipe, World())
    rows = paced.loader.batch(0).sample_index
    assert rows is not None and int(rows.max()) < 0.4 * len(keys) + 1 and paced.fingerprint != ready.fingerprint
    scores.write_text("".join(f'{{"key": "{key}", "score": {-place}}}\n' for place, key in enumerate(keys)))
    assert main(args) == 1 and "data fingerprint" in capsys.readouterr().err


def test_what_cannot_be_paced_is_refused() -> None:
    with pytest.raises(SystemExit):  # without a curriculum a pace says nothing
        parse(["clip", "--pacing.start", "0.5"])
    with pytest.raises(ValueError, match="`ibot` learns from other batches"):
        prepare(parse(["ibot", "--data", "digits", "--curriculum", "length"]), World())
    for other in (["--shuffle", "shards"], ["--data", "emoji*1 + digits*3"]):
        with pytest.raises(ValueError, match=r"which rows stand where, and so does another|shards"):
            prepare(parse(["clip", "--curriculum", "length", *other]), World())


def test_what_all_loaders_are_told_is_told_to_these_too() -> None:
    ready = prepare(parse(["clip", "--data", "digits", "--drop", "0.5"]), World())
    assert ready.loader.batch(0).patch_mask is not None
    recipe = replace(ready.recipe, settings=replace(ready.recipe.settings, shuffle="shards", shuffle_window=2))
    with pytest.raises(ValueError, match="shards"):  # digits lie in none, and it is said
        recipe.loader(ready.source, ready.processor.tokenizer, ready.info, World())
