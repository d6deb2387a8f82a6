"""What `--init` names, read and opened: one model or one for each part, whose words, and which weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError, write_model
from multiway.hub.load import load, load_sources
from multiway.hub.sources import by_part
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

IMAGE = VisionConfig(size=16, patch=4, width=24, layers=1, heads=2)
TEXT = TextConfig(width=24, layers=1, heads=2, causal=False, pool="class")
WORDS = {
    "a": Tokenizer.train(["a red circle on the left"], TokenizerSpec(60, 12)),
    "b": Tokenizer.train(["two blue stars"], TokenizerSpec(60, 12)),
}


def method(name: str, words: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    info = DataInfo(vocabulary=len(WORDS[words]), context=12, special=WORDS[words].special)
    if name == "bert":
        return Bert(BertConfig(TEXT).resolve(info))
    if name == "albef":
        return Albef(AlbefConfig(image=IMAGE, text=TEXT, fusion_layers=1, embedding=20, queue=8).resolve(info))
    return Clip(ClipConfig(image=IMAGE, text=replace(TEXT, causal=True, pool="last"), embedding=20).resolve(info))


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def of(name: str, words: str = "a", seed: int = 0) -> str:
        path = tmp_path / f"{name}-{words}-{seed}.safetensors"
        write_model(path, method(name, words, seed), Processor(ViewSpec(size=16), WORDS[words]))
        return str(path)

    return of


@pytest.mark.parametrize(
    ("init", "parts"),
    [
        ("image=runs/clip,text=runs/bert", {"image": "runs/clip", "text": "runs/bert"}),
        ("image=hf:openai/clip,text=b.safetensors", {"image": "hf:openai/clip", "text": "b.safetensors"}),
        ("image=runs/a,b=c", {"image": "runs/a", "b": "c"}),
        ("image=runs/a,1", {"image": "runs/a,1"}),
        ("image=runs/lr=3", {"image": "runs/lr=3"}),
        ("runs/clip", {}),
        ("runs/lr=3,wd=1", {}),
        ("hf:openai/clip", {}),
        ("/data/a=b", {}),
    ],
)
def test_what_is_named(init: str, parts: dict[str, str]) -> None:
    assert by_part(init) == parts


def test_a_folder_may_be_called_like_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert by_part("lr=3") == {"lr": "3"}
    (tmp_path / "lr=3").mkdir()
    assert by_part("lr=3") == {}


def test_the_same_part_twice_and_one_without_a_source_are_refused() -> None:
    with pytest.raises(WeightsError, match="image is named twice, a and b"):
        by_part("image=a,text=c,image=b")
    with pytest.raises(WeightsError, match="text has no source; expected one for each part"):
        by_part("image=a,text=")


def test_the_tokeniser_is_that_of_the_words(file: Any) -> None:
    sources = load_sources(f"image={file('clip')},text={file('bert', 'b')}")
    assert sources.tokenizer is not None and sources.tokenizer.to_json() == WORDS["b"].to_json()
    assert load_sources(f"image={file('clip')}").tokenizer is None
    assert load_sources(f"words={file('bert')}").tokenizer is None, "a head of words has no embeddings of them"
    one = load_sources(file("albef"))
    assert one.tokenizer is not None and one.tokenizer.to_json() == WORDS["a"].to_json()


def test_a_source_of_two_parts_is_opened_once(file: Any) -> None:
    sources = load_sources(f"image={file('albef')},text={file('albef')}")
    assert sources.models["image"] is sources.models["text"]


def test_the_hash_is_of_every_source_and_of_what_it_is_for(file: Any) -> None:
    def hashed(init: str) -> str:
        return load_sources(init).fill(method("albef", "a", 9), ())[1]

    first = hashed(f"image={file('albef')},text={file('bert')}")
    assert first == hashed(f"text={file('bert')},image={file('albef')}") and len(first) == 16
    others = [
        hashed(f"image={file('albef', seed=1)},text={file('bert')}"),
        hashed(f"image={file('albef')},text={file('bert', seed=1)}"),
        hashed(f"image={file('albef')}"),
        hashed(f"fusion={file('albef')},text={file('bert')}"),
        hashed(file("albef")),
    ]
    assert len({first, *others}) == len(others) + 1


def test_where_one_model_is_needed_a_part_each_is_refused(file: Any) -> None:
    with pytest.raises(WeightsError, match="names a model for each of image, text, from which a new run may begin"):
        load("image=runs/a,text=runs/b")
