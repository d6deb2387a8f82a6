"""Tokenisers of folders without a `tokenizer.json`, held against those that `transformers` builds of the same files."""

import json
from pathlib import Path

import pytest
import transformers as peers
from hub.families import TEXTS, tokeniser

from multiway.data.tokenizer import Tokenizer
from multiway.hub.file import WeightsError
from multiway.hub.tokenizer_files import read_tokenizer

CLASSES = {"bert": peers.BertTokenizer, "roberta": peers.RobertaTokenizer, "clip": peers.CLIPTokenizer}
STRINGS = [
    *TEXTS,
    "",
    "  A  RED\tApple\n",
    "naïve Café's 12,345 blue-green",
    "日本の旗 apple 🍎",
    "it's [MASK] <mask> don't",
    "x" * 60,
]


def written(kind: str, folder: Path, **settings: object) -> Path:
    """Words and merges alone, as older releases have them."""
    folder.mkdir(exist_ok=True)
    model = json.loads(tokeniser(kind).backend_tokenizer.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    if kind == "bert":
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
        merges = "".join(f"{' '.join(each)}\n" for each in model["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", {}),
        ("bert", {"do_lower_case": False}),
        ("bert", {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}),
        ("roberta", {}),
        ("roberta", {"add_prefix_space": True}),
        ("clip", {}),
    ],
)
def test_ids_are_theirs(kind: str, settings: dict[str, bool], tmp_path: Path) -> None:
    folder = written(kind, tmp_path / "in", **settings)
    theirs, ours = CLASSES[kind].from_pretrained(folder), read_tokenizer(folder, 77)
    assert ours is not None
    for text in STRINGS:
        assert ours([text]).ids[0].tolist() == theirs(text)["input_ids"], text
    assert ours.backend.id_to_token(ours.pad) == theirs.pad_token
    again = Tokenizer.from_json(ours.to_json(), 77)  # as it is kept in our own file
    assert again(STRINGS).ids.equal(ours(STRINGS).ids)


def test_tokenizer_json_comes_first(tmp_path: Path) -> None:
    folder = written("bert", tmp_path)
    (folder / "tokenizer.json").write_text(tokeniser("clip").backend_tokenizer.to_str())
    found = read_tokenizer(folder, 12)
    assert found is not None and found(TEXTS[:1]).ids[0].tolist() == tokeniser("clip")(TEXTS[0])["input_ids"]


def test_what_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_tokenizer(tmp_path, 12) is None and not caplog.text
    (tmp_path / "spiece.model").write_bytes(b"\x00")
    assert read_tokenizer(tmp_path, 12) is None and "is SentencePiece's and not read" in caplog.text
    for file, text, said in (
        ("tokenizer.json", "{}", r"tokenizer\.json: this is not a tokenizer\.json.*fetch the file anew"),
        ("vocab.txt", "apple\nred\n", r"vocab\.txt lacks \[CLS\] or \[SEP\]"),
        ("merges.txt", "a b c\n", r"merges\.txt has lines that are no two tokens"),
        ("merges.txt", "q z\n", r"are no tokeniser"),
        ("merges.txt", "", r"vocab\.json lacks <s> or </s>"),
    ):
        folder = tmp_path / "each"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / file).write_text(text)
        if file == "merges.txt":
            (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
        with pytest.raises(WeightsError, match=said):
            read_tokenizer(folder, 12)
