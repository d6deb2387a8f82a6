"""Runs on several sources, on shards in turn and on shards by URL, as a user starts them."""

import json
import os
from pathlib import Path

import pytest
from command_line import QUICK, multiway
from range_server import serving

from multiway.cli.main import main
from multiway.data.open import open_source
from multiway.data.shard_writer import write_shards
from multiway.engine.run import Run
from multiway.recipes.command import parse
from multiway.recipes.training import evaluations

SMALL = [
    *QUICK, "--batch", "16", "--lr", "0.002", "--checkpoint-every", "3",
    "--method.image.layers", "1", "--method.text.layers", "1", "--view.augment", "affine",
]  # fmt: skip


@pytest.fixture
def shards(caption_folder: Path, monkeypatch) -> Path:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(caption_folder / "cache"))
    source = open_source(f"{caption_folder}/captions.jsonl", images=str(caption_folder / "pictures"))
    write_shards(source, caption_folder / "shards", max(1, len(source) // 8))
    return caption_folder / "shards"


def train(folder: Path, out: str, data: str, *more: str) -> Path:
    assert main(["train", "clip", "--data", data, *SMALL, "--out", str(folder / out), *more]) == 0
    return folder / out


def test_a_mixed_run_is_resumed_to_the_byte_with_other_workers(shards: Path, capsys) -> None:
    folder = shards.parent
    data = f"{shards}*1 + scenes:easy,samples=100*3"
    held = ("--evaluate", "retrieval=scenes:easy,gallery=20@val")
    straight = train(folder, "straight", data, "--steps", "6", "--shuffle", "shards", "--shuffle-window", "2", *held)
    again = ("--shuffle", "shards", "--shuffle-window", "2", *held)
    train(folder, "again", data, "--steps", "3", "--horizon", "6", "--workers", "2", *again)
    resumed = train(folder, "again", data, "--steps", "6", "--horizon", "6", *again)
    lines = [Run.read(run).metrics() for run in (straight, resumed)]
    for line in lines[1]:
        line.pop("eval", None)  # also measured where it stopped
    for line in lines[0]:
        line.pop("eval", None)
    assert lines[0] == lines[1] and len(lines[0]) == 6
    passes = lines[0][-1]["passes"]
    assert passes["scenes:easy,samples=100@train"] == 6 * 16 * 0.75 / 100 and len(passes) == 2
    other = [
        "train",
        "clip",
        "--data",
        data.replace("*3", "*2"),
        *SMALL,
        "--out",
        str(straight),
        "--steps",
        "6",
        *again,
    ]
    assert main(other) and "holds another run" in capsys.readouterr().err


def test_ranks_share_out_a_mixture(shards: Path) -> None:
    data = f"{shards}*1 + scenes:easy,samples=100*3"
    args = ("--steps", "2", "--shuffle", "shards")
    train(shards.parent, "ranks1", data, *args)
    done = multiway("train", "clip", "--data", data, *SMALL, *args, "--out", str(shards.parent / "ranks2"), ranks=2)
    assert not done.returncode, done.stderr
    one, two = (Run.read(shards.parent / f"ranks{ranks}").metrics() for ranks in (1, 2))
    assert all(abs(a["loss"] - b["loss"]) < 1e-4 * a["loss"] for a, b in zip(one, two, strict=True))


def test_a_run_by_url_is_the_run_from_the_disk(shards: Path) -> None:
    pytest.importorskip("aiohttp")
    near = train(shards.parent, "near", str(shards), "--steps", "3")
    with serving(shards) as server:
        names = sorted(path.name for path in shards.glob("*.tar"))
        data = f"{server.url}/{names[0][:-10]}{{000000..{len(names) - 1:06d}}}.tar"
        far = train(shards.parent, "far", data, "--steps", "3", "--workers", "1")
    assert (near / "metrics.jsonl").read_bytes() == (far / "metrics.jsonl").read_bytes()
    prints = [json.loads((run / "provenance.json").read_text())["data"] for run in (near, far)]
    assert prints[0] == prints[1]


def test_what_is_measured_of_a_mixture() -> None:
    def measured(data: str, *entries: str) -> list[tuple[str, str]]:
        return evaluations(parse(["clip", "--data", data, "--evaluate", *entries]))

    both = "emoji*1 + scenes:easy*3"
    assert measured(both, "retrieval=@held-out") == [("retrieval", "emoji@random"), ("retrieval", "scenes:easy@val")]
    assert measured(both, "retrieval=@composition") == [("retrieval", "emoji@composition")]
    assert measured("emoji@all + scenes", "retrieval=@held-out") == [("retrieval", "scenes@val")]
    assert measured("emoji + emoji@random", "retrieval=@held-out")[0] == ("retrieval", "emoji@composition")
    assert measured("emoji", "retrieval=@random") == [("retrieval", "emoji@random")]


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("train", "clip", "--data", "emoji", "--shuffle", "shards", "--steps", "1"), "lies in no shards"),
        (("train", "clip", "--data", "emoji", "--shuffle-window", "4", "--steps", "1"), "set shuffle=shards too"),
        (("compare", "--data", "emoji + digits"), "mixes 2 sources"),
        (("data", "shard", "emoji + digits", "--out", "{run}"), "mixes 2 sources"),
        (("data", "show", "emoji + digits", "--out", "{run}/a.png"), "mixes 2 sources"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, args: tuple[str, ...], complaint: str, capsys) -> None:
    out = ("--out", str(tmp_path / "out")) if args[0] in ("train", "compare") else ()
    try:
        assert main([*(each.format(run=tmp_path / "run") for each in args), *out])
    except SystemExit as stopped:  # how options are refused
        assert stopped.code
    assert complaint in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()
