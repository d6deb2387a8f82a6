"""A user's run, through the command line: killed at any moment it ends the same; two ranks compute what one does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import QUICK, kill_after, multiway, own_data
from safetensors.torch import load_file

from multiway.engine.checkpoint import read
from multiway.engine.run import Run
from multiway.recipes.command import parse
from multiway.recipes.training import evaluations

STEPS = 40
TINY = [
    "--steps", str(STEPS), "--batch", "16", "--lr", "0.002", "--checkpoint-every", "4",
    "--method.image.layers", "2", "--method.text.layers", "2",
    # Dropout and augmentation, so that a resumed run must draw the same random numbers.
    "--method.image.dropout", "0.1", "--view.augment", "affine",
]  # fmt: skip


def command(folder: Path, out: str, *more: str) -> list[str]:
    return ["train", "clip", *own_data(folder, out), *QUICK, *TINY, *more]


def test_killed_and_started_again_the_end_is_identical(caption_folder: Path) -> None:
    straight = multiway(*command(caption_folder, "straight"))
    assert straight.returncode == 0, straight.stderr
    args = command(caption_folder, "killed")
    for wanted in (9, 23):
        kill_after(args, caption_folder / "killed", wanted)
    final = multiway(*args)
    assert final.returncode == 0 and "resuming at step" in final.stderr, final.stderr

    one, other = caption_folder / "straight", caption_folder / "killed"
    # Every logged value, to the byte.
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert [line["step"] for line in Run.read(one).metrics()] == list(range(1, STEPS + 1))
    # Every tensor: weights, and both moments and counts of the optimiser.
    weights, again = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert set(weights) == set(again) and all(torch.equal(weights[name], again[name]) for name in weights)
    (tensors, scalars), (twins, others) = (read(run / "checkpoints" / f"step-{STEPS:08}") for run in (one, other))
    assert scalars == others and set(tensors) == set(twins) and any("exp_avg_sq" in name for name in tensors)
    assert all(torch.equal(tensors[name], twins[name]) for name in tensors)
    # And it did learn something, or equality would mean little.
    losses = [line["loss"] for line in Run.read(one).metrics()]
    assert losses[-1] < 0.8 * losses[0]

    # The same command once more changes nothing.
    before = (other / "metrics.jsonl").read_bytes()
    assert multiway(*args).returncode == 0 and (other / "metrics.jsonl").read_bytes() == before

    # A damaged newest checkpoint: the one before it is used, it is said, and the end is the same.
    shard = next((other / "checkpoints" / f"step-{STEPS:08}").glob("*.safetensors"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    repaired = multiway(*args)
    assert repaired.returncode == 0 and "damaged" in repaired.stderr, repaired.stderr
    assert (other / "metrics.jsonl").read_bytes() == before
    again = load_file(other / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    # Another configuration is refused, naming the fields; nothing is touched.
    refused = multiway(*command(caption_folder, "killed", "--lr", "0.5", "--method.embedding", "16"))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "settings.lr" in refused.stderr and "method.embedding" in refused.stderr and "0.5" in refused.stderr
    assert (other / "metrics.jsonl").read_bytes() == before

    # More steps are welcome: the schedule keeps its horizon, so it must be named.
    longer = multiway(*command(caption_folder, "killed", "--steps", str(STEPS + 4), "--horizon", str(STEPS)))
    assert longer.returncode == 0, longer.stderr
    assert [line["step"] for line in Run.read(other).metrics()] == list(range(1, STEPS + 5))


def test_two_ranks_compute_what_one_does(caption_folder: Path) -> None:
    """Same global batch, DDP over gloo: the losses and the trained weights agree."""
    shorter = ["--steps", "8", "--method.image.dropout", "0.0", "--checkpoint-every", "8"]
    alone = multiway(*command(caption_folder, "one", *shorter))
    assert alone.returncode == 0, alone.stderr
    together = multiway(*command(caption_folder, "two", *shorter), ranks=2, fresh=True)  # by torchrun
    assert together.returncode == 0, together.stderr[-3000:]
    one, two = (Run.read(caption_folder / name).metrics() for name in ("one", "two"))
    assert [line["step"] for line in two] == list(range(1, 9))
    for first, second in zip(one, two, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
        assert second["terms"]["itc"]["chance"] == first["terms"]["itc"]["chance"]  # ln 16: all ranks' columns count
    weights, twins = (load_file(caption_folder / name / "model.safetensors") for name in ("one", "two"))
    for name in weights:
        assert torch.allclose(weights[name], twins[name], atol=2e-4), name
    # A run of one rank goes on with two: the number of ranks is not part of a run's identity.
    more = command(caption_folder, "one", *shorter, "--steps", "10", "--horizon", "8")
    switched = multiway(*more, ranks=2)
    assert switched.returncode == 0 and "resuming at step 8" in switched.stderr, switched.stderr[-3000:]


def test_provenance_names_versions_and_data(caption_folder: Path) -> None:
    done = multiway(*command(caption_folder, "run", "--steps", "2"), fresh=True)
    assert done.returncode == 0, done.stderr
    provenance = json.loads((caption_folder / "run" / "provenance.json").read_text())
    assert provenance["starts"][0]["torch"] == torch.__version__ and provenance["data"]
    # Other data under the same name is another run.
    with (caption_folder / "captions.jsonl").open("a") as file:
        file.write(json.dumps({"image": "000.png", "caption": "something new"}) + "\n")
    refused = multiway(*command(caption_folder, "run", "--steps", "2"))
    assert refused.returncode == 1 and "data" in refused.stderr and "Traceback" not in refused.stderr


def test_a_run_starts_from_another_with_its_tokeniser_and_says_so(caption_folder: Path) -> None:
    small = ["--steps", "2", "--checkpoint-every", "2"]
    assert multiway(*command(caption_folder, "first", *small)).returncode == 0
    first = caption_folder / "first"
    again = command(caption_folder, "second", *small, "--tokenizer.vocabulary", "270", "--lr", "1e-12")
    second = multiway(*again, "--init", str(first))
    assert second.returncode == 0, second.stderr
    assert "tensors taken; 100.0% of the method's numbers" in second.stderr.replace("\n", " ")
    weights = [load_file(caption_folder / each / "model.safetensors") for each in ("first", "second")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-6, rtol=1e-4)
    configs = [Run.read(caption_folder / each).config for each in ("first", "second")]
    assert "init_hash" not in configs[0] and len(configs[1]["init_hash"]) == 16
    # The same name with other weights in it is another run.
    assert multiway(*command(caption_folder, "third", *small, "--seed", "1")).returncode == 0
    (caption_folder / "third" / "model.safetensors").replace(first / "model.safetensors")
    other = multiway(*again, "--init", str(first))
    assert other.returncode != 0 and "init_hash" in other.stderr


def test_what_is_held_out_is_the_first_split_that_is_not_learnt_from() -> None:
    start = parse(["clip"])
    for data, found in (
        ("digits", "digits@test"),
        ("emoji", "emoji@random"),
        ("emoji@random", "emoji@train"),
        ("digits@all", ""),
    ):
        recipe = replace(start, data=data, evaluate=("knn=@held-out", "zeroshot=digits@test"))
        assert evaluations(recipe) == [("knn", found)] * bool(found) + [("zeroshot", "digits@test")]
    recipe = replace(start, data="emoji@concept", evaluate=("knn=@random",))
    assert evaluations(recipe) == [("knn", "emoji@random")]  # in place of the split that is trained on
