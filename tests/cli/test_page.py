"""`multiway page` and `multiway serve --page`: what a run brings to its page."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from multiway_batches import WORDS
from tuning import VIEW, tuned

from multiway.cli.page_subject import Shown, searched, subject_of
from multiway.config import ConfigError
from multiway.data.processor import Processor
from multiway.data.source import DataError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.serve.find import Finder
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex
from multiway.serve.subject import Subject, one_at_a_time
from multiway.serve.tabs import tabs_of

NOTHING = Shown()


def shown_of(run: Path, shown: Shown = NOTHING, place: str = "") -> Subject:
    model = load(place or run)
    index, where = searched(place or str(run), model, shown)
    assert index is None or isinstance(index, PictureIndex | Finder)
    return subject_of(
        place or str(run), model, shown, limits=Limits(), index=index, where=where, compute=one_at_a_time()
    )


def test_a_run_brings_its_held_out_pictures_and_curves(tiny_run: Path) -> None:
    found = shown_of(tiny_run)
    assert found.name == "run" and [tab.title for tab in tabs_of(found)] == [
        "Search",
        "Classify",
        "Similarity",
        "Look",
        "Curves",
    ]
    assert found.samples and all(sample.caption for sample in found.samples)
    assert found.place.startswith("the 96 pictures of ")
    titles, drawn = zip(*found.plots(found.run.metrics()), strict=True)
    assert len(titles) == 2 and all(each.startswith("<svg") for each in drawn)
    # None of the samples was trained on.
    from multiway.data.open import open_source

    config = json.loads((tiny_run / "config.json").read_text())
    train = open_source(config["data"], config["images"], "train")
    assert not {sample.name for sample in found.samples} & {train.row(row).key for row in range(len(train))}


def test_weights_alone_show_what_is_named(tiny_run: Path, caption_folder: Path) -> None:
    weights = str(tiny_run / "model.safetensors")
    bare = shown_of(tiny_run, place=weights)
    assert (
        bare.run is None
        and not bare.samples
        and [tab.title for tab in tabs_of(bare)] == ["Classify", "Similarity", "Look"]
    )
    shown = Shown(data=str(caption_folder / "captions.jsonl"), images=str(caption_folder / "pictures"))
    named = shown_of(tiny_run, shown, weights)
    assert named.samples and [tab.title for tab in tabs_of(named)] == ["Search", "Classify", "Similarity", "Look"]
    with pytest.raises(DataError):
        shown_of(tiny_run, Shown(data="nowhere.jsonl"), weights)


def test_many_pictures_are_not_waited_for(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiway.cli.page_subject._GALLERY", 2)
    index, where = searched(str(tiny_run), load(tiny_run))
    assert isinstance(index, PictureIndex) and len(index) == 2 and where.endswith(("@val", "@test"))


def test_a_tuned_run_brings_questions(tmp_path: Path) -> None:
    from multiway.hub.file import write_model

    torch.manual_seed(0)
    folder = tmp_path / "vqa"
    folder.mkdir()
    model = Model(tuned("vilt"), Processor(VIEW, WORDS))
    write_model(folder / "model.safetensors", model.method, model.processor)
    config = {
        "task": "vqa",
        "data": "scenes:easy,objects=1-3@train",
        "images": "",
        "settings": {"steps": 1, "lr": 1, "batch": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "provenance.json").write_text("{}")
    found = shown_of(folder)
    assert found.index is None and [sample.question for sample in found.samples if sample.question.endswith("?")]
    assert not found.labels, "a question is no label"
    assert [tab.title for tab in tabs_of(found)] == ["Answer", "Similarity", "Look"]


@pytest.mark.parametrize("verb", ["page", "serve"])
def test_the_page_is_served_with_the_api(verb: str, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    from fastapi.testclient import TestClient

    from multiway.cli.main import main

    apps: list[Any] = []
    opened: list[str] = []

    def serve(app: Any, bound: Any, limits: Limits, proxies: str = "", say: Any = None) -> None:
        apps.append(app)
        bound.close()
        say() if verb == "page" else None

    monkeypatch.setattr("multiway.serve.server.serve", serve)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.delenv("MULTIWAY_API_KEY", raising=False)
    more = ["--page", "--data", "own"] if verb == "serve" else []
    assert main([verb, str(tiny_run), "--port", "0", *more]) == 0
    with TestClient(apps[0]) as client:
        assert client.get("/page/").status_code == 200 and client.get("/v1/model").status_code == 200
    if verb == "page":
        assert opened[0].startswith("http://127.0.0.1:") and opened[0].endswith("/page/")


def test_without_gradio_it_says_what_to_install(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    from multiway.cli.page import run

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gradio" else find_spec(name))
    with pytest.raises(ConfigError, match=r"gradio; pip install 'multiway\[web\]'"):
        run([str(tiny_run)])
