"""The web page: Gradio over one model, on the same FastAPI app as the HTTP API.

A tab for each thing that the model is able to do (`tabs/`). Nothing is fetched from elsewhere, by the server or by the browser:
scripts, styles and fonts come with Gradio's wheel, statistics and the check for new versions are off, and it is never shared
through anybody's tunnel. What Gradio would serve beyond the page is closed by `page_guard.py`.
"""

from __future__ import annotations

import hmac
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.responses import RedirectResponse, Response

from multiway.config import ConfigError
from multiway.serve.page_guard import PageGuard
from multiway.serve.subject import Subject
from multiway.serve.tabs import tabs_of
from multiway.serve.tabs.ui import Ui

__all__ = ["PATH", "build_page", "mount_page", "on_model_thread"]

PATH = "/page"
"""Where the page is, on the server."""

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" rx="2" fill="#2563eb"/></svg>'
)
_WAITING = 64  # visitors' questions that may wait for the model
_SWEEP, _AGE = 600, 3600  # seconds: how often uploads are looked through, and how old one may get


def gradio() -> ModuleType:
    """Gradio, with all that it would send or fetch by itself turned off.

    Raises:
        ConfigError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported, and later too
    os.environ["GRADIO_NUM_PORTS"] = "1"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio as gr
    except ImportError as error:
        raise ConfigError(f"the page needs gradio ({error}); install it: pip install 'multiway[web]'") from error
    return gr


def build_page(subject: Subject, folder: Path) -> Any:
    """The page as Gradio's `Blocks`.

    Args:
        subject: what it is about.
        folder: where uploads and samples are kept, private to this process.

    Raises:
        ConfigError: without Gradio, or for a model that has nothing to show.
    """
    tabs = tabs_of(subject)
    if not tabs:
        able = ", ".join(subject.model.abilities()) or "none"
        raise ConfigError(f"{subject.name} ({subject.model.name}) has nothing to show on a page; its abilities: {able}")
    gr = gradio()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    shown = folder / "samples"
    shown.mkdir(parents=True, exist_ok=True)
    ui = Ui(gr, subject, shown)
    with gr.Blocks(title=f"{subject.name} · multiway", analytics_enabled=False, delete_cache=(_SWEEP, _AGE)) as page:
        gr.HTML(_head(subject), padding=False)
        with gr.Tabs():
            for tab in tabs:
                with gr.Tab(tab.title, id=tab.key, elem_id=f"tab-{tab.key}"):
                    tab.draw(subject, ui)
    page.queue(max_size=_WAITING, api_open=False, default_concurrency_limit=1)
    return page


def on_model_thread(app: Any) -> Callable[[Callable[[], Any]], Any]:
    """Runs what it is given in the thread that runs the API's model, in turn with its requests and by the same deadline.

    Args:
        app: of `build_app`.

    Returns:
        A function from work to its result; raises `batcher.Full`, `Expired` or `Closed` where the API would.
    """
    state = app.state

    def run(work: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + state.limits.latency_ms / 1000
        return state.batcher.submit(state.operations.call, work, deadline=deadline).result()

    return run


def mount_page(app: Any, subject: Subject, path: str = PATH, keys: Sequence[str] = ()) -> None:
    """Put the page on a FastAPI app.

    Args:
        app: that serves the API; not started yet.
        subject: what the page is about.
        path: where it is put.
        keys: of which a visitor has to type one as password; none for no keys.

    Raises:
        ConfigError: as of `build_page`.
    """
    gr = gradio()
    # Removed with the process: the object lives as long as the app.
    app.state.page_folder = tempfile.TemporaryDirectory(prefix="multiway-page-")
    folder = Path(app.state.page_folder.name).resolve()
    page = build_page(subject, folder)
    styles = files("multiway.serve").joinpath("templates", "page.css").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        app, page, path=path, theme=_theme(gr), css=styles, footer_links=[], run_history=False, show_error=True, ssr_mode=False,
        mcp_server=False, auth=_login(keys) if keys else None, enable_monitoring=False, pwa=False, allowed_paths=[], max_file_size=subject.limits.body,
    )  # fmt: skip
    _add_root(app, path)
    app.add_middleware(PageGuard, path=path, folder=folder, limits=subject.limits)


def _add_root(app: Any, path: str) -> None:
    """What browsers ask of a server's root: the page, and an icon."""

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse(f"{path}/")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")


def _login(keys: Sequence[str]) -> Callable[[str, str], bool]:
    known = [key.encode() for key in keys]

    def login(name: str, password: str) -> bool:
        # Every key is compared in full, so that the time taken tells nothing; any name will do.
        return bool(sum(hmac.compare_digest(password.encode(), key) for key in known))

    return login


def _theme(gr: ModuleType) -> Any:
    # The system's own letters: nothing to load, and the reader's choice.
    letters = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=letters, font_mono=["ui-monospace", "monospace"]
    )


def _head(subject: Subject) -> str:
    about = subject.model.describe()
    what = f"{subject.model.name}, {about['parameters'] / 1e6:.1f} M parameters, pictures of {about['size']} pixels"
    return f'<header class="mw-top"><h1>{escape(subject.name)}</h1><p>{escape(what)}</p></header>'
