"""Several sources as one: weights, ids and classes that hold over all, batches that nothing else changes, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shard_files import samples, tar
from toy import ToySource

from multiway.batch import ViewSpec
from multiway.data.check import check
from multiway.data.few_labels import FewLabels
from multiway.data.loader import Loader
from multiway.data.mixture import Mixture
from multiway.data.open import open_mixture, open_source, open_splits
from multiway.data.order import Shuffle
from multiway.data.shard_writer import write_shards
from multiway.data.source import BadRow, DataError, DrawsBatches, KnowsWords, Mixes, Source, SourceSpec
from multiway.data.spec import is_mixed, parse_mixture, parts_of

VIEW = ViewSpec(size=16, augment="affine")
BOTH = "emoji*1 + scenes:easy,samples=500*3"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("emoji*1 + scenes:easy*3", [1, 3]),
        ("emoji + digits", [1, 1]),
        ("emoji@random*0.7  +  digits*0.3", [7, 3]),
        ("emoji*2 + digits*4 + scenes*.5", [4, 8, 1]),
        ("a+b.jsonl*10 + c d/*2", [5, 1]),
        ("s/{000..009}.tar@train*1.5 + t/*.tar*1", [3, 2]),
    ],
)
def test_weights(text, weights) -> None:
    assert is_mixed(text) and [weight for _, weight in parse_mixture(text)] == weights


def test_names_within_a_mixture() -> None:
    assert parts_of("a+b.jsonl@val*10 + c d/ + s/*.tar*1") == [
        SourceSpec("a+b.jsonl", "", "val"),
        SourceSpec("c d/"),
        SourceSpec("s/*.tar"),
    ]
    assert parts_of("emoji@random") == [SourceSpec("emoji", "", "random")] and not is_mixed("a+b.jsonl")


def test_a_file_with_a_plus_between_spaces_is_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a + b.jsonl").write_text("")
    assert not is_mixed("a + b.jsonl") and parts_of("a + b.jsonl") == [SourceSpec("a + b.jsonl")]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 40), st.integers(0, 3)),
        min_size=2,
        max_size=5,
        unique_by=lambda each: each[0],
    )
)
def test_weights_keep_their_proportions(given) -> None:
    text = " + ".join(f"{name}.jsonl*{number / 10**digits:.3f}" for name, number, digits in given)
    if any(round(number / 10**digits, 3) == 0 for _, number, digits in given):
        return
    found = [weight for _, weight in parse_mixture(text)]
    wanted = [round(number / 10**digits, 3) for _, number, digits in given]
    assert np.gcd.reduce(found) == 1
    assert np.allclose(np.array(found) / sum(found), np.array(wanted) / sum(wanted), rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("emoji + emoji", "names emoji twice; name it once"),
        ("emoji + emoji@train", "names emoji@train twice"),
        ("emoji*0 + digits", "the weight 0"),
        ("emoji*0.12345678901 + digits*0.98765432109", "come out even only every"),
        ("emoji + ", "there is no data 'emoji \\+'"),
        ("emoji + nix.jsonl", "nix.jsonl"),
        ("emoji@ + digits", "ends in `@`"),
        ("emoji@nix + digits", "no rows in split 'nix'"),
    ],
)
def test_bad_mixtures(text, complaint) -> None:
    with pytest.raises(DataError, match=complaint):
        open_mixture(text) if is_mixed(text) else open_source(text)


def test_rows_are_what_they_were() -> None:
    whole = open_mixture(BOTH)
    emoji, scenes = open_source("emoji"), open_source("scenes:easy,samples=500")
    assert isinstance(whole, Source) and isinstance(whole, Mixes) and len(whole) == len(emoji) + 500
    # What only one of them knows is not claimed of all.
    assert not isinstance(whole, KnowsWords) and not isinstance(whole, DrawsBatches)
    for index, source, inner in ((5, emoji, 5), (len(emoji), scenes, 0), (len(whole) - 1, scenes, 499)):
        row, own = whole.row(index), source.row(inner)
        assert row.captions == own.captions and row.key == f"{source.name}@train/{own.key}" and row.where == own.where
        assert whole.image(index).tobytes() == source.image(inner).tobytes()
    with pytest.raises(IndexError):
        whole.row(len(whole))


class Endless(ToySource):
    name = "endless"
    tokenizer_captions = ("one", "two")


def test_a_tokeniser_learns_from_all() -> None:
    learnt = Mixture("m", [ToySource(8), Endless(8)], [1, 1], ["toy", "endless"])
    assert learnt.tokenizer_captions == (*(c for i in range(8) for c in ToySource(8).row(i).captions), "one", "two")


def test_the_fingerprint_is_of_data_and_weights() -> None:
    names = (
        "scenes:hard + scenes:easy",
        "scenes:hard*2 + scenes:easy",
        "scenes:hard@val + scenes:easy",
    )
    prints = {open_mixture(each).fingerprint for each in (*names, "scenes:easy + scenes:hard")}
    assert len(prints) == 4


def caption_file(folder: Path, name: str, rows: list[tuple[str, str, str]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text(
        "".join(
            json.dumps({"image": i, "caption": c, "split": "train"} | ({"image_id": d} if d else {})) + "\n"
            for i, c, d in rows
        )
    )
    return str(path)


def test_ids_agree_only_where_the_picture_is_known_to_be_the_same(tmp_path) -> None:
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, len(folder))).save(tmp_path / folder / f"{number}.png")
    one = caption_file(tmp_path / "p", "one", [("0.png", "a", ""), ("1.png", "b", ""), ("1.png", "c", "")])
    two = caption_file(tmp_path / "p", "two", [("1.png", "d", ""), ("2.png", "e", "")])
    other = caption_file(tmp_path / "q", "other", [("0.png", "f", ""), ("1.png", "g", "")])
    numbered = caption_file(tmp_path / "p", "n", [("0.png", "h", "7")])
    numbers = caption_file(tmp_path / "q", "n", [("0.png", "i", "7")])
    whole = open_mixture(f"{one} + {two} + {other} + {numbered} + {numbers}")
    ids = {whole.row(i).captions[0]: whole.row(i).image_id for i in range(len(whole))}
    assert ids["b"] == ids["c"] == ids["d"]  # the same file, listed in two tables
    different = [ids[each] for each in "abefghi"]
    assert len(set(different)) == len(different)  # another folder's file of that name, another table's number 7


def test_shards_know_their_data_set_again(tmp_path) -> None:
    emoji = open_source("emoji@random")
    write_shards(emoji, tmp_path / "out")
    packed = open_source(f"{tmp_path}/out/*.tar@all")
    whole = Mixture(
        "both", [emoji, *packed.parts], [1] * (1 + len(packed.parts)), ["emoji"] + [str(tmp_path)] * len(packed.parts)
    )
    ids = [whole.row(i).image_id for i in range(len(whole))]
    assert len(set(ids)) == len(emoji) and sorted(ids[: len(emoji)]) == sorted(ids[len(emoji) :])
    # Two splits of one data set keep what they share.
    splits = open_mixture("emoji@concept + emoji@concept-strict")
    assert splits.row(len(splits) - 1).image_id in {splits.row(i).image_id for i in range(splits.starts[1])}


def classes(folder: Path, names: tuple[str, ...]) -> str:
    for number, name in enumerate(names):
        for picture in range(30):
            (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (number, picture, 0)).save(folder / "train" / name / f"{picture}.png")
    return str(folder)


def test_classes_are_joined_by_name(tmp_path) -> None:
    pets, wild = classes(tmp_path / "pets", ("cat", "dog")), classes(tmp_path / "wild", ("bear", "cat"))
    whole = open_mixture(f"{pets} + {wild} + scenes:easy,samples=20")
    assert whole.classes == ("cat", "dog", "bear")
    for index in range(len(whole)):
        row = whole.row(index)
        said = row.captions[0] if "scenes" not in row.key else ""
        assert row.label == (whole.classes.index(said) if said else -1)


def test_batches_follow_the_weights_and_nothing_else_changes_them() -> None:
    whole = open_mixture(BOTH)
    border = whole.starts[1]
    plain = Loader(whole, VIEW, None, batch=32, seed=5)
    forked = Loader(whole, VIEW, None, batch=32, seed=5, workers=2)
    emoji, scenes = open_source("emoji"), open_source("scenes:easy,samples=500")
    alone = Loader(emoji, VIEW, None, batch=4)._steps.pixels
    for step, other in zip(range(2, 6), forked.batches(2, 6), strict=True):
        batch = plain.batch(step)
        rows = batch.sample_index.numpy()
        assert Counter((rows < border).tolist()) == {True: 8, False: 24}
        assert (
            torch.equal(batch.images, other.images)
            and torch.equal(batch.draws, other.draws)
            and batch.captions == other.captions
        )
        drawn = torch.from_numpy(scenes.squares(rows[rows >= border] - border, 16)).permute(0, 3, 1, 2)
        assert torch.equal(batch.images[torch.from_numpy(rows >= border)], drawn)
        for place in np.flatnonzero(rows < border):
            assert torch.equal(batch.images[place], alone.get(int(rows[place])).permute(2, 0, 1))
        parts = [Loader(whole, VIEW, None, batch=32, seed=5, rank=rank, world=4).batch(step) for rank in range(4)]
        for rank, part in enumerate(parts):
            assert torch.equal(part.sample_index, batch.sample_index[rank::4]) and torch.equal(
                part.images, batch.images[rank::4]
            )


class Broken(ToySource):
    name = "broken"

    def image(self, index: int) -> Image.Image:
        if index % 3 == 0:
            raise BadRow(f"broken, row {index}: truncated")
        return super().image(index)


def test_an_unreadable_row_is_replaced_from_its_own_source() -> None:
    whole = Mixture("m", [ToySource(64), Broken(64)], [1, 1], ["toy", "broken"])
    batch = Loader(whole, VIEW, None, batch=32).batch(0)
    assert ((batch.sample_index >= 64).sum(), (batch.sample_index < 64).sum()) == (16, 16) and batch.skipped
    assert not any(row >= 64 and (row - 64) % 3 == 0 for row in batch.sample_index.tolist())


def test_shards_of_a_mixture_are_taken_in_turn_where_there_are_any(tmp_path) -> None:
    for number in range(20):
        tar(tmp_path / f"train-{number:02d}.tar", samples(10, start=10 * number))
    whole = open_mixture(f"{tmp_path} + scenes:easy,samples=100")
    loader = Loader(whole, VIEW, None, batch=20, shuffle=Shuffle("shards", 2))
    for step in range(6):
        rows = loader.batch(step).sample_index.numpy()
        own = rows[rows < 200]
        assert len(own) == 10 and len(set((own // 10).tolist())) <= 4
    with pytest.raises(DataError, match="lies in no shards"):
        Loader(open_mixture("emoji + digits"), VIEW, None, batch=4, shuffle=Shuffle("shards"))


def test_passes_are_counted() -> None:
    passes = open_mixture(BOTH).passes(4000)
    assert passes == {"emoji@train": 1000 / len(open_source("emoji")), "scenes:easy,samples=500@train": 6.0}


def test_check_looks_for_what_sources_share(tmp_path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(3):
        Image.effect_noise((32, 32), 80).save(tmp_path / "p" / f"{number}.png")
    a = caption_file(tmp_path / "p", "a", [("0.png", "one", ""), ("1.png", "two", "")])
    b = caption_file(tmp_path / "p", "b", [("1.png", "three", ""), ("2.png", "two", "")])
    report = check(open_splits(f"{a}*2 + {b}"))
    assert list(report.splits) == [f"{a}@train", f"{b}@train"]
    [shared] = report.overlaps
    assert shared.pictures == 1 and shared.captions == 1


def test_what_a_mixture_cannot_do_is_refused() -> None:
    with pytest.raises(DataError, match="chooses rows of one data set"):
        FewLabels("0.1").seen(open_mixture("emoji + digits"))
    with pytest.raises(DataError, match="has no rows"):
        Mixture("m", [ToySource(0)], [1], ["a"])
