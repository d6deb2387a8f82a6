"""Shards by URL: the same rows as from the disk, few questions, patience with a bad line, and errors that name the URL."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from range_server import RangeServer, serving
from shard_files import samples, tar

from multiway.batch import ViewSpec
from multiway.data import remote
from multiway.data.loader import Loader
from multiway.data.open import open_source
from multiway.data.remote import RangeFile, RemoteError, RemoteFile, described, is_remote, read_many, read_small
from multiway.data.shard_cache import ShardCache
from multiway.data.shard_names import expand, name_of, split_of
from multiway.data.shards import Shards, read_shards
from multiway.data.source import BadRow, DataError

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_WAIT", 0.001)


@pytest.fixture
def shards(tmp_path) -> Path:
    for number in range(3):
        tar(tmp_path / "s" / f"train-{number:03d}.tar", samples(20, start=100 * number))
    return tmp_path / "s"


@pytest.fixture
def memory(shards):
    files = fsspec.filesystem("memory")
    for path in shards.iterdir():
        files.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    yield files
    files.rm("/bucket", recursive=True)


@pytest.fixture
def server(shards):
    with serving(shards) as running:
        yield running


def local(shards: Path) -> Shards:
    return read_shards(str(shards))["train"]


def same(one: Shards, other: Shards) -> bool:
    rows = [n for source in (one, other) for n in [len(source)]]
    equal = (one.row(i) == other.row(i) and one.encoded(i) == other.encoded(i) for i in range(rows[0]))
    return rows[0] == rows[1] and one.fingerprint == other.fingerprint and all(equal)


@pytest.mark.parametrize(
    "pattern",
    [
        "memory://bucket/set/train-{000..002}.tar",
        "memory://bucket/set/train-*.tar",
        "memory://bucket/set/",
        "memory://bucket/set",
        "memory://bucket",
    ],
)
def test_an_object_store_is_read_by_any_pattern(shards, memory, pattern) -> None:
    found = read_shards(pattern)["train"]
    assert [tar.name for tar in found.tars] == [f"train-00{n}.tar" for n in range(3)] and same(found, local(shards))


def test_a_web_server_is_read_by_ranges(shards, server) -> None:
    size = sum(path.stat().st_size for path in shards.glob("*.tar"))
    found = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"]
    assert server.sent <= size + 3  # words are remembered as they pass: nothing is got twice
    server.asked.clear()
    assert same(read_shards(f"{server.url}/train-{{000..002}}.tar")["train"], local(shards))
    assert same(found, open_source(f"{server.url}/train-{{000..002}}.tar@train"))
    assert server.asked["GET /train-000.tar"] == 3 * 20  # pictures; the index is known by now


def test_file_urls_are_paths(shards) -> None:
    assert same(read_shards(f"file://{shards}/train-*.tar")["train"], local(shards))


def test_an_index_beside_the_shard_is_believed_if_it_fits(shards, server) -> None:
    expected = local(shards)  # writes the indices
    found = read_shards(f"{server.url}/train-001.tar")["train"]
    assert (
        server.asked["GET /train-001.tar.index.json"] == 1 and server.asked["GET /train-001.tar"] == 1
    )  # its last sample
    assert found.row(3) == expected.row(23)
    # One of another tar of the same size is not.
    shutil.copy(shards / "train-001.tar.index.json", shards / "train-002.tar.index.json")
    other = read_shards(f"{server.url}/train-002.tar")["train"]
    assert other.row(3) == expected.row(43)
    (shards / "train-000.tar.index.json").write_text("{")
    assert read_shards(f"{server.url}/train-000.tar")["train"].row(3) == expected.row(3)


def test_a_changed_shard_is_indexed_anew(shards, server) -> None:
    url = f"{server.url}/train-000.tar"
    before = read_shards(url)["train"]
    tar(shards / "train-000.tar", samples(20, start=500))  # the same size, another time
    after = read_shards(url)["train"]
    assert before.fingerprint != after.fingerprint and after.row(0).captions == ("number 500",)
    assert (
        len(list((Path(os.environ["XDG_CACHE_HOME"]) / "multiway" / "shards").glob("*.json"))) == 1
    )  # the old one is gone


def test_a_bad_line_is_borne_with(shards, server) -> None:
    found = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"]
    server.failures = 4
    expected = local(shards)
    assert found.encoded(7) == expected.encoded(7)
    server.short = 3
    assert found.encoded(8) == expected.encoded(8)
    server.failures = 2
    assert len(read_shards(f"{server.url}/train-{{000..001}}.tar")["train"]) == 40


def test_what_cannot_be_got_is_a_bad_row_that_names_the_url(shards, server) -> None:
    found = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"]
    server.failures = 1000
    with pytest.raises(BadRow, match=r"train-000\.tar, sample 0000: http://127.*train-000\.tar: after 6 attempts.*503"):
        found.encoded(0)
    server.failures = 0
    (shards / "train-000.tar").unlink()
    server.asked.clear()
    with pytest.raises(BadRow, match=r"http://127.*/train-000\.tar is not there \(any more\); put it back"):
        found.encoded(0)
    assert sum(server.asked.values()) == 1  # what is gone is not waited for
    os.truncate(shards / "train-001.tar", 1000)
    with pytest.raises(BadRow, match=r"train-001\.tar"):
        found.encoded(39)
    with pytest.raises(DataError, match=r"1 of 3 shards do not exist or may not be read, the first .*train-000"):
        read_shards(f"{server.url}/train-{{000..002}}.tar")


def test_a_server_without_ranges_is_refused(shards, server) -> None:
    server.ranges = False
    with pytest.raises(DataError, match="it knows no ranges"):
        read_shards(f"{server.url}/train-000.tar")


def test_a_batch_is_asked_for_at_once(shards, server) -> None:
    found = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"]
    expected = local(shards)
    rows = np.array([5, 17, 40, 59])
    found.fetch(rows)
    server.asked.clear()
    assert all(found.encoded(int(row)) == expected.encoded(int(row)) for row in rows)
    assert not server.asked  # they were at hand
    server.failures = 2  # of what fails in a batch, each is tried again alone
    found.fetch(rows)
    assert all(found.encoded(int(row)) == expected.encoded(int(row)) for row in rows) and server.asked


def test_workers_read_by_url_too(shards, server) -> None:
    """A forked process cannot use its parent's connections."""
    found, expected = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"], local(shards)
    loaders = [
        Loader(source, ViewSpec(size=4), None, 20, seed=1, workers=w) for source, w in ((found, 2), (expected, 0))
    ]
    for one, other in zip(*(loader.batches(0, 5) for loader in loaders), strict=True):
        assert torch.equal(one.images, other.images) and one.captions == other.captions and not one.skipped


def test_facts_beside_the_shards(shards, server) -> None:
    (shards / "dataset.json").write_text(json.dumps({"classes": ["cat"], "templates": ["a {}"]}))
    found = read_shards(f"{server.url}/train-000.tar")["train"]
    assert found.classes == ("cat",) and found.templates == ("a {}",)


def test_names_and_splits_of_urls() -> None:
    signed = RemoteFile("https://user:word@host/data/val/000.tar?X-Signature=abc")
    assert split_of(signed) == "val" and name_of(signed) == "val/000" and signed.name == "000.tar"
    assert str(signed) == "https://host/data/val/000.tar"  # nobody's password goes into a log
    assert str(signed.beside("dataset.json", up=1)) == "https://host/data/dataset.json"
    assert split_of(RemoteFile("s3://bucket/train-000.tar")) == "train"
    assert is_remote("s3://b/a") and not is_remote("a/b.tar") and not is_remote("C:/a.tar")


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("nosuch://a/b.tar", "Protocol not known: nosuch"),
        ("memory://nowhere/a.tar", "1 of 1 shards do not exist"),
        ("memory://nowhere/*.tar", "no shard matches"),
        ("memory://nowhere/", "no shard matches"),
    ],
)
def test_urls_that_lead_nowhere(pattern, complaint) -> None:
    with pytest.raises(DataError, match=complaint):
        expand(pattern)


def test_a_caption_file_by_url_is_refused() -> None:
    with pytest.raises(DataError, match="of files by URL only shards are read"):
        open_source("https://host/captions.jsonl")


def test_missing_packages_are_named(monkeypatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("fsspec"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'multiway\[remote\]'"):
        expand("s3://bucket/a.tar")


def test_a_range_file_is_the_file(shards, server) -> None:
    """Any reads at any places give what the file has there, whatever the block."""
    data = (shards / "train-000.tar").read_bytes()
    [file] = described([f"{server.url}/train-000.tar"])
    dice = np.random.default_rng(0)
    for block in (100, 1 << 20):
        ranged = RangeFile(file, block)
        for _ in range(15):
            start, length = int(dice.integers(0, len(data) + 50)), int(dice.integers(0, 3000))
            ranged.seek(start)
            if dice.random() < 0.3:
                ranged.keep(start, min(length, 10))
            assert ranged.read(length) == data[start : start + length] and ranged.tell() == min(
                start + length, max(start, len(data))
            )
    assert RangeFile(file).read() == data


def test_many_ranges_of_which_some_fail(server) -> None:
    [there] = described([f"{server.url}/train-000.tar"])
    gone = RemoteFile(f"{server.url}/gone.tar", 10, 0)
    first, second, third = read_many([(there, 0, 10), (gone, 0, 10), (there, there.size - 5, 10)])
    assert first is not None and second is None and third is None
    assert read_small(gone) is None and read_many([]) == []


# The cache of whole shards.


def cached(shards: Path, server: RangeServer, tmp_path: Path, monkeypatch, count: float) -> tuple[Shards, Path, int]:
    size = (shards / "train-000.tar").stat().st_size
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE_BYTES", str(int(count * size)))
    return read_shards(f"{server.url}/train-{{000..002}}.tar")["train"], tmp_path / "kept", int(count * size)


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".tar", ".part"))


def test_a_cached_shard_is_downloaded_once(shards, server, tmp_path, monkeypatch) -> None:
    found, folder, _ = cached(shards, server, tmp_path, monkeypatch, 3)
    server.asked.clear()
    expected = local(shards)
    assert all(found.encoded(row) == expected.encoded(row) for row in range(60))
    assert sum(server.asked.values()) == 3 and len(list(folder.glob("*.tar"))) == 3
    again = read_shards(f"{server.url}/train-{{000..002}}.tar")["train"]
    server.failures = 10_000  # nothing is asked for any more
    assert again.encoded(30) == expected.encoded(30)


def test_the_least_recently_used_shard_goes_first(shards, server, tmp_path, monkeypatch) -> None:
    found, folder, limit = cached(shards, server, tmp_path, monkeypatch, 2.5)
    for row in (0, 20, 1, 40, 2):  # the third shard takes the place of the second
        found.encoded(row)
        assert held(folder) <= limit
    server.asked.clear()
    found.encoded(3)
    found.encoded(41)
    assert not server.asked
    found.encoded(21)
    assert server.asked == {"GET /train-001.tar": 1}


def test_a_cache_that_is_too_small_says_so(shards, server, tmp_path, monkeypatch, caplog) -> None:
    found, _, _ = cached(shards, server, tmp_path, monkeypatch, 0.5)
    with pytest.raises(BadRow, match=r"more than the .* of MULTIWAY_SHARD_CACHE_BYTES"):
        found.encoded(0)
    found, _, _ = cached(shards, server, tmp_path, monkeypatch, 1.5)
    for turn in range(40):
        found.encoded(20 * (turn % 3))
    assert sum("train with --shuffle shards" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("given", ["", "a lot", "-3", "5 X"])
def test_a_cache_needs_a_bound(given, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE", str(tmp_path))
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE_BYTES", given)
    with pytest.raises(DataError, match=r"MULTIWAY_SHARD_CACHE_BYTES is .*as in 200G"):
        ShardCache.of_environment()


@pytest.mark.parametrize(
    ("given", "limit"), [("200G", 200 * 10**9), ("1.5 TB", 15 * 10**11), ("77", 77), ("3m", 3 * 10**6)]
)
def test_bounds_have_units(given, limit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE", str(tmp_path / "new"))
    monkeypatch.setenv("MULTIWAY_SHARD_CACHE_BYTES", given)
    assert ShardCache.of_environment().limit == limit and (tmp_path / "new").is_dir()


def test_many_at_once_keep_the_bound_and_get_what_is_there(shards, server, tmp_path, monkeypatch) -> None:
    """Eight caches of one folder, as of eight processes (a lock is of an open file, not of a process), with room for two shards."""
    found, folder, limit = cached(shards, server, tmp_path, monkeypatch, 2.2)
    expected = local(shards)
    stop, most = threading.Event(), [0]

    def watch() -> None:
        while not stop.is_set():
            try:
                most[0] = max(most[0], held(folder))
            except FileNotFoundError:
                continue

    def one(seed: int) -> bool:
        cache, dice = ShardCache(folder, limit), np.random.default_rng(seed)
        rows = dice.integers(0, 60, 12).tolist()
        places = [found._place(found._sample(row)) for row in rows]
        return all(
            cache.read(found.tars[t], o, n) == expected.encoded(row)
            for row, (t, o, n) in zip(rows, places, strict=True)
        )

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        good = list(pool.map(one, range(8)))
    stop.set()
    watcher.join()
    assert all(good) and 0 < most[0] <= limit and not list(folder.glob("*.part"))


def test_what_a_killed_process_left_is_cleared_away(shards, server, tmp_path, monkeypatch) -> None:
    found, folder, limit = cached(shards, server, tmp_path, monkeypatch, 1.5)
    folder.mkdir(exist_ok=True)
    with (folder / "0123.part").open("wb") as left:
        left.truncate(limit)  # it would take all the room for ever
    assert found.encoded(0) and not (folder / "0123.part").exists()


def test_a_broken_download_leaves_nothing(shards, server, tmp_path, monkeypatch) -> None:
    found, folder, _ = cached(shards, server, tmp_path, monkeypatch, 3)
    server.failures = 1000
    with pytest.raises(BadRow, match="after 6 attempts"):
        found.encoded(0)
    assert held(folder) == 0
    server.failures = 0
    assert found.encoded(0)


def test_errors_hide_signatures(server) -> None:
    server.failures = 1000
    file = RemoteFile(f"{server.url}/train-000.tar?X-Signature=secret", 10, 0)
    with pytest.raises(RemoteError) as caught:
        remote.read(file, 0, 10)
    assert "503" in str(caught.value) and "secret" not in str(caught.value)
