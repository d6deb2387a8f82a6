"""The catalogue of a set of shards: the same rows whether mapped or in memory, bounded memory, and damage that is noticed."""

import json
import os
import pickle
import shutil
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import png, samples, tar

from multiway.data import catalogue_writer
from multiway.data.catalogue import HEADER, Catalogue, Column
from multiway.data.catalogue_writer import catalogue_of
from multiway.data.files import fingerprint_of
from multiway.data.mixture import Mixture
from multiway.data.rejected import encodable
from multiway.data.shard_index import INDEX_VERSION, ShardIndex
from multiway.data.shard_indices import indices_of
from multiway.data.shards import Shards, read_shards
from multiway.data.source import DataError, captions_to_learn, held_out_split


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "multiway" / "shards" / "sets"


@pytest.fixture
def kept(monkeypatch):
    """Every set is kept, however small."""
    monkeypatch.setattr(catalogue_writer, "KEPT_FROM", 0)


def own(tmp_path: Path) -> str:
    """Shards without a stated split, one of them with words of all kinds and a sample that is lost."""
    folder = tmp_path / "own"
    for number in range(3):
        tar(folder / f"s-{number}.tar", samples(60, start=100 * number))
    facts = json.dumps({"captions": ["ümlaut", "one more", "三"], "label": 4, "image_id": "same"}).encode()
    odd = [("é.png", png(7)), ("é.json", facts), ("b.png", png(8)), ("b.json", facts), ("lost.txt", b"no picture")]
    tar(folder / "s-3.tar", samples(40, start=300) + odd)
    return str(folder)


def rows(splits: dict[str, Shards]) -> dict[str, list[object]]:
    return {name: [(s.row(i), s.encoded(i)) for i in range(len(s))] for name, s in splits.items()}


def test_mapped_and_in_memory_are_the_same(tmp_path, cache, monkeypatch) -> None:
    pattern = own(tmp_path)
    plain = read_shards(pattern)
    assert plain["train"].catalogue.folder is None and not list(cache.iterdir())
    monkeypatch.setattr(catalogue_writer, "KEPT_FROM", 100)  # from the second shard on
    mapped = read_shards(pattern)
    [folder] = cache.iterdir()
    again = read_shards(pattern)
    assert again["train"].catalogue.folder == folder
    assert rows(plain) == rows(mapped) == rows(again)
    for name, split in plain.items():
        words = [split.row(i) for i in range(len(split))]
        assert split.fingerprint == again[name].fingerprint == fingerprint_of(words)  # what it has always been
        assert all(held_out_split(row.image_id) == name for row in words)
        assert split.rejected == again[name].rejected and len(split.rejected) == 1
        shards = [row.key.partition("/")[0] for row in words]
        starts = split.shard_starts.tolist()
        assert [len(set(shards[a:b])) for a, b in pairwise(starts)] == [1] * (len(starts) - 1)
        assert starts[0] == 0 and starts[-1] == len(split)


text = st.text(max_size=12).filter(encodable)
captions = st.lists(text.filter(str.strip), min_size=1, max_size=4)


@given(
    st.lists(
        st.lists(st.tuples(text, captions, st.integers(-1, 2**63 - 1), st.integers(-1, 2**32 - 1)), max_size=5),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=25)
def test_whatever_an_index_holds_comes_back(given) -> None:
    indices = []
    for shard in given:
        index = ShardIndex(INDEX_VERSION, 10**6, 0)
        for number, (key, texts, picture, check) in enumerate(shard):
            index.keys.append(key)
            index.captions.append(texts)
            index.offsets.append(number * 512)
            index.lengths.append(number)
            index.labels.append(number - 1)
            index.image_ids.append(key[:2])
            index.picture_ids.append(picture)
            index.checks.append(check)
        indices.append(index)
    found = catalogue_of(
        lambda: ((f"s{n}", "train", each) for n, each in enumerate(indices)), "set", "v", Path("/nonexistent/x")
    )
    sample = 0
    for number, index in enumerate(indices):
        for place in range(len(index.keys)):
            assert found.shard_of(sample) == number and found.key(sample) == index.keys[place]
            assert found.captions(sample) == tuple(index.captions[place])
            for column, values in (
                ("offsets", index.offsets),
                ("lengths", index.lengths),
                ("labels", index.labels),
                ("checks", index.checks),
            ):
                assert found.number(column, sample) == values[place]
            assert index.picture_ids[place] in (-1, found.number("image_ids", sample))
            sample += 1
    assert len(found) == sample


def test_what_is_kept_follows_the_shards(tmp_path, cache, kept) -> None:
    pattern = own(tmp_path)
    before = read_shards(pattern)["train"]
    [first] = cache.iterdir()
    tar(Path(pattern) / "s-1.tar", samples(50, start=100))
    after = read_shards(pattern)["train"]
    [second] = cache.iterdir()
    assert first != second and len(after) != len(before)  # the older one is gone
    assert before.row(0).captions  # and whoever has it mapped still has it


@pytest.mark.parametrize("column", ["offsets", "keys", "captions", "caption_ends", "train.rows", "image_ids"])
def test_a_flipped_bit_is_noticed_when_it_is_looked_at(tmp_path, cache, kept, column) -> None:
    pattern = own(tmp_path)
    expected = rows(read_shards(pattern))
    [folder] = cache.iterdir()
    data = bytearray((folder / column).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / column).write_bytes(data)
    damaged = read_shards(pattern)
    with pytest.raises(DataError, match="is damaged, and was removed; start again"):
        rows(damaged)
    assert not folder.exists()
    assert rows(read_shards(pattern)) == expected


@pytest.mark.parametrize("file", [HEADER, "keys", "keys.sums", "starts", "val.shards"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_what_is_visibly_damaged_is_made_again(tmp_path, cache, kept, file, damage) -> None:
    pattern = own(tmp_path)
    expected = rows(read_shards(pattern))
    [folder] = cache.iterdir()
    data = (folder / file).read_bytes()
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(data[: len(data) // 2] if damage == "cut" else b"\0" * (len(data) + 8))
    assert rows(read_shards(pattern)) == expected and rows(read_shards(pattern)) == expected


@pytest.mark.parametrize(
    "value", [[], {}, {"format": 99}, {"format": 1, "about": {}, "digest": 0}, {"format": 1, "about": []}, 7]
)
def test_headers_that_lie(tmp_path, value) -> None:
    (tmp_path / HEADER).write_text(json.dumps(value))
    assert Catalogue.open(tmp_path) is None


def test_without_room_it_is_held_in_memory(tmp_path, kept, monkeypatch) -> None:
    pattern = own(tmp_path)
    monkeypatch.setattr(
        catalogue_writer, "mkdtemp", lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    splits = read_shards(pattern)
    assert splits["train"].catalogue.folder is None and len(rows(splits)["train"]) == len(splits["train"])


def test_what_a_killed_process_left_is_cleared_away(tmp_path, cache, kept) -> None:
    cache.mkdir(parents=True)
    (cache / ".writing-old").mkdir()
    (cache / ".writing-new").mkdir()
    os.utime(cache / ".writing-old", (0, 0))
    read_shards(own(tmp_path))
    assert not (cache / ".writing-old").exists() and (cache / ".writing-new").exists()


def test_a_mapped_set_travels_light(tmp_path, kept) -> None:
    source = read_shards(own(tmp_path))["train"]
    sent = pickle.dumps(source)
    other = pickle.loads(sent)
    assert len(sent) < 2000 and other.row(5) == source.row(5) and other.encoded(5) == source.encoded(5)
    shutil.rmtree(source.catalogue.folder)
    with pytest.raises(DataError, match="was removed while it was used"):
        pickle.loads(sent)


def test_opening_takes_no_memory_for_its_rows(tmp_path, cache) -> None:
    index = ShardIndex(INDEX_VERSION, 10**9, 0)
    for number in range(1000):
        index.keys.append(f"{number:09d}")
        index.captions.append([f"a caption of fifty characters or so, the number {number}"])
        for column in (index.offsets, index.lengths, index.picture_ids, index.checks):
            column.append(number)
        index.labels.append(-1)
        index.image_ids.append("")

    def shards():
        return ((f"s{number}", "train", index) for number in range(22))

    tracemalloc.start()
    catalogue_of(shards, "set", "v", cache)
    made = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    base = tracemalloc.get_traced_memory()[0]
    found = catalogue_of(lambda: pytest.fail("read although kept"), "set", "v", cache)
    opened = tracemalloc.get_traced_memory()[1] - base
    tracemalloc.stop()
    assert len(found) == 22_000 and found.captions(21_999) == found.captions(999)
    size = sum(each.stat().st_size for each in found.folder.iterdir())
    assert size > 2_000_000 and opened < 100_000  # bytes
    assert made < 6_000_000  # some shards, not all of them


def test_a_tokeniser_learns_from_some_of_very_many(tmp_path, monkeypatch) -> None:
    source = read_shards(own(tmp_path))["train"]
    assert captions_to_learn(source) == [each for row in range(len(source)) for each in source.row(row).captions]
    monkeypatch.setattr("multiway.data.shards.SORTED", 50)
    monkeypatch.setattr("multiway.data.shards._LEARNT", 10)
    spread = [source.row(number * len(source) // 10).captions for number in range(10)]
    some = [caption for captions in spread for caption in captions]
    assert captions_to_learn(source) == some
    both = Mixture("both", [source, read_shards(own(tmp_path))["val"]], [1, 1], ["a", "a"])
    assert captions_to_learn(both)[: len(some)] == some


def test_a_column_checks_each_block_once(tmp_path) -> None:
    values = np.arange(100_000, dtype="<i8")
    sums = np.array(
        [catalogue_writer.zlib.crc32(values.tobytes()[at : at + (1 << 16)]) for at in range(0, values.nbytes, 1 << 16)]
    )
    column = Column(values, sums, tmp_path)
    assert column[0] == 0 and column._checked.sum() == 1
    assert column.span(8190, 8194).tolist() == [8190, 8191, 8192, 8193] and column._checked.sum() == 2
    assert column[99_999] == 99_999 and column._checked.sum() == 3 and len(column.span(5, 5)) == 0


def test_shards_are_indexed_several_at_a_time_and_gone_on_with(tmp_path, monkeypatch) -> None:
    paths = [tar(tmp_path / "w" / f"s-{number}.tar", samples(5, start=10 * number)) for number in range(5)]
    alone = list(indices_of(paths[:2]))
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").glob("*.json")}
    together = list(indices_of(paths, workers=2))  # in processes
    assert (
        len(built) == 2
        and together[:2] == alone
        and [index.keys[0] for index in together] == ["0000", "0010", "0020", "0030", "0040"]
    )
    assert all(path.stat().st_mtime_ns == time for path, time in built.items())
    paths[3].write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match=r"s-3\.tar: this is not a tar"):
        list(indices_of(paths, workers=2))
