"""The HTTP API of one model: a FastAPI app with the routes that the model is able to answer, and no others.

    POST /v1/embed/image /v1/embed/text /v1/compare /v1/search /v1/match /v1/caption /v1/answer /v1/classify /v1/explain
    GET  /v1/model /healthz /readyz /metrics /openapi.json

A request is read within limits (`guard.py`, `uploads.py`), waits for the model with others (`batcher.py`), and is computed with them
in one pass (`operations.py`). Errors are problem details (`problems.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from multiway.hub.model import Model
from multiway.hub.origin import licence_of_origin
from multiway.serve.admission import Admission, Overloaded
from multiway.serve.answers import Answers, Route, routes_of
from multiway.serve.batcher import Batcher, Closed, Expired, Full
from multiway.serve.bounds import require_limits, schema_of
from multiway.serve.find import Finder
from multiway.serve.guard import Guard
from multiway.serve.index import VectorIndex
from multiway.serve.limits import Limits
from multiway.serve.metrics import CONTENT_TYPE, Metrics
from multiway.serve.operations import Operations
from multiway.serve.problems import MEDIA_TYPE, TITLES, Problem
from multiway.serve.schemas import About, ProblemBody, State
from multiway.serve.search import PictureIndex
from multiway.serve.uploads import Squares, read_body
from multiway.version import __version__

__all__ = ["about", "build_app"]

Done = TypeVar("Done")
DEFAULTS = Limits()


def build_app(
    model: Model,
    index: VectorIndex | PictureIndex | None = None,
    limits: Limits = DEFAULTS,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
) -> FastAPI:
    """The app.

    Args:
        model: that answers.
        index: whose pictures `/v1/search` finds; None leaves the route out.
        limits: that hold.
        keys: of which a client has to send one for `/v1` and `/metrics`; none for no keys.
        origins: of web pages that browsers may let call the API (CORS); none by default.

    Returns:
        With `app.state.model`, `.index`, `.limits`, `.metrics`, `.routes`, `.batcher` and `.operations`, for whatever else is mounted on it: work for the
        model goes through `app.state.batcher.submit(app.state.operations.call, function)`, so that one thread runs it.

    Raises:
        IndexFault: if the index was made by another model.
    """
    gallery = index if index is None or isinstance(index, PictureIndex) else Finder(index, model)
    operations = Operations(model, gallery)
    metrics = Metrics(lambda: batcher.queued)
    batcher = Batcher(limits.batch, limits.wait_ms / 1000, limits.queue, metrics.batch)
    squares, admission = Squares(model.processor.view, limits), Admission()
    answers = Answers(limits, batcher, operations, squares)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ready = True
        yield
        app.state.ready = False
        await asyncio.to_thread(batcher.close)
        squares.close()

    app = FastAPI(
        title=f"multiway: {model.name}",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from another host
        redoc_url=None,
    )
    app.state.ready = False
    app.state.model, app.state.index, app.state.limits = model, gallery, limits
    app.state.batcher, app.state.operations = batcher, operations
    paths = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/model"]
    for route in routes_of(operations):
        _add_route(app, route, answers, limits, admission)
        paths.append(f"/v1/{route.path}")
    app.state.metrics, app.state.routes = metrics, tuple(paths)
    _add_states(app, metrics, about(operations, limits, paths[4:]))
    _add_errors(app)
    app.openapi = lambda: _document(app, bool(keys))  # type: ignore[method-assign]
    app.add_middleware(Guard, limits=limits, metrics=metrics, keys=keys, routes=paths)
    if origins:
        # Outermost: browsers ask beforehand, without a key, and want its headers on errors too.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Deadline-Ms"],
        )
    return app


def about(operations: Operations, limits: Limits, routes: Sequence[str]) -> dict[str, Any]:
    """What `/v1/model` says. Where its files lie on the server it does not."""
    model, tokenizer = operations.model, operations.model.processor.tokenizer
    return {
        **{name: value for name, value in model.describe().items() if name in ("parameters", "abilities")},
        "name": model.name,
        "version": __version__,
        "routes": list(routes),
        "image_size": model.processor.view.size,
        "context": None if tokenizer is None else tokenizer.context,
        "width": operations.image_width or operations.text_width or None,
        "precision": model.precision,
        "device": str(model.device),
        "licence": licence_of_origin(model.origin)[0] if model.origin else None,
        "classes": list(model.classes) if "classify" in model.abilities() else None,
        "answers": len(model.answers) if "answer" in model.abilities() else None,
        "index": None if operations.gallery is None else len(operations.gallery),
        "maps": None if operations.looks is None else list(operations.looks.told.maps),
        "maps_alone": None if operations.looks is None else list(operations.looks.alone.maps),
        "limits": asdict(limits),
    }


def _add_route(
    app: FastAPI,
    route: Route,
    answers: Answers,
    limits: Limits,
    admission: Admission,
) -> None:
    answer: Callable[..., Coroutine[Any, Any, dict[str, Any]]] = getattr(answers, route.name)

    async def endpoint(request: Request) -> Response:
        within = _seconds(request, limits)
        asked = await read_body(request, route.body, limits)
        deadline = request.scope["state"]["arrived"] + within
        require_limits(asked, limits)
        with admission.enter(route.name, answers.rows(asked), deadline - time.monotonic()):
            found = await _while_connected(request, answer(asked, deadline), deadline)
        return Response(to_json(found), media_type="application/json")

    content = {
        "application/json": {"schema": schema_of(route.body, limits)},
        "multipart/form-data": {"schema": schema_of(route.body, limits, form=True)},
    }
    header = {
        "name": "X-Deadline-Ms", "in": "header", "required": False, "schema": {"type": "integer", "minimum": 1},
        "description": "milliseconds after which the answer is of no use any more; at most the server's own limit",
    }  # fmt: skip
    app.add_api_route(
        f"/v1/{route.path}",
        endpoint,
        methods=["POST"],
        name=route.name,
        summary=route.about,
        description=route.body.__doc__ or "",
        response_model=route.gives,
        responses=_problems(400, 401, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra={"requestBody": {"required": True, "content": content}, "parameters": [header]},
    )


def _seconds(request: Request, limits: Limits) -> float:
    """Within which a whole request is answered: the server's limit, or the client's own if that is sooner."""
    stated = request.headers.get("x-deadline-ms")
    if stated is not None and not (stated.isascii() and stated.isdigit() and int(stated[:9]) > 0):
        raise Problem("invalid", f"X-Deadline-Ms is {stated[:40]!r}", "send a whole number of milliseconds above 0")
    most = limits.latency_ms if stated is None else min(limits.latency_ms, int(stated[:9]))
    return most / 1000


async def _while_connected(request: Request, work: Coroutine[Any, Any, Done], deadline: float) -> Done:
    """Work for a client as long as it is there and the answer is of use."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(
            (working, leaving), timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        if working.done():
            return working.result()
        if leaving.done():
            raise Problem("client-gone", "the client closed the connection before its answer was ready")
        raise Expired("the answer was not ready in time")
    finally:
        # Whatever waits in the queue for it is dropped there.
        working.cancel()
        leaving.cancel()


def _add_states(app: FastAPI, metrics: Metrics, model: dict[str, Any]) -> None:
    @app.get("/healthz", response_model=State, summary="Is the process alive?")
    async def healthz() -> Response:
        return Response(to_json({"status": "ok"}), media_type="application/json")

    @app.get("/readyz", response_model=State, responses=_problems(503), summary="Does it take requests?")
    async def readyz() -> Response:
        if not app.state.ready:
            raise Problem("shutting-down", "requests are not taken now", "ask another instance", retry_after=5)
        return Response(to_json({"status": "ready"}), media_type="application/json")

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses=_problems(401) | {200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def counters() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/v1/model", response_model=About, responses=_problems(401, 429, 503), summary="Which model answers")
    async def described() -> Response:
        return Response(to_json(model), media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    """Every error as a problem; those that the guard raises never come here."""

    async def problem(request: Request, error: Exception) -> Response:
        raise _as_problem(error)

    for kind in (HTTPException, Overloaded, Full, Closed, Expired):
        app.add_exception_handler(kind, problem)


def _as_problem(error: Exception) -> Problem:
    if isinstance(error, Overloaded | Full):
        seconds = error.seconds if isinstance(error, Overloaded) else 1.0
        return Problem("overloaded", str(error), "try again later, or with fewer rows", retry_after=seconds)
    if isinstance(error, Closed):
        return Problem("shutting-down", str(error), "ask another instance", retry_after=5)
    if isinstance(error, Expired):
        return Problem("deadline", str(error), "try again later, or with fewer rows")
    assert isinstance(error, HTTPException)
    kind = {404: "not-found", 405: "method"}.get(error.status_code, "malformed")
    return Problem(kind, error.detail, "see /openapi.json for the routes", headers=error.headers)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of a route, for the document."""
    titles = dict(reversed(TITLES.values()))
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    return {status: {"description": titles[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def _document(app: FastAPI, locked: bool) -> dict[str, Any]:
    """OpenAPI's document, with the problem's schema and, where a key is asked for, how it is sent."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        parts = found.setdefault("components", {})
        parts.setdefault("schemas", {})["ProblemBody"] = ProblemBody.model_json_schema()
        if locked:
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, methods in found["paths"].items():
                for each in methods.values():
                    if path.startswith("/v1/") or path == "/metrics":
                        each["security"] = [{"key": []}]
        app.openapi_schema = found
    return app.openapi_schema
