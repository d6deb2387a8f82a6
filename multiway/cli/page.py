"""`multiway page RUN`: the web page of a run, on this machine."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from multiway.cli.page_subject import Shown, searched, subject_of
from multiway.cli.serve import keys_for, require_server
from multiway.hub.load import load
from multiway.serve.limits import Limits

__all__ = ["Page", "add_page", "run"]


@dataclass(frozen=True)
class Page:
    """Open a page in the browser on which a model is tried: search, classification, captions, answers, attention, curves.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        index: what is searched, as `multiway index` built it; by default the run's own pictures.
        data: held-out pictures to try it on, `name[:path][@split]`; by default of the run's own. Of a weights file also what is searched.
        images: folder that a caption file's paths are relative to.
        image_column: of a caption file, where its name is unusual.
        caption_column: of a caption file, where its name is unusual.
        host: address to listen on; the default is reached from this machine alone.
        port: to listen on.
        open: open the browser.
        device: `cpu`, `cuda`, ...
    """

    model: Annotated[str, tyro.conf.Positional]
    index: str = ""
    data: str = ""
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    host: str = "127.0.0.1"
    port: int = 7860
    open: bool = True
    device: str = "cpu"


def run(args: list[str]) -> int:
    """Serve until Ctrl-C."""
    asked = tyro.cli(Page, args=args, prog="multiway page")
    require_server("web")
    from multiway.serve.api import build_app
    from multiway.serve.server import listen, serve

    shown = Shown(asked.index, asked.data, asked.images, asked.image_column, asked.caption_column)
    # The address first: whether it is free is known at once, a model takes its time.
    bound = listen(asked.host, asked.port)
    model, limits = load(asked.model, asked.device), Limits()
    keys = keys_for(asked.host)
    index, where = searched(asked.model, model, shown)
    app = build_app(model, index, limits, keys)
    address = f"http://{asked.host}:{bound.getsockname()[1]}{add_page(app, asked.model, shown, where, keys)}"

    def say() -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if asked.open:
            webbrowser.open(address)

    serve(app, bound, limits, say=say)
    return 0


def add_page(app: Any, place: str, shown: Shown, where: str, keys: Sequence[str] = ()) -> str:
    """Put the page of a model on the server that answers for it.

    Args:
        app: of `build_app`; the page searches its index and uses its model's thread.
        place: that the model was loaded from.
        shown: what is shown beside it.
        where: name of what is searched.
        keys: of which a visitor has to type one.

    Returns:
        The path of the page.
    """
    from multiway.serve.web import PATH, mount_page, on_model_thread

    state = app.state
    mount_page(
        app,
        subject_of(
            place, state.model, shown, limits=state.limits, index=state.index, where=where, compute=on_model_thread(app)
        ),
        keys=keys,
    )
    return f"{PATH}/"
