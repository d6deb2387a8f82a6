"""Shards: random access equals a sequential read, the writer's bytes repeat, and bad tars are refused or trimmed."""

import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import png, samples, tar

from multiway.data.captions import read_captions
from multiway.data.shard_index import index_of
from multiway.data.shard_names import expand, split_of
from multiway.data.shard_writer import write_shards
from multiway.data.shards import read_shards
from multiway.data.source import BadRow, DataError, Row, Source, held_out_split, stable_id


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows_of(splits) -> list[tuple[Source, int, Row]]:
    return [(source, index, source.row(index)) for source in splits.values() for index in range(len(source))]


class Drawn:
    """A source without files of its own."""

    name, classes, templates, fingerprint = "drawn", ("even", "odd"), ("it is {}",), "x"

    def __init__(self, split: str, rows: range, bad: tuple[int, ...] = ()) -> None:
        self.split, self.numbers, self.bad = split, rows, bad

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, index: int) -> Row:
        number = self.numbers[index]
        return Row(
            f"k/{number}",
            stable_id(str(number // 2)),
            (f"number {number}", "again", "ümlaut"),
            number % 2,
            f"row {number}",
        )

    def image(self, index: int) -> Image.Image:
        if self.numbers[index] in self.bad:
            raise BadRow(f"row {self.numbers[index]}: broken")
        return Image.new("RGBA", (3, 2), (self.numbers[index], 1, 2, 200))


def test_every_sample_has_an_address_in_any_order(tmp_path):
    for number in range(3):
        tar(tmp_path / f"s-{number:03d}.tar", samples(30))  # keys start anew in each shard, as they often do
    rows = rows_of(read_shards(f"{tmp_path}/s-{{000..002}}.tar"))
    assert (
        len(rows) == 90 and len({row.key for *_, row in rows}) == 90 and len({row.image_id for *_, row in rows}) == 90
    )
    for place in np.random.default_rng(0).permutation(90):
        source, index, row = rows[place]
        number = int(row.key.rpartition("/")[2])
        assert row.captions == (f"number {number}",) and source.split == held_out_split(row.image_id)
        assert source.image(index).getpixel((0, 0)) == (number, 0, 0)
        assert isinstance(source, Source)


def test_index_equals_a_sequential_read_by_tarfile(tmp_path):
    path = tar(
        tmp_path / "a.tar", [("./deep/x.y.png", b"not a sample picture"), *samples(20), ("README", b"no extension")]
    )
    index = index_of(path)
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
    data = path.read_bytes()
    assert index.keys == [f"{n:04d}" for n in range(20)]
    for key, offset, length in zip(index.keys, index.offsets, index.lengths, strict=True):
        assert data[offset : offset + length] == members[f"{key}.png"]
    assert index.lost == [
        ["a.tar, sample deep/x", "the sample has y.png but no picture (jpg, jpeg, png, webp); remove it or add one"]
    ]


def test_members_of_a_sample_need_not_be_neighbours(tmp_path):
    members = samples(8)
    path = tar(tmp_path / "a.tar", members[::2] + members[1::2])
    assert index_of(path).captions == [[f"number {n}"] for n in range(8)]


def test_long_unicode_names(tmp_path):
    key = "dossier/" + "é" * 150
    tar(tmp_path / "a.tar", [(f"{key}.png", png(7)), (f"{key}.txt", b"seven")])
    [(source, index, row)] = rows_of(read_shards(str(tmp_path / "a.tar")))
    assert row.key == f"a/{key}" and source.image(index).getpixel((0, 0)) == (7, 0, 0)


def test_words_come_from_json_text_and_class_files(tmp_path):
    tar(
        tmp_path / "a.tar",
        [
            *[("a.png", png()), ("a.txt", b"plain"), ("a.json", b'{"captions": ["one", "two"], "label": 2}')],
            *[
                ("b.png", png()),
                ("b.txt", b" two\nlines "),
                ("b.json", b'{"caption": "other", "image_id": 7}'),
                ("b.cls", b"1\n"),
            ],
            *[("c.png", png()), ("c.json", b'{"caption": "from json", "image_id": 7}')],
        ],
    )
    rows = {row.key: row for *_, row in rows_of(read_shards(str(tmp_path / "a.tar")))}
    assert rows["a/a"].captions == ("one", "two") and rows["a/a"].label == 2
    assert rows["a/b"].captions == ("two\nlines",) and rows["a/b"].label == 1
    assert rows["a/c"].captions == ("from json",) and rows["a/c"].label == -1
    assert rows["a/b"].image_id == rows["a/c"].image_id == stable_id("7") != rows["a/a"].image_id


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("x.txt", b"no picture")], "no picture"),
        ([("x.png", b"p")], "caption is empty"),
        ([("x.png", b"p"), ("x.txt", b"  ")], "caption is empty"),
        ([("x.png", b"p"), ("x.jpg", b"p"), ("x.txt", b"c")], "2 pictures"),
        ([("x.png", b"p"), ("x.txt", b"caf\xe9")], "not UTF-8"),
        ([("x.png", b"p"), ("x.json", b"{")], "not valid JSON"),
        ([("x.png", b"p"), ("x.txt", b"y" * 20_000)], "20,000 characters"),
        ([("x.png", b"p"), ("x.txt", b"y" * 2_000_000)], "2,000,000 bytes"),
        ([("x.png", b"p"), ("x.txt", b"c"), ("x.cls", b"cat")], "label is 'cat'"),
        ([("x.png", b"p"), ("x.txt", b"c"), ("x.cls", b"-5")], "label is -5"),
    ],
)
def test_one_bad_sample_is_left_out_and_named(tmp_path, members, why):
    tar(tmp_path / "a.tar", samples(19) + members)
    splits = read_shards(str(tmp_path / "a.tar"))
    [only] = next(iter(splits.values())).rejected
    assert only.where == "a.tar, sample x" and why in only.why
    assert len(rows_of(splits)) == 19


def test_too_many_bad_samples_refuse_the_shards(tmp_path):
    tar(tmp_path / "a.tar", [*samples(5), ("x.png", b"p")])
    with pytest.raises(DataError, match=r"1 of 6 rows cannot be used(.|\n)*sample x"):
        read_shards(str(tmp_path / "a.tar"))


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "0000.png"
    return info


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        (tarfile.TarInfo("../evil.png"), "leads out of the archive"),
        (tarfile.TarInfo("a/../../evil.png"), "leads out of the archive"),
        (tarfile.TarInfo("/etc/evil.png"), "leads out of the archive"),
        (special("x.png", tarfile.SYMTYPE), "is a link"),
        (special("x.png", tarfile.LNKTYPE), "is a link"),
        (special("x.png", tarfile.CHRTYPE), "is a special file"),
        (special("x.png", tarfile.FIFOTYPE), "is a special file"),
        (tarfile.TarInfo("0001.png"), "is there twice"),
    ],
)
def test_unsafe_and_ambiguous_tars_are_refused(tmp_path, info, complaint):
    path = tar(tmp_path / "a.tar", samples(3))
    with tarfile.open(path, "a") as archive:
        archive.addfile(info)
    with pytest.raises(DataError, match=complaint):
        read_shards(str(path))


def test_a_shard_cut_anywhere_keeps_what_is_whole(tmp_path):
    """Cut at every block: a sample is served exactly if its picture and caption lie before the cut."""
    whole = tar(tmp_path / "whole.tar", samples(15)).read_bytes()
    index = index_of(tmp_path / "whole.tar")
    # Picture, padded to a block; header of the caption; caption.
    spans = zip(index.offsets, index.lengths, strict=True)
    ends = [-(-(offset + length) // 512) * 512 + 512 + len(f"number {n}") for n, (offset, length) in enumerate(spans)]
    path = tmp_path / "cut.tar"
    for cut in range(512 * 44, 512 * 62, 256):
        path.write_bytes(whole[:cut])
        found = index_of(path)
        intact = sum(end <= cut for end in ends)
        assert found.keys == index.keys[:intact]
        if cut < 512 * 60 and cut % 2048:  # on a border between samples nothing shows that more was meant to follow
            assert found.lost, cut


def test_damaged_tars(tmp_path):
    whole = tar(tmp_path / "whole.tar", samples(6)).read_bytes()
    path = tmp_path / "a.tar"
    cases = [
        (b"", "empty"),
        (b"not a tar at all" * 100, "not a tar"),
        (b"\x1f\x8b" + b"\0" * 600, "compressed"),
        (whole[: 4096 * 2] + b"\xff" * 512 + whole[4096 * 2 + 512 :], "header at byte 8,192 is damaged"),
        (whole[:600], "nothing before that is usable"),
    ]
    for data, complaint in cases:
        path.write_bytes(data)
        with pytest.raises(DataError, match=complaint):
            index_of(path)


def test_index_is_reused_while_fresh_and_rebuilt_when_stale(tmp_path, monkeypatch):
    path = tar(tmp_path / "a.tar", samples(3))
    side = tmp_path / "a.tar.index.json"
    first = index_of(path)
    assert json.loads(side.read_text())["keys"] == first.keys
    with monkeypatch.context() as patch:
        patch.setattr("multiway.data.shard_index.build_index", lambda *_, **__: pytest.fail("built although fresh"))
        assert index_of(path) == first
    for damage in ("{", "[]", json.dumps({**json.loads(side.read_text()), "offsets": []}), json.dumps({"version": 0})):
        side.write_text(damage)
        assert index_of(path) == first
    tar(path, samples(4))
    assert len(index_of(path).keys) == 4
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"number 1", b"number 9"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert index_of(path).captions[1] == ["number 9"]
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_index_goes_to_the_cache_where_the_folder_cannot_be_written(tmp_path, cache, monkeypatch):
    path = tar(tmp_path / "a.tar", samples(3))
    write_text = Path.write_text

    def denied(self, *args, **kwargs):
        if self.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return write_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", denied)
    first = index_of(path)
    assert not (tmp_path / "a.tar.index.json").exists() and len(list(cache.rglob("*.json"))) == 1
    monkeypatch.setattr("multiway.data.shard_index.build_index", lambda *_, **__: pytest.fail("the cache was not used"))
    assert index_of(path) == first


def test_patterns(tmp_path):
    for name in ("a-008", "a-009", "a-010", "b"):
        tar(tmp_path / f"{name}.tar", samples(1))

    def names(pattern):
        return [path.stem for path in expand(f"{tmp_path}/{pattern}")]

    assert names("a-{008..010}.tar") == ["a-008", "a-009", "a-010"]
    assert names("{b,a-009}.tar") == ["b", "a-009"]
    assert names("a-*.tar") == ["a-008", "a-009", "a-010"] and names("") == ["a-008", "a-009", "a-010", "b"]
    assert names("{a,a}-008.tar") == ["a-008"]
    with pytest.raises(DataError, match=r"2 of 4 shards do not exist, the first .*a-011"):
        names("a-{009..012}.tar")
    with pytest.raises(DataError, match="no shard matches"):
        names("c-*.tar")
    with pytest.raises(DataError, match="empty or too long"):
        names("{9..1}.tar")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("x/train-000.tar", "train"),
        ("cc3m-validation-07.tar", "val"),
        ("test/000.tar", "test"),
        ("a/000.tar", ""),
        ("trainer.tar", ""),
    ],
)
def test_split_by_name(path, split):
    assert split_of(Path(path)) == split


def test_splits_by_folder_may_repeat_names_but_not_mix_with_none(tmp_path):
    for split in ("train", "val"):
        tar(tmp_path / "d" / split / "000.tar", samples(2))
    splits = read_shards(str(tmp_path / "d"))
    assert {split: len(source) for split, source in splits.items()} == {"train": 2, "val": 2}
    assert splits["val"].row(0).key == "val/000/0000"
    tar(tmp_path / "e" / "train-0.tar", samples(2))
    tar(tmp_path / "e" / "other-0.tar", samples(2))
    with pytest.raises(DataError, match=r"other-0\.tar does not"):
        read_shards(str(tmp_path / "e"))


def test_what_is_written_is_read_back(tmp_path):
    written = write_shards(
        [Drawn("train", range(25)), Drawn("extra", range(25, 30))], tmp_path / "out", rows_per_shard=10
    )
    assert [path.name for path in written.tars] == [f"train-00000{n}.tar" for n in range(3)] + ["extra-000000.tar"]
    assert written.rows == 30 and not written.skipped
    train = read_shards(f"{tmp_path}/out/train-*.tar")["train"]
    original = Drawn("train", range(25))
    assert train.classes == original.classes and train.templates == original.templates
    for index in range(25):
        mine, theirs = train.row(index), original.row(index)
        assert (mine.captions, mine.label, mine.image_id) == (theirs.captions, theirs.label, theirs.image_id)
        assert np.array_equal(np.asarray(train.image(index)), np.asarray(original.image(index)))
    with tarfile.open(written.tars[0]) as archive:
        assert archive.getnames()[:3] == ["000000000.png", "000000000.json", "000000000.txt"]
        assert archive.extractfile("000000000.txt").read() == b"number 0"


def test_written_bytes_repeat_and_nothing_else_is_left(tmp_path):
    first = write_shards(Drawn("train", range(7)), tmp_path / "a", 3)
    second = write_shards(Drawn("train", range(7)), tmp_path / "b", 3)
    assert [a.read_bytes() for a in first.tars] == [b.read_bytes() for b in second.tars]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "dataset.json",
        *[f"train-00000{n}.tar" for n in range(3)],
    ]


def test_files_are_copied_unchanged(tmp_path):
    (tmp_path / "p").mkdir()
    for number, kind in enumerate(("jpg", "png", "webp", "gif")):
        Image.new("RGB", (16, 16), (number * 50, 80, 90)).save(tmp_path / "p" / f"{number}.{kind}")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"image": n, "caption": n, "split": "train"}) + "\n" for n in names)
    )
    write_shards(read_captions(tmp_path / "a.jsonl", tmp_path / "p")["train"], tmp_path / "out")
    source = read_shards(str(tmp_path / "out"))["train"]
    data = {source.row(i).captions[0]: source.encoded(i) for i in range(4)}
    for name in names[:3]:
        assert data[name] == (tmp_path / "p" / name).read_bytes()
    assert data["3.gif"].startswith(b"\x89PNG")


def test_a_truncated_file_is_not_copied(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    (tmp_path / "a.csv").write_text("image,caption,split\na.jpg,whole,train\nb.jpg,cut,train\n")
    written = write_shards(read_captions(tmp_path / "a.csv")["train"], tmp_path / "out")
    assert written.rows == 1 and [each.where for each in written.skipped] == ["a.csv, line 3"]


def test_writer_skips_bad_rows_and_refuses_to_overwrite(tmp_path):
    written = write_shards(Drawn("train", range(8), bad=(0, 5)), tmp_path / "out", 3)
    assert (
        [each.where for each in written.skipped] == ["row 0", "row 5"] and written.rows == 6 and len(written.tars) == 2
    )
    with pytest.raises(DataError, match="already holds 2 shards of train"):
        write_shards(Drawn("train", range(8)), tmp_path / "out")
    with pytest.raises(DataError, match="no rows to write"):
        write_shards(Drawn("train", range(0)), tmp_path / "none")
    with pytest.raises(DataError, match="rows per shard is 0"):
        write_shards(Drawn("train", range(3)), tmp_path / "none", 0)


def test_full_disk_leaves_no_shard_behind(tmp_path, monkeypatch):
    add = tarfile.TarFile.addfile

    def full(self, info, file=None):
        if info.name.startswith("000000005"):
            raise OSError(28, "No space left on device")
        add(self, info, file)

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(DataError, match=r"No space left on device.*make room"):
        write_shards(Drawn("train", range(8)), tmp_path / "out", 2)
    assert not list((tmp_path / "out").iterdir())


def test_a_source_travels_to_other_processes(tmp_path):
    tar(tmp_path / "train-0.tar", samples(3))
    source = read_shards(str(tmp_path / "train-0.tar"))["train"]
    source.image(0)
    other = pickle.loads(pickle.dumps(source))
    assert other.row(2) == source.row(2) and other.encoded(2) == source.encoded(2)


def test_a_shard_that_shrinks_while_open_is_a_bad_row(tmp_path):
    path = tar(tmp_path / "train-0.tar", samples(3))
    source = read_shards(str(path))["train"]
    os.truncate(path, 512)
    with pytest.raises(BadRow, match="sample 0002: the shard has become shorter"):
        source.image(2)


def test_fewer_descriptors_than_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("multiway.data.shard_reader._OPEN_FILES", 2)
    for number in range(5):
        tar(tmp_path / f"train-{number}.tar", samples(2))
    source = read_shards(str(tmp_path))["train"]
    for index in (0, 9, 3, 7, 5, 1, 8):
        assert source.image(index).size == (4, 4)
        assert len(source._reader._files) <= 2
