"""`/v1/explain`: every kind against `multiway.explain`, what is left out and why, and what is too much."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from served import SOURCE, b64, model_of, problem
from starlette.testclient import TestClient
from tuning import BLIND, METHODS

import multiway
from multiway.batch import ViewSpec
from multiway.config import to_json
from multiway.data.processor import Processor
from multiway.data.view import draw
from multiway.explain.kinds import KINDS
from multiway.explain.overlay import drawn_part, with_heat
from multiway.explain.pairs import CannotShow
from multiway.hub.model import Model
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.vit import VisionConfig
from multiway.serve.api import build_app
from multiway.serve.limits import Limits
from multiway.serve.looking import looks_of

MAE = MaeConfig(VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, positions="sincos"))
TEXT = " red on the left, and blue"
PICTURE = SOURCE.image(0)


def classifier() -> Model:
    torch.manual_seed(0)
    method = PictureClassifier(ClassifierConfig("mae", to_json(MAE), ("cat", "dog", "cow")))
    return Model(method, Processor(ViewSpec(size=16)))


def named(name: str) -> Model:
    if name == "classifier":
        return classifier()
    return Model(Mae(MAE), Processor(ViewSpec(size=16))) if name == "mae" else model_of(name)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: named(name) for name in ("clip", "filip", "albef", "vilt", "meter", "mae", "classifier")}


@pytest.fixture(scope="module")
def clients(models: dict[str, Model]) -> Iterator[dict[str, TestClient]]:
    opened = {name: TestClient(build_app(model, limits=Limits(rate=0))) for name, model in models.items()}
    for client in opened.values():
        client.__enter__()
    yield opened
    for client in opened.values():
        client.__exit__(None, None, None)


def ask(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/explain", json={"image": b64(0), **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, **body: Any) -> dict[str, Any]:
    return problem(client.post("/v1/explain", json={"image": b64(0), **body}), 422, "invalid")


@pytest.mark.parametrize("name", ["clip", "filip", "albef", "vilt", "meter", "mae", "classifier"])
@pytest.mark.parametrize("text", [TEXT, ""])
def test_every_kind_is_as_explain_has_it(
    models: dict[str, Model], clients: dict[str, TestClient], name: str, text: str
) -> None:
    model, client = models[name], clients[name]
    wanted = multiway.explain(model, PICTURE, text, batch=32)
    found = ask(client, text=text, each_head=True)
    assert list(found["maps"]) == [kind for kind in wanted.maps if kind != "occlusion"]
    assert found["absent"] == wanted.absent and found["text"] == text
    about = client.get("/v1/model").json()
    assert about["maps" if text else "maps_alone"] == list(wanted.maps)
    if "occlusion" in wanted.maps:
        found["maps"] |= ask(client, text=text, kinds=["occlusion"])["maps"]
    assert list(found["maps"]) == list(wanted.maps), "nothing was compared"
    for kind, own in wanted.maps.items():
        told = found["maps"][kind]
        assert np.array_equal(np.float32(told["values"]), own.heat.numpy()), kind
        assert (told["rows"], told["columns"]) == own.heat.shape and told["says"] == KINDS[kind].says
        assert told["score"] == (None if own.score is None else pytest.approx(own.score, abs=1e-6))
        assert (told["score_name"] or "", told["chosen"] or "") == (own.score_name, own.chosen)
        assert told["layers"] == list(own.layers) and told["overlay"] is None
        assert (told["words"] is None) == (own.by_word is None) and (told["heads"] is None) == (own.by_head is None)
        for word, (one, heat) in zip(told["words"] or (), own.each_word(), strict=True):
            assert word["text"] == one.text == text[word["start"] : word["stop"]]
            assert np.array_equal(np.float32(word["values"]), heat.numpy())
        if own.by_head is not None:
            assert np.array_equal(np.float32(told["heads"]), own.by_head.numpy())


def test_layers_heads_and_windows_are_those_that_are_asked_for(
    models: dict[str, Model], clients: dict[str, TestClient]
) -> None:
    for options in (
        {"kinds": ["grad-cam", "cross-attention"], "layers": [0, -1], "heads": [1]},
        {"kinds": ["itc-cam", "attention", "rollout"], "layers": [0], "heads": [0]},
        {"kinds": ["itc-cam", "occlusion"], "window": 8, "against": ["blue", "the top"]},
        {"kinds": ["occlusion"], "window": 8, "stride": 8, "baseline": "#ff8000", "score": "similarity"},
    ):
        wanted = multiway.explain(models["albef"], PICTURE, TEXT, **{"batch": 32, **options})
        found = ask(clients["albef"], text=TEXT, **options)
        assert list(found["maps"]) == options["kinds"] and found["absent"] == {}
        for kind, told in found["maps"].items():
            assert np.array_equal(np.float32(told["values"]), wanted[kind].heat.numpy()), kind
    usual = ask(clients["albef"], text=TEXT, kinds=["grad-cam"])["maps"]["grad-cam"]["values"]
    assert usual != ask(clients["albef"], text=TEXT, kinds=["grad-cam"], layers=[0])["maps"]["grad-cam"]["values"]


def test_maps_are_drawn_over_what_the_model_sees(models: dict[str, Model], clients: dict[str, TestClient]) -> None:
    wanted = multiway.explain(models["albef"], PICTURE, TEXT, ["grad-cam", "cross-attention"])
    found = ask(clients["albef"], text=TEXT, kinds=["grad-cam", "cross-attention"], overlay=48)["maps"]
    square = Image.fromarray(draw(PICTURE, models["albef"].processor.view)).resize((48, 48), Image.Resampling.BICUBIC)
    for kind, told in found.items():
        drawn = [(told["overlay"], wanted[kind].heat)]
        drawn += [
            (word["overlay"], heat) for word, (_, heat) in zip(told["words"], wanted[kind].each_word(), strict=True)
        ]
        assert len(drawn) == 8  # the comma is a word to the tokeniser
        for uri, heat in drawn:
            picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
            assert np.array_equal(np.asarray(picture), with_heat(square, drawn_part(kind, heat).numpy()))
    alone = ask(clients["albef"], text=TEXT, kinds=["grad-cam"], overlay=48, each_word=False)["maps"]["grad-cam"]
    assert alone["words"] is None and alone["overlay"] == found["grad-cam"]["overlay"]


def test_a_form_asks_for_the_same(clients: dict[str, TestClient]) -> None:
    files = [("image", ("x", base64.b64decode(b64(0))))]
    data = {"text": TEXT, "kinds": ["attention", "grad-cam"], "layers": ["0"], "each_word": "false"}
    form = clients["albef"].post("/v1/explain", files=files, data=data)
    assert form.json() == ask(clients["albef"], text=TEXT, kinds=["attention", "grad-cam"], layers=[0], each_word=False)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("albef", {"kinds": ["filip"], "text": "red"}, "albef cannot show `filip`: albef does not compare tokens"),
        ("albef", {"kinds": ["grad-cam"]}, "send `text`"),
        ("albef", {"kinds": ["saliency"], "text": "red"}, "no kind of map 'saliency'; there are: attention"),
        ("albef", {"kinds": ["grad-cam"], "text": "red", "layers": [2]}, "grad-cam: there is no layer 2"),
        ("albef", {"kinds": ["attention"], "heads": [7]}, "attention: there is no head 7"),
        ("albef", {"kinds": ["attention"], "layers": [5000]}, "layers.0"),
        ("albef", {"text": "red", "window": 4}, "send occlusion among `kinds`"),
        ("albef", {"kinds": ["occlusion"], "text": "red", "window": 4, "stride": 5}, "would never be covered"),
        ("albef", {"kinds": ["occlusion"], "text": "red", "window": 2, "stride": 1}, "read the picture 226 times"),
        ("albef", {"kinds": ["occlusion"], "text": "red", "baseline": "pink"}, "expected mean"),
        ("albef", {"kinds": ["occlusion"], "text": "red", "baseline": "PINK!"}, "baseline"),
        ("albef", {"kinds": ["occlusion"], "text": "red", "score": "caption"}, "no caption of a picture"),
        ("albef", {"text": "red " * 40}, "the model reads 16"),
        ("clip", {"kinds": ["grad-cam"], "text": "red"}, "it has: attention, rollout, itc-cam, occlusion"),
        ("albef", {"against": ["blue"]}, "send `text` too"),
        ("albef", {"text": "red", "against": [" "]}, "is empty"),
        ("albef", {"text": "red", "against": ["red " * 40]}, "the model reads 16"),
        ("albef", {"text": "red", "kinds": ["occlusion"], "against": ["blue", "left"]}, "150 times"),
        ("mae", {"kinds": ["itc-cam"], "text": "red"}, "mae reads no texts"),
        ("classifier", {"kinds": ["cross-attention"]}, "it has: attention, rollout, class-cam, occlusion"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_by_name(
    clients: dict[str, TestClient], name: str, body: dict[str, Any], said: str
) -> None:
    answer = clients[name].post("/v1/explain", json={"image": b64(0), **body})
    found = problem(answer, 422, "text-too-long" if "the model reads" in said else "invalid")
    assert said in str(found) and found["remedy"]


def test_work_is_counted_in_passes(models: dict[str, Model]) -> None:
    app = build_app(models["albef"], limits=Limits(rate=0, passes=26))
    with TestClient(app) as client:
        ask(client, text="red", kinds=["attention", "occlusion"], window=4, stride=4)
        # 16 places of 4 pixels on 16, and the picture as it is; attention is a pass of its own.
        count = app.state.metrics.registry.get_sample_value
        assert count("multiway_batch_rows_sum", {"operation": "explain"}) == 1 + 17
        assert count("multiway_batched_requests_total", {"operation": "explain"}) == 2
        ask(client, text="red", kinds=["occlusion"], window=4, stride=3)  # 5 x 5 and 1
        told = refused(client, text="red", kinds=["occlusion"])  # 7 x 7 and 1
        assert "read the picture 50 times; at most 26" in told["detail"] and "stride" in told["remedy"]
        assert count("multiway_batched_requests_total", {"operation": "explain"}) == 3


def test_no_more_is_drawn_than_may_be_sent(models: dict[str, Model]) -> None:
    with TestClient(build_app(models["albef"], limits=Limits(rate=0, pixels=9 * 32**2))) as client:
        ask(client, text="red left", overlay=32)  # five kinds, two of them with two words
        told = refused(client, text="red left", overlay=33)
        assert "9 maps of 33 x 33 are 9,801 pixels; at most 9,216" in told["detail"] and "each_word" in told["remedy"]
        ask(client, text="red left", overlay=33, each_word=False)


def test_between_kinds_a_deadline_is_looked_at(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from multiway.serve import operations

    shown: list[str] = []

    def slow(model: Model, asked: Any) -> Any:
        shown.append(asked.kind)
        time.sleep(0.4)
        return look(model, asked)

    look = operations.look
    monkeypatch.setattr(operations, "look", slow)
    with TestClient(build_app(models["albef"], limits=Limits(rate=0))) as client:
        body = {"image": b64(0), "text": "red"}
        answer = client.post("/v1/explain", json=body, headers={"X-Deadline-Ms": "600"})
        problem(answer, 504, "deadline")
    assert 1 <= len(shown) <= 2, "of five, the third was due after the deadline"


def test_where_there_is_only_occlusion_it_is_shown() -> None:
    model = model_of("simvlm")
    with TestClient(build_app(model, limits=Limits(rate=0))) as client:
        assert client.get("/v1/model").json()["maps"] == ["occlusion"]
        found = ask(client, text="red")
        assert list(found["maps"]) == ["occlusion"] and found["maps"]["occlusion"]["score"] < 0
        nothing = ask(client)
        assert nothing["maps"] == {} and set(nothing["absent"]) == set(KINDS)


def test_layers_that_say_nothing_are_told_of(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model has in general it may not have of the layers that are asked for."""
    from multiway.serve import operations

    look = operations.look

    def blind(model: Model, asked: Any) -> Any:
        if asked.kind == "grad-cam" and asked.look.layers:
            raise CannotShow("the score does not depend on it")
        return look(model, asked)

    monkeypatch.setattr(operations, "look", blind)
    with TestClient(build_app(models["albef"], limits=Limits(rate=0))) as client:
        found = ask(client, text="red", layers=[1])
        assert found["absent"]["grad-cam"] == "the score does not depend on it"
        assert list(found["maps"]) == ["attention", "rollout", "cross-attention", "itc-cam"]
        told = refused(client, text="red", layers=[1], kinds=["attention", "grad-cam"])
        assert told["detail"] == "the score does not depend on it"
        assert "absent" not in told and "grad-cam" in ask(client, text="red")["maps"]


@pytest.mark.parametrize("kind", ["", "asked", "two", "chosen"])
def test_a_server_begins_whatever_there_is_to_show(kind: str) -> None:
    for name in METHODS:
        if kind or (not name.endswith("-itc") and name not in BLIND):
            model = model_of(name, kind)
            routes = build_app(model, limits=Limits(rate=0)).state.routes
            looks = looks_of(model)
            assert ("/v1/explain" in routes) == looks.any >= (name in ("clip", "albef", "vilt", "simvlm", "vlmo")), name
            assert set(looks.told.maps) | set(looks.told.absent) == set(KINDS) and "class-cam" not in looks.told.maps
            for each, own in looks.told.maps.items():
                layers, heads = looks.choices(each, "text")
                assert own.by_head is None or own.by_head.shape[:2] == (layers, heads), (name, each)
                assert (heads > 0) == (each in ("attention", "rollout", "cross-attention", "grad-cam", "itc-cam")), name
