"""Files made to harm, and files that chance has damaged: refused by name, left out and counted, or believable; nothing else.

`tests/data/test_decode.py`, `test_shards.py` and `annotated/` have the single cases; here are the many.
"""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from faults import targets
from faults.harness import FORKS, PATIENCE, Child, command, write_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from multiway.data.decode import decode
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, DataError, printable
from multiway.data.tokenizer import CONTEXT_CEILING, Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError, read_model

pytestmark = pytest.mark.faults

ROUNDS = 350  # of each target, about 4,000 in all


@pytest.mark.parametrize("name", targets.TARGETS)
def test_damaged_files_are_refused_counted_or_believable(name: str, tmp_path: Path) -> None:
    """In a child with limited memory: a crash, or a reader that believes a lying header, ends that and not the tests."""
    answers = FORKS.Queue()
    child = FORKS.Process(target=targets.fuzz, args=(name, tmp_path / name, ROUNDS, answers))
    child.start()
    kind, what = answers.get(timeout=PATIENCE)
    child.join(PATIENCE)
    assert kind == "ends", what
    assert child.exitcode == 0
    assert sum(what.values()) == ROUNDS and len(what) >= 2 and min(what.values()) < 0.99 * ROUNDS, what


# --- weights ----------------------------------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self) -> tuple:
        return (print, ("a stranger's code ran",))


def _header(value: object, length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Evil()))
    return buffer.getvalue()


WEIGHTS = {
    "a pickle": pickle.dumps(_Evil()),
    "torch's archive": _archive(),
    "nothing": b"",
    "seven bytes": b"1234567",
    "a header of 2^60 bytes": _header({}, 1 << 60),
    "a header of 2^64 - 1 bytes": _header({}, (1 << 64) - 1),
    "a header longer than the file": _header({}, 5000),
    "a header that is no object": _header([1, 2]),
    "a header nested without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a tensor beyond the end": _header({"x": _tensor([4], 0, 16)}, data=b"1234"),
    "a tensor of 2^62 numbers": _header({"x": _tensor([1 << 31, 1 << 31], 0, 8)}, data=bytes(8)),
    "a shape of 2^64": _header({"x": _tensor([1 << 64], 0, 8)}, data=bytes(8)),
    "overlapping tensors": _header({"x": _tensor([4], 0, 16), "y": _tensor([4], 8, 24)}, data=bytes(24)),
    "a gap between tensors": _header({"x": _tensor([1], 0, 4), "y": _tensor([1], 8, 12)}, data=bytes(12)),
    "a tensor that ends before it begins": _header({"x": _tensor([1], 8, 4)}, data=bytes(8)),
    "a negative shape": _header({"x": _tensor([-1], 0, 4)}, data=bytes(4)),
    "an unknown type": _header({"x": _tensor([1], 0, 4, "F99")}, data=bytes(4)),
    "a tensor of nobody's": _header({"x": _tensor([1], 0, 4), "__metadata__": {"format": "multiway-1"}}, data=bytes(4)),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_what_is_no_model_is_refused(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS[what])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_model(path)
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("tampered", ["config", "processor", "method"])
def test_a_model_whose_header_was_damaged_is_refused(tiny_run: Path, tmp_path: Path, tampered: str) -> None:
    source, path = tiny_run / "model.safetensors", tmp_path / "model.safetensors"
    with safe_open(source, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    for number in range(0, len(header[tampered]), max(1, len(header[tampered]) // 12)):
        save_file(tensors, path, metadata=header | {tampered: header[tampered][:number]})
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            read_model(path)


# --- pictures ---------------------------------------------------------------------------------------------------------

SIDE = 60_000


def _encoded(kind: str) -> bytearray:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    return bytearray(buffer.getvalue())


def _bomb(kind: str) -> bytes:
    """A picture of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""
    data = _encoded(kind)
    match kind:
        case "PNG":
            data[16:24] = struct.pack(">II", SIDE, SIDE)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        case "GIF":
            data[6:10] = struct.pack("<HH", SIDE, SIDE)
            at = data.index(b",")
            data[at + 5 : at + 9] = struct.pack("<HH", SIDE, SIDE)
        case "BMP":
            data[18:26] = struct.pack("<ii", SIDE, SIDE)
        case "JPEG":
            at = data.index(b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", SIDE, SIDE)
        case "TIFF":
            for tag in (256, 257):  # width and height, as 32-bit values
                at = data.index(struct.pack("<H", tag), 8)
                data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, SIDE)
        case "PPM":
            return b"P6 60000 60000 255\n" + bytes(100)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "TIFF", "PPM"])
def test_a_bomb_of_any_format_is_refused_before_it_is_unpacked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.core, "new", lambda *rest: pytest.fail("memory was taken"))
    with pytest.raises(BadRow, match=r"row 3: .*(too large|more than the 64 million)"):
        decode(_bomb(kind), "row 3")


def test_text_inside_a_picture_does_not_unpack_without_end() -> None:
    data = _encoded("PNG")
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    with pytest.raises(BadRow, match="row 3"):
        decode(bytes(data[:33]) + chunk + bytes(data[33:]), "row 3")


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(targets.CAPTIONS * 3, TokenizerSpec(300, 24))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=200), min_size=1, max_size=4), st.integers(1, 2000))
def test_giant_tokens_and_strange_characters(tokenizer: Tokenizer, texts: list[str], times: int) -> None:
    """Whatever stands in a caption, however long: ids in range, the context kept, the end token last."""
    tokens = tokenizer([text * (times if len(text) < 20 else 1) for text in texts])
    assert tokens.ids.shape[1] <= 24 and 0 <= int(tokens.ids.min()) <= int(tokens.ids.max()) < len(tokenizer)
    ends = tokens.ids.gather(1, tokens.mask.sum(1, keepdim=True) - 1)
    assert (ends == tokenizer.special["eos"]).all()
    assert not (tokens.word_starts & ~tokens.mask).any()


def test_a_word_of_a_megabyte_takes_no_time(tokenizer: Tokenizer) -> None:
    for text in ("x" * 1_000_000, "\u0301" * 300_000, "日" * 300_000):
        assert tokenizer([text]).ids.shape[1] <= 24


@pytest.mark.parametrize("context", [0, -1, 2, CONTEXT_CEILING + 1, 2**70, 1.5, None, True])
def test_absurd_contexts(tokenizer: Tokenizer, context: object) -> None:
    with pytest.raises(DataError, match="expected 3"):
        Tokenizer.from_json(tokenizer.to_json(), context)  # type: ignore[arg-type]


def test_ids_with_gaps(tokenizer: Tokenizer) -> None:
    """A gap makes the embedding longer; an id of billions is refused."""
    tree = json.loads(tokenizer.to_json())
    last = max(tree["model"]["vocab"], key=tree["model"]["vocab"].get)
    tree["model"]["vocab"][last] = 400
    gapped = Tokenizer.from_json(json.dumps(tree), 24)
    assert len(gapped) == 401
    tree["model"]["vocab"][last] = 2**31
    with pytest.raises(DataError, match=r"ids up to 2,147,483,648"):
        Tokenizer.from_json(json.dumps(tree), 24)


# --- names ------------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.text())
def test_no_message_commands_a_terminal(text: str) -> None:
    for said in (str(BadRow(text)), str(DataError(f"{text}: no")), str(Rejected(text, text)), printable(text)):
        assert not any(
            (ord(each) < 32 and each != "\n") or 0x7F <= ord(each) < 0xA0 or 0x202A <= ord(each) <= 0x202E
            for each in said
        )
        said.encode()
    assert "\n" not in str(Rejected(text, text))
    if text.isprintable():
        assert printable(text) == text


def test_names_with_control_characters_train_and_are_shown_escaped(tmp_path: Path) -> None:
    """A picture whose name would clear the screen, and which is broken besides."""
    folder = write_data(tmp_path / "own")
    odd = "\x1b[2J\x07\u202e.png"
    (folder / "pictures" / odd).write_bytes(b"\x1b[31mnot a picture")
    with (folder / "captions.jsonl").open("a") as file:
        file.write(json.dumps({"image": odd, "caption": "odd \x1b[2J", "split": "train"}) + "\n")
    lines = [json.loads(line) | {"split": "train"} for line in (folder / "captions.jsonl").read_text().splitlines()]
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    child = Child(command(folder, "run", "--steps", "5"))
    assert child.end() == 0, child.log.read_text()
    shown = child.log.read_bytes() + (folder / "run" / "skipped.jsonl").read_bytes()
    assert not {0x1B, 0x07} & set(shown) and "\u202e".encode() not in shown
    skipped = [json.loads(line)["why"] for line in (folder / "run" / "skipped.jsonl").read_text().splitlines()]
    assert any(r"\x1b[2J\x07\u202e.png" in why for why in skipped)
