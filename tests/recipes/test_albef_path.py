"""ALBEF through the command line, on what users really have: ruined files, kills, a NaN, two ranks, and hardly any data."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from command_line import QUICK, kill_after, multiway, own_data
from PIL import Image
from safetensors.torch import load_file

from multiway.cli.main import main
from multiway.engine.checkpoint import read
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.methods.albef import Albef
from multiway.methods.method import Losses

TINY = [
    *QUICK, "--batch", "16", "--lr", "0.002", "--tokenizer.vocabulary", "300", "--tokenizer.context", "24",
    "--method.image.layers", "1", "--method.text.layers", "1", "--method.fusion-layers", "1", "--method.queue", "40",
]  # fmt: skip


def command(folder: Path, out: str, *more: str) -> list[str]:
    return ["train", "albef", *own_data(folder, out), *TINY, *more]


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]


def write(folder: Path, rows: list[dict], split: str = "train") -> None:
    (folder / "captions.jsonl").write_text("\n".join(json.dumps({"split": split, **row}) for row in rows))


def finite(run: Path) -> list[dict]:
    """The lines of a run whose every loss and report is a number."""
    lines = Run.read(run).metrics()
    for line in lines:
        assert not line.get("skipped"), line
        values = [line["loss"], line["grad_norm"], *(term["value"] for term in line["terms"].values())]
        values += [*(term["chance"] for term in line["terms"].values()), *line["report"].values()]
        assert all(isinstance(value, float | int) and math.isfinite(value) for value in values), line
    return lines


# --- ruined inputs ---------------------------------------------------------------------------------------------------


def header(width: int, height: int) -> bytes:
    """A PNG of one pixel that says it is larger."""
    import io
    import struct
    import zlib

    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def ruin(folder: Path) -> dict[str, set[str]]:
    """Adds one row of each kind of ruin; which pictures cannot be trained on, by when that is found out."""
    pictures = folder / "pictures"
    plain = Image.open(pictures / "000.png").convert("RGB").resize((40, 30))
    glass = plain.quantize(8)
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    noise.save(pictures / "truncated.jpg")
    whole = (pictures / "truncated.jpg").read_bytes()
    (pictures / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "page.png").write_text("<!DOCTYPE html><html>404 Not Found</html>")
    (pictures / "bomb.png").write_bytes(header(60_000, 60_000))
    plain.resize((1, 1)).save(pictures / "dot.png")
    plain.save(pictures / "moving.gif", save_all=True, append_images=[noise.resize((40, 30))])
    plain.convert("CMYK").save(pictures / "print.jpg")
    glass.save(pictures / "glass.png", transparency=0)
    shutil.copy(pictures / "001.png", pictures / "copy.png")
    good = "a red thing on the left"
    captions = {
        "truncated.jpg": good, "page.png": good, "bomb.png": good, "dot.png": good, "moving.gif": good,
        "print.jpg": good, "glass.png": good, "copy.png": "green on the left", "missing.png": good,
        "002.png": "  ", "003.png": "word " * 20_000, "004.png": "\N{RED APPLE}\N{GRINNING FACE}\N{RED APPLE}",
        "005.png": "red\0green", "006.png": "\u05d0\u05d3\u05d5\u05dd \u202e\u05de\u05e9\u05de\u05d0\u05dc\u202c",
    }  # fmt: skip
    rows = rows_of(folder)
    write(folder, [*rows, *({"image": name, "caption": text} for name, text in captions.items()), rows[7], rows[7]])
    return {
        "opened": {"missing.png", "line 106", "line 107"},
        "decoded": {"truncated.jpg", "page.png", "bomb.png"},
    }


def test_ruined_pictures_and_captions_are_counted_and_trained_around(
    caption_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = ruin(caption_folder)
    # An epoch is 109 rows: 14 steps of 16 are two of them, and every row is met.
    assert main(command(caption_folder, "run", "--steps", "14")) == 0
    said = " ".join(capsys.readouterr().err.split())
    run = caption_folder / "run"
    assert len(finite(run)) == 14
    skipped = Run.read(run).skipped()
    opened = [line for line in skipped if line["step"] == 0]
    decoded = [line for line in skipped if line["step"] > 0]
    for names, found in ((left_out["opened"], opened), (left_out["decoded"], decoded)):
        text = json.dumps(found)
        assert all(name in text for name in names), (names, text)
    assert len(opened) == len(left_out["opened"]) and f"{len(opened)} rows were left out" in said
    assert f"{len(decoded)} unreadable rows replaced (see skipped.jsonl)" in said
    assert len(decoded) >= len(left_out["decoded"])
    # What was trained can be used, and is finite.
    embedding = load(run).encode_text(["\N{RED APPLE}", "red\0green", "\u05d0\u05d3\u05d5\u05dd", "red " * 5000])
    assert torch.isfinite(embedding.embedding).all()


# --- a kill ----------------------------------------------------------------------------------------------------------


def parts(file: Path) -> tuple[dict, bytes]:
    """The header of a safetensors file as JSON, whose keys stand in no particular order, and the tensors' bytes."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), data[start:]


@pytest.mark.slow
def test_killed_and_started_again_twin_and_queue_are_the_same_too(caption_folder: Path) -> None:
    steps = 24
    more = [
        "--steps",
        str(steps),
        "--checkpoint-every",
        "3",
        "--method.text.dropout",
        "0.1",
        "--view.augment",
        "affine",
    ]
    straight = multiway(*command(caption_folder, "straight", *more))
    assert straight.returncode == 0, straight.stderr
    args = command(caption_folder, "killed", *more)
    for wanted in (5, 16):
        kill_after(args, caption_folder / "killed", wanted)
    final = multiway(*args)
    assert final.returncode == 0 and "resuming at step" in final.stderr, final.stderr
    one, other = caption_folder / "straight", caption_folder / "killed"
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    weights = load_file(one / "model.safetensors")
    for part in range(2):  # header, tensors
        assert parts(one / "model.safetensors")[part] == parts(other / "model.safetensors")[part]
    # The queue has gone round several times, and the twin is neither the student nor where it began.
    assert any(name.startswith("queue.") for name in weights)
    assert int(weights["queue.text_id"].count_nonzero()) == 40
    student, twin = (weights[f"{who}.image_projection.weight"] for who in ("student", "twin"))
    assert 0 < float((student - twin).norm()) < float(student.norm())
    # Whatever else the checkpoint holds: optimiser's moments and counts.
    (tensors, scalars), (others, said) = (read(run / "checkpoints" / f"step-{steps:08}") for run in (one, other))
    assert scalars == said and tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


# --- a NaN -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["itc", "mlm"])
def test_a_step_with_nan_leaves_twin_and_queue_as_they_were(
    term: str, caption_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    real = Albef.losses

    def poisoned(self, reps, pairs, batch, world, step) -> Losses:
        states.append({name: tensor.clone() for name, tensor in self.state_dict().items()})
        losses = real(self, reps, pairs, batch, world, step)
        if step.index == 3:
            losses.terms[term].value = losses.terms[term].value * float("nan")
            losses.updates = {name: tensor * float("nan") for name, tensor in losses.updates.items()}
        return losses

    monkeypatch.setattr(Albef, "losses", poisoned)
    assert main(command(caption_folder, "run", "--steps", "6")) == 0
    assert "1 steps skipped because their gradient was not finite" in " ".join(capsys.readouterr().err.split())
    assert [line["step"] for line in Run.read(caption_folder / "run").metrics() if line.get("skipped")] == [4]
    before, after, later = states[3:6]
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], later[name])}
    assert {"student", "twin", "queue"} <= moved
    ended = load_file(caption_folder / "run" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in ended.values())


# --- two ranks -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_ranks_compute_what_one_does_while_pairs_are_aligned(caption_folder: Path) -> None:
    """Student, twin, queue and optimiser, over four steps of ITC; then the fused half, whose negatives are each rank's own."""
    more = ["--steps", "8", "--checkpoint-every", "4", "--keep-last", "4", "--method.align", "0.5"]
    assert "40" in TINY  # a queue that 16 rows do not divide: of a batch that is half gone, it matters who came first
    alone = multiway(*command(caption_folder, "one", *more))
    assert alone.returncode == 0, alone.stderr
    together = multiway(*command(caption_folder, "two", *more), ranks=2)
    assert together.returncode == 0, together.stderr[-3000:]
    one, two = (finite(caption_folder / name) for name in ("one", "two"))
    assert len(one) == len(two) == 8
    for first, second in zip(one[:4], two[:4], strict=True):
        assert set(first["terms"]) == {"itc"} == set(second["terms"])
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
        assert second["terms"]["itc"]["chance"] == pytest.approx(first["terms"]["itc"]["chance"])
    # The queue holds both ranks' rows, or the candidates of the fifth step would differ.
    assert two[4]["terms"]["itc"]["value"] == pytest.approx(one[4]["terms"]["itc"]["value"], rel=1e-4)
    assert set(one[4]["terms"]) == {"itc", "itm", "mlm"} == set(two[4]["terms"])
    assert two[4]["terms"]["itm"]["chance"] == one[4]["terms"]["itm"]["chance"]
    for first, second in zip(one[4:], two[4:], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=0.1)
    (tensors, _), (others, _) = (read(caption_folder / run / "checkpoints" / "step-00000004") for run in ("one", "two"))
    assert tensors.keys() == others.keys()
    for name in tensors:
        one_, two_ = tensors[name], others[name]
        if one_.is_floating_point():
            assert torch.allclose(one_, two_, atol=2e-5, rtol=1e-3), name
        else:
            assert torch.equal(one_, two_), name


# --- hardly any data -------------------------------------------------------------------------------------------------


def test_captions_of_one_token(caption_folder: Path) -> None:
    """The one word there is is always masked; what is left to guess from is the picture."""
    write(
        caption_folder,
        [{**row, "caption": random.Random(i).choice("abc")} for i, row in enumerate(rows_of(caption_folder))],
    )
    assert main(command(caption_folder, "run", "--steps", "4")) == 0
    for line in finite(caption_folder / "run"):
        assert line["terms"]["mlm"]["value"] > 0 and line["terms"]["mlm"]["chance"] < math.log(3) + 1e-6


def test_captions_that_are_all_the_same_have_no_negatives(caption_folder: Path) -> None:
    """Matching counts pairs alone, and contrast has positives alone: nothing to learn, and nothing that is not a number."""
    write(caption_folder, [{**row, "caption": "an image"} for row in rows_of(caption_folder)])
    assert main(command(caption_folder, "run", "--steps", "4")) == 0
    for line in finite(caption_folder / "run"):
        assert line["terms"]["itm"]["chance"] == 0.0 and line["report"]["match_negative"] == 0.0


def test_one_picture_with_many_captions_has_no_negatives_either(caption_folder: Path) -> None:
    rows = rows_of(caption_folder)
    write(caption_folder, [{**row, "image": rows[0]["image"], "caption": f"caption {i}"} for i, row in enumerate(rows)])
    assert main(command(caption_folder, "run", "--steps", "3")) == 0
    for line in finite(caption_folder / "run"):
        assert line["terms"]["itm"]["chance"] == 0.0


@pytest.mark.parametrize("rows", [1, 5])
def test_fewer_rows_than_the_batch(rows: int, caption_folder: Path) -> None:
    """A batch then holds a row several times; those are no negatives of each other."""
    write(caption_folder, [{**row, "caption": row["caption"][0]} for row in rows_of(caption_folder)[:rows]])
    assert main(command(caption_folder, "run", "--steps", "4")) == 0
    lines = finite(caption_folder / "run")
    expected = 0.0 if rows == 1 else pytest.approx(0.6365, abs=1e-4)
    assert [line["terms"]["itm"]["chance"] for line in lines] == [expected] * 4
