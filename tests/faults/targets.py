"""Readers of strangers' files, each as a function of a folder, a seed and a number of rounds, for the fuzzer.

A target opens thousands of damaged files. Whatever it finds is either refused by the kind of error that names file and remedy, or
believable; anything else is reported, by the seed that repeats it. It counts how often it met each, so that both are seen to occur.
"""

import csv
import hashlib
import io
import json
import os
import random
import resource
import tarfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from faults.mutate import as_json, corrupt, damage
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from multiway.batch import ViewSpec
from multiway.config import digest
from multiway.data.captions import read_captions
from multiway.data.folder import read_folder
from multiway.data.processor import Processor
from multiway.data.shard_index import index_of
from multiway.data.shards import read_shards
from multiway.data.source import BadRow, DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.checkpoint import CheckpointError, read, save
from multiway.hub.file import WeightsError, read_model, write_model
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

Verdict = str  # "refused", "left out", "read"
Case = Callable[[random.Random], Verdict]
CAPTIONS = ["a red apple", "two green pears on a table", "the dog's third Ω ball", "日本の旗", "11 o'clock"]


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(splits: dict, pictures: bool = True) -> Verdict:
    """Look at every row as training does."""
    verdict = "read"
    for source in splits.values():
        if any(getattr(source, "rejected", ())):
            verdict = "left out"
            for each in source.rejected:
                assert str(each).isprintable(), repr(str(each))
        for index in range(len(source)):
            row = source.row(index)
            assert row.captions and all(isinstance(text, str) and text.strip() for text in row.captions), row
            assert type(row.label) is int and type(row.image_id) is int and row.label >= -1 and row.image_id >= 0, row
            " ".join((row.key, *row.captions)).encode()
            if not pictures:
                continue
            try:
                assert source.image(index).size[0] > 0
            except BadRow as error:
                assert not set(str(error)) & {"\x1b", "\0"}
                verdict = "left out"
    return verdict


def shard(folder: Path) -> Case:
    """A WebDataset tar, damaged anywhere; headers more often than their share."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, caption in enumerate(CAPTIONS):
            facts = {"captions": [caption, "again"], "label": number, "image_id": f"i{number}"}
            for name, data in (
                (f"{number:03}.png", png(number)),
                (f"{number:03}.json", as_json(facts)),
                (f"{number:03}ü.txt", b"x"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    whole, path = buffer.getvalue(), folder / "a.tar"

    def case(dice: random.Random) -> Verdict:
        data = bytearray(damage(whole, dice) if dice.random() < 0.5 else whole)
        for _ in range(dice.randrange(1, 4)):
            start = 512 * dice.randrange(max(1, len(data) // 512))
            header = bytes(data[start : start + 512])
            if len(header) == 512 and header[257:262] == b"ustar":
                # A field changed, with the sum put right again: made on purpose, not by a disk.
                field, width = dice.choice([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155)])
                value = dice.choice(
                    [
                        b"../x.png",
                        b"/x.png",
                        b"a\x1b[2J.png",
                        b"7" * 11,
                        b"\xff" * 12,
                        b"-1",
                        b"1",
                        b"2",
                        b"L",
                        b"x",
                        b"\0" * 8,
                    ]
                )
                header = header[:field] + value[:width].ljust(width, b"\0") + header[field + width :]
                total = sum(header[:148]) + 8 * 32 + sum(header[156:])
                data[start : start + 512] = header[:148] + b"%06o\0 " % total + header[156:]
        path.write_bytes(data)
        path.with_name("a.tar.index.json").unlink(missing_ok=True)
        try:
            return rows_of(read_shards(str(path), ceiling=1.0))
        except DataError:
            return "refused"

    return case


def shard_words(folder: Path) -> Case:
    """The JSON of a sample in a whole tar."""
    path = folder / "w.tar"
    facts = {"captions": list(CAPTIONS), "label": 3, "image_id": "i", "picture_id": 5, "crc32": 7, "key": "k"}

    def case(dice: random.Random) -> Verdict:
        with tarfile.open(path, "w") as tar:
            text = damage(as_json(facts), dice) if dice.random() < 0.3 else as_json(corrupt(facts, dice))
            for name, data in (
                ("0.png", png()),
                ("0.json", text),
                ("1.png", png(1)),
                ("1.txt", b"fine"),
                ("1.cls", damage(b"12", dice)),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        path.with_name("w.tar.index.json").unlink(missing_ok=True)
        try:
            return rows_of(read_shards(str(path), ceiling=1.0), pictures=False)
        except DataError:
            return "refused"

    return case


def shard_index(folder: Path) -> Case:
    """The side-car index of a shard; its digest is right half of the time."""
    path = folder / "i.tar"
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(CAPTIONS):
            for name, data in ((f"{number}.png", png(number)), (f"{number}.txt", caption.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    wanted, side = index_of(path), path.with_name("i.tar.index.json")
    body = json.loads(side.read_bytes())
    body.pop("digest")

    def case(dice: random.Random) -> Verdict:
        made = corrupt(body, dice)
        signed = dice.random() < 0.5
        if not isinstance(made, dict):
            return "refused"
        sign = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:32] if signed else "0" * 32
        side.write_bytes(as_json({**made, "digest": sign}))
        found = index_of(path)
        if not signed or found == wanted:
            assert found == wanted
            return "refused"
        return rows_of(read_shards(str(path), ceiling=1.0))

    return case


def checkpoint(folder: Path) -> Case:
    """A checkpoint whose files were changed and whose hashes were then put right: no disk does that."""
    tensors = {"w": torch.arange(12.0).reshape(3, 4), "half": torch.ones(5).bfloat16(), "count": torch.tensor(3)}
    path = save(folder / "checkpoints", 4, tensors, {"step": 4, "more": [1.5, float("nan")]}, score=0.5)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    shard_name = next(name for name in files if name.endswith(".safetensors"))

    def case(dice: random.Random) -> Verdict:
        made = dict(files)
        manifest = json.loads(made.pop("manifest.json"))
        manifest.pop("digest")
        what = dice.randrange(3)
        if what == 0:
            made[shard_name] = _lying(files[shard_name], dice)
        elif what == 1:
            made["state.json"] = damage(files["state.json"], dice)
        if what < 2:
            for name, data in made.items():
                manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        else:
            manifest = corrupt(manifest, dice)
        signed = {**manifest, "digest": digest(manifest)} if isinstance(manifest, dict) else manifest
        for name, data in (made | {"manifest.json": as_json(signed)}).items():
            (path / name).write_bytes(data)
        try:
            found, scalars = read(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            return "refused"
        assert isinstance(scalars, dict) and all(isinstance(each, torch.Tensor) for each in found.values())
        return "read"

    return case


def _lying(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file with another header, or with a header of a length that it has not."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    match dice.randrange(4):
        case 0:
            return (
                dice.choice([2**60, 2**63, 2**64 - 1, 2**31, 0, length + 8, 100_000_001]).to_bytes(8, "little")
                + data[8:]
            )
        case 1:
            return damage(data, dice)
        case _:
            text = as_json(corrupt(header, dice))
            return len(text).to_bytes(8, "little") + text + rest


def model_file(folder: Path) -> Case:
    """The weights of a small CLIP with a header that others have made, or with other tensors."""
    words = Tokenizer.train(CAPTIONS * 3, TokenizerSpec(280, 16))
    config = replace(
        ClipConfig(),
        image=VisionConfig(size=8, patch=4, width=8, layers=1, heads=2, pool="class"),
        text=TextConfig(vocabulary=len(words), context=16, width=8, layers=1, heads=2, causal=True, pool="eos"),
        embedding=8,
    )
    path = folder / "m.safetensors"
    write_model(path, Clip(config), Processor(ViewSpec(size=8), words))
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)

    def case(dice: random.Random) -> Verdict:
        other, own = dict(header), dict(tensors)
        name = dice.choice(["config", "config", "processor"])
        match dice.randrange(6):
            case 0:
                other[name] = damage(other[name].encode(), dice).decode(errors="replace")
            case 1:
                chosen = dice.choice(sorted(own))
                own[chosen] = dice.choice(
                    [own[chosen].double(), own[chosen].long(), own[chosen][..., None], torch.zeros(0)]
                )
            case _:
                tree = json.loads(other[name])
                for _ in range(dice.randrange(1, 4)):
                    tree = corrupt(tree, dice) if tree else tree
                other[name] = json.dumps(tree)
        save_file(own, path, metadata=other)
        try:
            model = read_model(path)
        except WeightsError as error:
            assert str(path) in str(error)
            return "refused"
        with torch.no_grad():
            try:
                found = model.encode_text(CAPTIONS).embedding
            except (ValueError, TypeError):
                return "left out"
        assert found.shape[0] == len(CAPTIONS)
        return "read"

    return case


def tokenizer(folder: Path) -> Case:
    """A tokenizer.json that others have made, and the texts that it is then given."""
    tree = json.loads(Tokenizer.train(CAPTIONS * 3, TokenizerSpec(280, 16)).to_json())
    text = json.dumps(tree)

    def case(dice: random.Random) -> Verdict:
        given = (
            damage(text.encode(), dice).decode(errors="replace")
            if dice.random() < 0.4
            else json.dumps(corrupt(tree, dice))
        )
        try:
            found = Tokenizer.from_json(given, 16 if dice.random() < 0.9 else dice.choice([8, 3, 2, 0, -1, 2**70]))
        except DataError:
            return "refused"
        tokens = found([*CAPTIONS, "", "\0", "\u200d" * 50, "x" * 3000])
        assert tokens.ids.shape == tokens.mask.shape == tokens.word_starts.shape and tokens.ids.shape[1] <= 16
        assert int(tokens.ids.max()) < len(found) and int(tokens.ids.min()) >= 0
        return "read"

    return case


def _table(folder: Path, name: str, data: bytes) -> Case:
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for number in range(len(CAPTIONS)):
        (pictures / f"{number}.png").write_bytes(png(number))
    path = folder / name

    def case(dice: random.Random) -> Verdict:
        path.write_bytes(damage(data, dice))
        try:
            return rows_of(read_captions(path, pictures, ceiling=1.0), pictures=False)
        except DataError as error:
            assert not set(str(error)) & {"\x1b", "\0"}
            return "refused"

    return case


ROWS = [
    {
        "image": f"{number}.png",
        "caption": caption,
        "image_id": f"i{number}",
        "label": str(number),
        "split": "train",
        "key": f"k{number}",
    }
    for number, caption in enumerate(CAPTIONS)
]


def json_lines(folder: Path) -> Case:
    """captions.jsonl."""
    return _table(folder, "c.jsonl", b"".join(as_json(row) + b"\n" for row in ROWS))


def json_values(folder: Path) -> Case:
    """captions.json whose syntax is right and whose values are not."""
    base, path = _table(folder, "v.json", as_json(ROWS)), folder / "v.json"

    def case(dice: random.Random) -> Verdict:
        base(dice)
        path.write_bytes(as_json(corrupt(ROWS, dice)))
        try:
            return rows_of(read_captions(path, folder / "pictures", ceiling=1.0), pictures=False)
        except DataError:
            return "refused"

    return case


def comma_separated(folder: Path) -> Case:
    """captions.csv."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS)
    return _table(folder, "c.csv", buffer.getvalue().encode())


def tab_separated(folder: Path) -> Case:
    """captions.tsv."""
    lines = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in ROWS)]
    return _table(folder, "c.tsv", "\n".join(lines).encode())


def parquet(folder: Path) -> Case:
    """captions.parquet."""
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(ROWS), folder / "whole.parquet")
    return _table(folder, "c.parquet", (folder / "whole.parquet").read_bytes())


def sidecars(folder: Path) -> Case:
    """A folder of pictures whose names and texts are anything that a file system allows."""
    root = folder / "sidecars"
    root.mkdir()

    def case(dice: random.Random) -> Verdict:
        for file in root.iterdir():
            file.unlink()
        for number, caption in enumerate(CAPTIONS):
            odd = dice.choice(["\x1b[2J", "\n", "\u202e", "\x07", "\\", '"', "é", " ", "..", "-", "'"])
            (root / f"{number}{odd}.png").write_bytes(png(number))
            (root / f"{number}{odd}.txt").write_bytes(damage(caption.encode(), dice))
        try:
            return rows_of(read_folder(root, ceiling=1.0))
        except DataError as error:
            assert not set(str(error)) & {"\x1b", "\0", "\x07"}
            return "refused"

    return case


TARGETS: dict[str, Callable[[Path], Case]] = {
    each.__name__: each
    for each in (shard, shard_words, shard_index, checkpoint, model_file, tokenizer, json_lines, json_values, comma_separated, tab_separated, parquet, sidecars)
}  # fmt: skip
MEMORY = 6 << 30  # bytes of addresses; what a lying header makes a reader ask for is more


def fuzz(name: str, folder: Path, rounds: int, answers: object, seed: int = 0) -> None:
    """Run a target in this process, which ought to be one that may die; puts ("ends", counts) or ("escaped", what) on a queue."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    folder.mkdir(parents=True)
    case = TARGETS[name](folder)
    ends: Counter[str] = Counter()
    for number in range(rounds):
        try:
            ends[case(random.Random(f"{name} {seed} {number}"))] += 1
        except BaseException:  # what escapes is the finding, whatever it is
            answers.put(("escaped", f"{name}, seed {seed}, round {number}:\n{traceback.format_exc()[-2500:]}"))  # type: ignore[attr-defined]
            return
    answers.put(("ends", dict(ends)))  # type: ignore[attr-defined]
