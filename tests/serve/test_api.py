"""Every route against asking the model directly; alone and in company; as JSON and as a form; and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from multiway_batches import INFO, WORDS
from served import SOURCE, b64, model_of, png, problem
from starlette.testclient import TestClient
from tuning import METHODS, VIEW

from multiway.abilities import LacksAbility
from multiway.batch import ViewSpec
from multiway.config import to_json
from multiway.data.processor import Processor
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.methods.answer_writer import AnswerWriter, AnswerWriterConfig
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.generate import Generation
from multiway.nn.vit import VisionConfig
from multiway.serve.api import build_app
from multiway.serve.faiss_index import FaissIndex
from multiway.serve.find import rerank
from multiway.serve.index import IndexFault, entries
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex
from multiway.tasks.zeroshot import ZeroShotClassifier

FREE = Limits(rate=0)
MAE = MaeConfig(VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, positions="sincos"))
PICTURES = [SOURCE.image(row) for row in range(20)]


@pytest.fixture(scope="module")
def clip() -> Model:
    return model_of("clip")


@pytest.fixture(scope="module")
def blip() -> Model:
    return model_of("blip")


def client_of(model: Model, limits: Limits = FREE, **options: Any) -> Iterator[TestClient]:
    with TestClient(build_app(model, limits=limits, **options), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def dual(clip: Model) -> Iterator[TestClient]:
    yield from client_of(clip, index=PictureIndex.build(clip, SOURCE))


@pytest.fixture(scope="module")
def fused(blip: Model) -> Iterator[TestClient]:
    yield from client_of(blip, index=PictureIndex.build(blip, SOURCE))


def asked(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found: Any, expected: torch.Tensor) -> bool:
    return torch.allclose(torch.tensor(found), expected.float(), atol=1e-5)


def test_embeddings(dual: TestClient, clip: Model) -> None:
    images = clip.encode_image(PICTURES[:3]).embedding
    found = asked(dual, "embed/image", {"images": [b64(row) for row in range(3)]})
    assert found["model"] == "clip" and found["width"] == 20 and close(found["embeddings"], images)
    packed = asked(dual, "embed/image", {"images": [b64(0)], "encoding": "base64"})["embeddings"][0]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), images[0], atol=1e-5)
    words = ["red on the left", "blue", "red on the left"]
    found = asked(dual, "embed/text", {"texts": words})
    assert close(found["embeddings"], clip.encode_text(words).embedding)


def test_compare_and_classify_with_any_labels(dual: TestClient, clip: Model) -> None:
    images, texts = clip.encode_image(PICTURES[:2]), clip.encode_text(["red", "blue", "the top is green"])
    body = {"images": [b64(0), b64(1)], "texts": ["red", "blue", "the top is green"]}
    found = asked(dual, "compare", body)
    assert found["measure"] == "cosine" and close(found["similarities"], clip.compare(images, texts))
    labels, templates = ["red", "blue", "green", "white"], ["{} on one side", "something {}"]
    scores = ZeroShotClassifier(clip, labels, templates).scores(images)
    body = {"images": [b64(0), b64(1)], "labels": labels, "templates": templates, "top": 3}
    found = asked(dual, "classify", body)["labels"]
    for row, best in zip(scores, found, strict=True):
        values, places = row.topk(3)
        assert [each["label"] for each in best] == [labels[place] for place in places]
        assert close([each["score"] for each in best], values) and best[0]["probability"] is None


def test_search_by_words_picture_and_both(dual: TestClient, clip: Model) -> None:
    gallery = PictureIndex.build(clip, SOURCE)
    for text, row, weight in (("red on the left", None, 0.5), ("", 7, 0.5), ("blue", 4, 0.3)):
        body = {"text": text, "top": 4, "weight": weight, "thumbnail": 8}
        found = asked(dual, "search", body if row is None else body | {"image": b64(row)})
        hits = gallery.find(text, None if row is None else PICTURES[row], weight, 4)
        assert found["among"] == 20 and found["measure"] == "cosine"
        assert [(hit["key"], hit["caption"]) for hit in found["hits"]] == [(hit.key, hit.caption) for hit in hits]
        assert close([hit["score"] for hit in found["hits"]], torch.tensor([hit.score for hit in hits]))
        assert all(hit["thumbnail"].startswith("data:image/png;base64,") for hit in found["hits"])
        assert "where" not in found["hits"][0]  # where files lie is nobody's business


def test_search_in_a_vector_index(clip: Model, tmp_path: Any) -> None:
    index = FaissIndex(tmp_path / "index", about={"model": model_identity(clip), "sources": []})
    vectors = clip.encode_image(PICTURES).embedding.numpy()
    index.add(vectors, entries([f"k{row}" for row in range(20)], captions=[[f"picture {row}"] for row in range(20)]))
    for client in client_of(clip, index=index):
        found = asked(client, "search", {"image": b64(7), "top": 2, "thumbnail": 16})["hits"]
        assert found[0]["key"] == "k7" and found[0]["score"] == pytest.approx(1, abs=1e-5)
        assert found[0]["thumbnail"] is None  # the index does not say where its pictures lie
    with pytest.raises(IndexFault, match="another model"):
        build_app(model_of("siglip"), index)


def test_match_rerank_and_caption(fused: TestClient, blip: Model) -> None:
    words = ["red on the left", "the top is blue"]
    shown, said = blip.encode_image(PICTURES[:2], tokens=True), blip.encode_text(words, tokens=True)
    found = asked(fused, "match", {"images": [b64(0), b64(1)], "texts": words})
    odds = blip.match(shown, said)
    assert close(found["log_odds"], odds) and close(found["probabilities"], odds.sigmoid())
    both = asked(fused, "match", {"images": [b64(0)], "texts": words})["log_odds"]
    assert close(both, blip.match(shown.rows(torch.tensor([0, 0])), said))
    gallery = PictureIndex.build(blip, SOURCE)
    hits = rerank(blip, "red", gallery.find("red", top=20), gallery.picture)[:3]
    found = asked(fused, "search", {"text": "red", "top": 3, "rerank": True})
    assert found["measure"] == "log-odds" and [hit["key"] for hit in found["hits"]] == [hit.key for hit in hits]
    settings = Generation("beam", max_length=12, beams=2, texts=2)
    body = {"images": [b64(0), b64(1)], "beams": 2, "max_length": 12, "samples": 2}
    assert asked(fused, "caption", body)["captions"] == blip.generate(shown, settings)
    prompted = asked(fused, "caption", {**body, "prompt": "red"})["captions"]
    assert prompted == blip.generate(shown, settings, ["red", "red"])


def test_answers_of_a_tuned_model() -> None:
    model = model_of("blip", "asked")
    scores = model.answer(
        model.encode_image(PICTURES[:1], tokens=True), model.encode_text(["what is left"], tokens=True)
    )[0]
    for client in client_of(model):
        found = asked(client, "answer", {"image": b64(0), "question": "what is left", "top": 3})
        assert found["among"] == 5 and found["measure"] == "score"
        assert [each["answer"] for each in found["answers"]] == [model.answers[place] for place in scores.topk(3)[1]]
        assert close([each["score"] for each in found["answers"]], scores.topk(3)[0])


def test_answers_in_ones_own_words() -> None:
    words = WORDS(["red", "blue", "two"])
    lists = tuple(tuple(row[kept].tolist()) for row, kept in zip(words.ids, words.mask, strict=True))
    of, answers = to_json(METHODS["blip"].resolve(INFO)), ("red", "blue", "two")
    config = AnswerWriterConfig(method="blip", of=of, answers=answers, answer_ids=lists).resolve(INFO)
    torch.manual_seed(0)
    model = Model(AnswerWriter(config), Processor(VIEW, WORDS))
    shown, said = model.encode_image(PICTURES[:1], tokens=True), model.encode_text(["what"], tokens=True)
    for client in client_of(model):
        found = asked(client, "answer", {"image": b64(0), "question": "what"})
        assert found["measure"] == "log-probability" and found["answers"][0]["answer"] in config.answers
        assert found["written"] == model.write_answers(shown, said, Generation("beam", max_length=20))[0]
    with pytest.raises(LacksAbility, match="finetune RUN --task vqa-generate"):
        model_of("blip", "asked").write_answers(shown, said)


def test_classes_of_a_tuned_model() -> None:
    torch.manual_seed(0)
    config = ClassifierConfig("mae", to_json(MAE), ("cat", "dog", "cow"))
    model = Model(PictureClassifier(config), Processor(ViewSpec(size=16)))
    scores = model.classify(model.encode_image(PICTURES[:1], tokens=True)).softmax(1)[0]
    for client in client_of(model):
        routes = client.get("/v1/model").json()
        assert routes["classes"] == ["cat", "dog", "cow"] and "/v1/embed/text" not in routes["routes"]
        found = asked(client, "classify", {"images": [b64(0)]})["labels"][0]
        assert found[0]["label"] == model.classes[int(scores.argmax())]
        assert close([each["probability"] for each in found], scores.sort(descending=True)[0])
        problem(client.post("/v1/classify", json={"images": [b64(0)], "labels": ["a"]}), 422, "invalid")


@pytest.mark.parametrize("name", ["clip", "filip", "vilt", "albef", "mae"])
def test_only_what_the_model_is_able_to_do_is_there(name: str) -> None:
    able = {
        "clip": {"embed/image", "embed/text", "compare", "classify", "explain"},
        "filip": {"compare", "classify", "explain"},
        "vilt": {"match", "explain"},
        "albef": {"embed/image", "embed/text", "compare", "match", "classify", "explain"},
        "mae": {"embed/image", "explain"},
    }[name]
    model = Model(Mae(MAE), Processor(ViewSpec(size=16))) if name == "mae" else model_of(name)
    for client in client_of(model):
        assert set(client.get("/v1/model").json()["routes"]) == {"/v1/model"} | {f"/v1/{path}" for path in able}
        paths = client.get("/openapi.json").json()["paths"]
        assert {path.removeprefix("/v1/") for path in paths if path.startswith("/v1/")} == able | {"model"}
        problem(client.post("/v1/caption", json={}), 404, "not-found")


def test_forms_give_the_same_as_json(fused: TestClient) -> None:
    files = [("images", ("../../etc/passwd", png(0), "text/html")), ("images", ("b", png(1)))]
    texts = {"texts": ["red on the left", "blue"]}
    form = fused.post("/v1/match", files=files, data=texts)
    assert form.json() == asked(fused, "match", {"images": [b64(0), b64(1)], **texts})
    single = {"text": "red", "top": "2", "rerank": "true", "weight": "0.25"}
    form = fused.post("/v1/search", files=[("image", ("x.png", png(3)))], data=single)
    body = {"text": "red", "top": 2, "rerank": True, "weight": 0.25, "image": b64(3)}
    assert form.json() == asked(fused, "search", body)
    twice = fused.post("/v1/search", files=[("image", ("x.png", png(3)))] * 2)
    assert "given 2 times" in problem(twice, 422, "invalid")["detail"]
    broken = fused.post(
        "/v1/match", content=b"--x\r\nrubbish", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in (400, 422)
    problem(fused.post("/v1/match", content=b"", headers={"content-type": "multipart/form-data"}), 400, "malformed")


@pytest.mark.parametrize("name", ["clip", "blip"])
def test_company_changes_no_answer(name: str) -> None:
    """Many requests of different lengths at once, in shared passes, against each of them alone."""
    model = model_of(name)
    app = build_app(model, PictureIndex.build(model, SOURCE), Limits(rate=0, wait_ms=20, batch=16))
    texts = ["red", "red on the left, and nothing else at all", "the top is blue", "x", "yellow green blue"]
    bodies: list[tuple[str, dict[str, Any]]] = []
    for row in range(6):
        some = texts[row % 5 :] + texts[: row % 3]
        bodies += [
            ("embed/image", {"images": [b64(row), b64(row + 1)][: row % 2 + 1]}),
            ("embed/text", {"texts": some, "truncate": True}),
            ("compare", {"images": [b64(row)], "texts": some, "truncate": True}),
            ("search", {"text": texts[row % 5], "top": 3, "truncate": True}),
            ("classify", {"images": [b64(row)], "labels": ["red", "a longer blue"]}),
        ]
        if name == "blip":
            bodies += [
                ("match", {"images": [b64(row)], "texts": some, "truncate": True}),
                ("caption", {"images": [b64(row)], "beams": 2, "max_length": 8}),
                ("caption", {"images": [b64(row)], "strategy": "nucleus", "seed": row, "max_length": 8}),
                ("caption", {"images": [b64(row)], "prompt": ["red", "the top is"][row % 2], "max_length": 9}),
            ]

    async def both() -> tuple[list[Any], list[Any]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

            async def ask(path: str, body: dict[str, Any]) -> Any:
                answer = await client.post(f"/v1/{path}", json=body, timeout=60)
                assert answer.status_code == 200, answer.text
                return answer.json()

            alone = [await ask(*each) for each in bodies]
            together = await asyncio.gather(*(ask(*each) for each in bodies))
        return alone, list(together)

    alone, together = asyncio.run(both())
    for (path, _), one, other in zip(bodies, alone, together, strict=True):
        assert _numbers(one) == pytest.approx(_numbers(other), abs=1e-5), path
        assert _words(one) == _words(other), path
    metrics = app.state.metrics.registry
    passes = metrics.get_sample_value("multiway_model_seconds_count", {"operation": "embed_image"})
    requests = metrics.get_sample_value("multiway_batched_requests_total", {"operation": "embed_image"})
    assert requests == 12 and passes < 12  # some did share a pass


def _numbers(value: Any) -> list[float]:
    if isinstance(value, float | int):
        return [float(value)]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for item in items for number in _numbers(item)]


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [word for item in items for word in _words(item)]


@pytest.mark.parametrize(
    ("path", "body", "kind", "said"),
    [
        ("embed/text", {"texts": ["red " * 40]}, "text-too-long", "the model reads 16"),
        ("embed/text", {"texts": ["a", "red " * 40, "b"]}, "text-too-long", "texts.1"),
        ("embed/text", {"texts": ["x" * 2001]}, "invalid", "2,001 characters; at most 2,000"),
        ("embed/text", {"texts": ["x"] * 257}, "invalid", "257 texts; at most 256"),
        ("embed/text", {"texts": []}, "invalid", "at least 1"),
        ("embed/text", {"texts": [""]}, "invalid", "texts.0"),
        ("embed/text", {"texts": "red"}, "invalid", "texts"),
        ("embed/text", {"texts": ["red"], "colour": 1}, "invalid", "colour"),
        ("embed/text", {"texts": ["red"], "truncate": "yes"}, "invalid", "truncate"),
        ("embed/image", {"images": [b64(0)] * 17}, "invalid", "17 images; at most 16"),
        ("embed/image", {"images": ["http://127.0.0.1/a.png"]}, "invalid", "nothing is fetched"),
        ("embed/image", {"images": ["../a.png"]}, "invalid", "no file is opened"),
        ("embed/image", {"images": [b64(png(0)[:-30])]}, "picture", "truncated or damaged"),
        ("search", {}, "invalid", "the query is empty"),
        ("search", {"text": "red", "top": 0}, "invalid", "top"),
        ("search", {"text": "red", "top": 101}, "invalid", "at most 100"),
        ("search", {"text": "red", "weight": 1.5}, "invalid", "weight"),
        ("match", {"images": [b64(0)] * 2, "texts": ["a"] * 3}, "invalid", "2 pictures and 3 texts"),
        ("classify", {"images": [b64(0)]}, "invalid", "no labels"),
        ("classify", {"images": [b64(0)], "labels": ["a"], "templates": ["{} {}"]}, "invalid", "{}"),
        ("classify", {"images": [b64(0)], "labels": ["a"] * 600, "templates": ["{}", "a {}"]}, "invalid", "1,200 sent"),
        ("caption", {"images": [b64(0)], "samples": 4}, "invalid", "texts from 1"),
        ("caption", {"images": [b64(0)], "max_length": 65}, "invalid", "at most 64"),
        ("caption", {"images": [b64(0)], "max_length": 40, "min_length": 40}, "invalid", "min_length"),
        ("caption", {"images": [b64(0)], "max_length": 2, "prompt": "red on the left"}, "invalid", "leaves no room"),
        ("explain", {"image": b64(0), "overlay": 4000}, "invalid", "overlay"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fused: TestClient, path: str, body: Any, kind: str, said: str) -> None:
    answer = fused.post(f"/v1/{path}", json=body)
    found = problem(answer, 422, kind)
    assert said in str(found) and found["remedy"]


def test_bodies_that_are_none(dual: TestClient) -> None:
    url = "/v1/embed/text"
    for broken in (b"", b"{", b"[1]", b'{"texts": ["\xff"]}', b"[" * 100_000, b'{"texts": [NaN]}', b"null", b'"a"'):
        answer = dual.post(url, content=broken, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and answer.json()["remedy"], broken[:20]
    problem(dual.post(url, content=b"x", headers={"content-type": "text/plain"}), 415, "media-type")
    problem(dual.post(url, content=b"x"), 415, "media-type")
    wrong = problem(dual.get(url), 405, "method")
    assert wrong["title"] and dual.get(url).headers["allow"] == "POST"
    problem(dual.get("/v1/../../etc/passwd"), 404, "not-found")
    problem(dual.get("/docs"), 404, "not-found")  # its scripts come from another host


def test_a_deadline_of_ones_own(dual: TestClient) -> None:
    late = dual.post("/v1/embed/text", json={"texts": ["red"]}, headers={"X-Deadline-Ms": "1"})
    assert late.status_code in (503, 504) or late.status_code == 200
    for wrong in ("0", "-1", "soon", "1.5", "९"):
        answer = dual.post("/v1/embed/text", json={"texts": ["red"]}, headers={"X-Deadline-Ms": wrong.encode()})
        assert "X-Deadline-Ms" in problem(answer, 422, "invalid")["detail"]


def test_a_model_that_is_too_slow_is_an_error_in_time(clip: Model) -> None:
    import time

    app = build_app(clip, limits=Limits(rate=0, latency_ms=200, wait_ms=1))
    with TestClient(app) as client:
        blocking = app.state.batcher.submit(app.state.operations.call, lambda: time.sleep(0.8))
        began = time.monotonic()
        problem(client.post("/v1/embed/text", json={"texts": ["red"]}), 504, "deadline")
        assert time.monotonic() - began < 0.6
        blocking.result(5)
        assert asked(client, "embed/text", {"texts": ["red"]})["width"] == 20


def test_a_client_that_leaves_costs_no_pass(clip: Model) -> None:
    """The request is in the queue when its client hangs up; it is dropped there."""
    import threading

    app = build_app(clip, limits=FREE)
    gate = threading.Event()
    app.state.batcher.submit(app.state.operations.call, lambda: gate.wait(10))
    sent: list[Any] = []
    body = b'{"texts": ["red"]}'

    async def leave() -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.1)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/embed/text", "raw_path": b"/v1/embed/text", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "client": ("a", 1), "server": ("b", 2), "scheme": "http",
            "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)

    asyncio.run(leave())
    gate.set()
    app.state.batcher.close()
    count = app.state.metrics.registry.get_sample_value
    assert count("multiway_refused_total", {"reason": "client-gone"}) == 1
    assert count("multiway_batched_requests_total", {"operation": "embed_text"}) is None


def test_health_metrics_and_cors(clip: Model) -> None:
    for client in client_of(clip):
        assert client.get("/healthz").json() == {"status": "ok"} and client.get("/readyz").json() == {"status": "ready"}
        asked(client, "embed/text", {"texts": ["red"]})
        text = client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain")
        assert 'multiway_requests_total{route="/v1/embed/text",status="200"} 1.0' in text.text
        assert 'multiway_batch_rows_count{operation="embed_text"} 1.0' in text.text
        home = {"Origin": "https://example.org"}
        assert "access-control-allow-origin" not in client.get("/v1/model", headers=home).headers
    unready = build_app(clip)  # before its lifespan began
    assert TestClient(unready).get("/readyz").status_code == 503
    for client in client_of(clip, origins=("https://example.org",), keys=("secret",)):
        ask = client.options("/v1/embed/text", headers={**home, "Access-Control-Request-Method": "POST"})
        assert ask.status_code == 200 and ask.headers["access-control-allow-origin"] == "https://example.org"
        refused = client.get("/v1/model", headers=home)
        problem(refused, 401, "no-key")
        assert refused.headers["access-control-allow-origin"] == "https://example.org"
        assert client.get("/v1/model", headers={"Authorization": "Bearer secret"}).json()["name"] == "clip"
