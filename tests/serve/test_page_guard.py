"""What Gradio would serve beyond the page: nothing of it is reached, no file but the page's own, no address."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from multiway_batches import INFO, WORDS
from toy import ToySource
from tuning import METHODS, VIEW

pytest.importorskip("gradio")

from multiway.data.processor import Processor
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.serve.api import build_app
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex
from multiway.serve.subject import Sample, Subject
from multiway.serve.web import mount_page, on_model_thread

SOURCE = ToySource(8)
LIMITS = Limits(body=200_000, rate=1000, burst=1000)


def client_of(keys: tuple[str, ...] = (), limits: Limits = LIMITS) -> TestClient:
    torch.manual_seed(0)
    model = Model(method_class("clip")(METHODS["clip"].resolve(INFO)), Processor(VIEW, WORDS))
    app = build_app(model, PictureIndex.build(model, SOURCE), limits, keys)
    samples = [Sample(str(row), SOURCE.image(row), SOURCE.row(row).captions[0]) for row in range(3)]
    subject = Subject(
        model,
        "toy",
        limits,
        samples,
        SOURCE.classes,
        index=app.state.index,
        place="8 toys",
        compute=on_model_thread(app),
    )
    mount_page(app, subject, keys=keys)
    return TestClient(app)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of() as found:
        yield found


def folder(client: TestClient) -> Path:
    return Path(client.app.state.page_folder.name).resolve()


def asked(client: TestClient, number: int, data: list, **more: object) -> tuple[int, str]:
    """Ask as the page does; the answer as it is streamed back."""
    body = {"data": data, "fn_index": number, "session_hash": "s", **more}
    joined = client.post("/page/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.status_code, joined.text
    return 200, client.get("/page/gradio_api/queue/data", params={"session_hash": "s"}).text


def number_of(client: TestClient, button: str) -> int:
    """Of what a button does."""
    config = client.get("/page/config").json()
    one = next(
        each["id"] for each in config["components"] if each["type"] == "button" and each["props"].get("value") == button
    )
    return next(
        each["id"] for each in config["dependencies"] if [one, "click"] in [list(target) for target in each["targets"]]
    )


def test_the_page_and_the_api_share_one_app(client: TestClient) -> None:
    page = client.get("/page/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/").url.path == "/page/" and client.get("/favicon.ico").status_code == 200
    assert client.get("/v1/model").json()["name"] == "clip" and "/page" not in json.dumps(
        client.get("/openapi.json").json()
    )
    titles = [
        each["props"].get("label")
        for each in client.get("/page/config").json()["components"]
        if each["type"] == "tabitem"
    ]
    assert titles == ["Search", "Classify", "Similarity", "Look"]


def test_a_question_is_answered_in_the_models_thread(client: TestClient) -> None:
    before = client.get("/metrics").text.count('operation="call"')
    status, told = asked(client, number_of(client, "Search"), ["red on the left", None, 0.5, 3, False])
    assert status == 200 and told.count("<li>") == 3, told[:2000]
    assert client.get("/metrics").text.count('operation="call"') > before, "the page's work is counted with the API's"
    status, told = asked(client, number_of(client, "Search"), ["", None, 0.5, 3, False])
    assert "The query is empty" in told and "Traceback" not in told


@pytest.mark.parametrize(
    "route",
    [
        "gradio_api/info", "gradio_api/openapi.json", "gradio_api/proxy=http://127.0.0.1:9/x", "gradio_api/call/work/1",
        "gradio_api/file/etc/passwd", "gradio_api/stream/a/b/1/playlist.m3u8", "monitoring", "monitoring/summary",
        "gradio_api/custom_component/1/client/component/x.js", "gradio_api/deep_link", "gradio_api/vibe-code", "gradio_api/runs",
    ],
)  # fmt: skip
def test_other_routes_of_gradio_are_closed(client: TestClient, route: str) -> None:
    assert client.get(f"/page/{route}").status_code == 404
    assert client.post(f"/page/{route}", json={}).status_code == 404
    assert client.put(f"/page/{route}").status_code == 404


def test_no_file_but_the_pages_own(client: TestClient, tmp_path: Path) -> None:
    own = folder(client) / "samples" / "1.png"
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (folder(client) / "link.png").symlink_to(secret)
    served = client.get(f"/page/gradio_api/file={own}")
    assert served.status_code == 200 and served.headers["x-content-type-options"] == "nosniff"
    for path in (
        "/etc/passwd", secret, f"{folder(client)}/../{secret.name}", f"{folder(client)}/link.png", "http://127.0.0.1:9/x.png",
        "file:///etc/passwd", "samples/1.png", "multiway/serve/web.py",
    ):  # fmt: skip
        assert client.get(f"/page/gradio_api/file={path}").status_code == 403, path
    (folder(client) / "link.png").unlink()


def test_no_path_and_no_address_comes_in_with_a_question(client: TestClient, tmp_path: Path) -> None:
    """A picture is what was uploaded here, by whatever name it is called."""
    secret = tmp_path / "secret.png"
    SOURCE.image(0).save(secret)
    number = number_of(client, "Classify")
    meta = {"meta": {"_type": "gradio.FileData"}}
    for picture in (
        {"path": str(secret)}, {"path": "http://127.0.0.1:9/x.png"}, {"path": "https://example.org/x.png", "url": "x"},
        {"path": f"{folder(client)}/../../etc/passwd"}, {"path": None, "url": "data:image/png;base64,AAAA"}, {"path": 7},
        {"path": ["a"]}, {"url": ["http://127.0.0.1:9"]},
    ):  # fmt: skip
        for data in ([picture | meta, "a,b", "{}"], ["x", [{"deep": picture | meta}], "{}"]):
            status, told = asked(client, number, data)
            assert status == 403 and "uploaded here" in told, picture
    own = {"path": str(folder(client) / "samples" / "1.png"), **meta}
    status, told = asked(client, number, [own, "red,blue", "{}"])
    assert status == 200 and "mw-bars" in told
    nested: object = own
    for _ in range(200):
        nested = [nested]
    assert asked(client, number, [nested, "red,blue", "{}"])[0] == 200, "nested lists are no way around, nor an error"


def test_uploads_are_bounded(client: TestClient) -> None:
    small = client.post("/page/gradio_api/upload", files={"files": ("../../x.png", b"\x89PNG not really", "image/png")})
    assert small.status_code == 200
    kept = Path(small.json()[0])
    assert kept.resolve().is_relative_to(folder(client))
    status, told = asked(
        client, number_of(client, "Classify"), [{"path": str(kept), "meta": {"_type": "gradio.FileData"}}, "a,b", "{}"]
    )
    assert (
        status == 200
        and "this is not a picture" in told
        and str(folder(client)) not in told.partition("this is not")[2][:200]
    )
    large = client.post("/page/gradio_api/upload", files={"files": ("x.png", b"0" * 250_000, "image/png")})
    assert large.status_code == 413
    assert client.post("/page/gradio_api/queue/join", content=b"[" * 5_000_000).status_code == 413
    assert client.post("/page/gradio_api/queue/join", content=b"[" * 100_000).status_code == 400
    assert client.post("/page/gradio_api/queue/join", content=b"no").status_code == 400


def test_questions_have_the_apis_rate() -> None:
    with client_of(limits=Limits(rate=0.01, burst=5)) as client:
        statuses = [client.post("/page/gradio_api/queue/join", content=b"no").status_code for _ in range(8)]
        assert statuses == [400] * 5 + [429] * 3
        assert client.get("/page/").status_code == 200, "what is only looked at is not counted"


def test_with_keys_the_page_asks_for_one() -> None:
    with client_of(("secret",)) as client:
        assert "auth_required" in client.get("/page/").text
        assert client.get("/page/config").status_code == 401
        assert (
            client.post(
                "/page/gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": "s"}
            ).status_code
            == 401
        )
        assert client.post("/page/login", data={"username": "me", "password": "wrong"}).status_code == 400
        assert client.post("/page/login", data={"username": "me", "password": "secret"}).status_code == 200
        assert client.get("/page/config").status_code == 200
