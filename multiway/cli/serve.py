"""`multiway serve RUN --index INDEX`: the HTTP API."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from typing import Annotated

import torch
import tyro

from multiway.cli.search import gallery
from multiway.config import ConfigError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.serve.index import VectorIndex, open_index
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex

__all__ = ["KEY", "Serve", "keys_for", "require_server", "run"]

KEY = "MULTIWAY_API_KEY"
"""Variable of the environment with the keys that clients may send, separated by commas."""


@dataclass(frozen=True)
class Serve:
    """Serve a model over HTTP: embed, search, match, caption, answer, classify, explain; what it is able to do.

    The document of the API is at /openapi.json. With MULTIWAY_API_KEY in the environment clients have to send that key.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        index: that is searched: a folder of `multiway index`, or `qdrant:URL/COLLECTION`.
        data: in place of an index, pictures of a source, `name[:path][@split]`, encoded now; `own` for those of the run.
        images: folder that a caption file's paths are relative to.
        page: put the web page at /page too (`multiway page` is the short form).
        host: address to listen at; `0.0.0.0` for all of this machine.
        port: 0 takes any that is free.
        device: `cpu`, `cuda`, ...
        precision: `fp32`, or `bf16`, with which answers may depend a little on what shares their batch.
        threads: of the model; 0 leaves it to torch.
        origins: web pages that browsers may let call the API (CORS), as `https://example.org`.
        proxies: addresses of proxies before it whose `X-Forwarded-For` is believed, separated by commas.
        limits: how much may be asked for.
    """

    model: Annotated[str, tyro.conf.Positional]
    index: str = ""
    data: str = ""
    images: str = ""
    page: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    origins: tuple[str, ...] = ()
    proxies: str = ""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)


def run(args: list[str]) -> int:
    """Serve until a signal comes."""
    asked = tyro.cli(Serve, args=args, prog="multiway serve")
    require_server("web" if asked.page else "serve")
    if asked.index and asked.data:
        raise ConfigError("given --index and --data; an index knows its pictures: leave one of them out")
    from multiway.serve.api import build_app
    from multiway.serve.server import listen, serve

    # The address first: whether it is free is known at once, a model takes its time.
    bound = listen(asked.host, asked.port)
    if asked.threads > 0:
        torch.set_num_threads(asked.threads)
    model = load(asked.model, asked.device, asked.precision)
    keys = keys_for(asked.host)
    app = build_app(model, _gallery(asked, model), asked.limits, keys, asked.origins)
    pages = []
    if asked.page:
        from multiway.cli.page import add_page
        from multiway.cli.page_subject import Shown

        shown = Shown(data="" if asked.data == "own" else asked.data, images=asked.images)
        pages = [add_page(app, asked.model, shown, asked.index or asked.data, keys)]
    host, port = bound.getsockname()[:2]

    def say() -> None:
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        print(f"{model.name} at {address}", *app.state.routes, *pages, sep="\n  ", flush=True)

    serve(app, bound, asked.limits, asked.proxies, say)
    print(f"stopped: {app.state.metrics.summary()}", flush=True)
    return 0


def require_server(extra: str = "serve") -> None:
    """Refuse, before anything is loaded, a server whose packages are not there.

    Args:
        extra: `serve`, or `web` for the page too.

    Raises:
        ConfigError: naming them.
    """
    needed = ["fastapi", "uvicorn", "python_multipart", "prometheus_client", *(["gradio"] if extra == "web" else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"this needs {', '.join(missing)}; pip install 'multiway[{extra}]'")


def keys_for(host: str) -> list[str]:
    """The keys of the environment, of which clients have to send one; without any, a word to whoever listens to others."""
    keys = [key.strip() for key in os.environ.get(KEY, "").split(",") if key.strip()]
    if not keys and host not in ("127.0.0.1", "::1", "localhost"):
        print(f"multiway: whoever reaches {host} may ask; set {KEY} to ask for a key", file=sys.stderr)
    return keys


def _gallery(asked: Serve, model: Model) -> VectorIndex | PictureIndex | None:
    """The index, or a source's pictures encoded now or kept from before."""
    if asked.index:
        return open_index(asked.index)
    if not asked.data:
        return None
    return gallery(asked.model, model, "" if asked.data == "own" else asked.data, asked.images)[0]
