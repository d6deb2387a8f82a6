"""`multiway page RUN`: the web page of a run, on this machine."""

from __future__ import annotations

import sys
import threading
import webbrowser
from dataclasses import dataclass
from typing import Annotated

import tyro

from multiway.cli.page_subject import Shown, subject_of
from multiway.hub.load import load
from multiway.serve.limits import Limits

__all__ = ["Page", "run"]


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
    import uvicorn
    from fastapi import FastAPI

    from multiway.serve.web import PATH, mount_page

    model, limits = load(asked.model, asked.device), Limits()
    shown = Shown(asked.index, asked.data, asked.images, asked.image_column, asked.caption_column)
    app = FastAPI()
    mount_page(app, subject_of(asked.model, model, limits, shown))
    address = f"http://{asked.host}:{asked.port}{PATH}/"
    print(f"{address}  (Ctrl-C ends it)", file=sys.stderr)
    if asked.open:
        threading.Timer(1.5, webbrowser.open, [address]).start()
    uvicorn.run(app, host=asked.host, port=asked.port, log_level="warning")
    return 0
