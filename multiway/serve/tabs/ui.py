"""The parts that tabs are drawn with: Gradio's components with the limits of the server, and answers that are never a traceback.

An upload is opened by `Subject.opened` alone (`data/decode.py`): Gradio's own reading of it is left out, which would decode
a picture of any size and format.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.data.source import BadRow, DataError
from multiway.serve.index import IndexFault
from multiway.serve.subject import Refused, Sample, Subject
from multiway.serve.tabs.html import problem

__all__ = ["Ui"]

log = logging.getLogger(__name__)

_OURS = (Refused, BadRow, ConfigError, DataError, IndexFault, LacksAbility)
"""Errors whose message is for the visitor."""

_FORMATS = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"]
_HEIGHT = 220


class Ui:
    """What a tab is drawn with.

    Args:
        gr: the gradio module.
        subject: whose limits hold and whose samples are offered.
        folder: private to this process, for the samples' files, which the browser asks for.
    """

    def __init__(self, gr: ModuleType, subject: Subject, folder: Path) -> None:
        self.gr, self.subject = gr, subject
        self.files = [_kept(folder, number, sample) for number, sample in enumerate(subject.samples)]
        self._titled = ""

    @property
    def first(self) -> Sample | None:
        """The sample that inputs begin with."""
        return self.subject.samples[0] if self.subject.samples else None

    def picture(self, label: str = "Picture", begin: bool = True) -> Any:
        """A frame to drop a picture into; gives its path."""
        frame = self.gr.Image(
            value=self.files[0] if begin and self.files else None, label=label, type="filepath", image_mode=None, height=_HEIGHT,
            sources=["upload", "clipboard"], buttons=[], placeholder="Drop a picture here, or click to choose one",
        )  # fmt: skip
        frame.preprocess = lambda payload: payload.path if payload is not None else None
        return frame

    def pictures(self, label: str, count: int) -> Any:
        """A frame for several; gives their paths."""
        frame = self.gr.Gallery(
            value=self.files[:count] or None, label=label, type="filepath", file_types=_FORMATS, columns=4, height=_HEIGHT,
            object_fit="contain", interactive=True, buttons=[], elem_classes=["mw-pictures"],
        )  # fmt: skip
        frame.preprocess = _paths
        return frame

    def words(self, label: str, value: str = "", lines: int = 1, info: str | None = None) -> Any:
        """A line of text, or several."""
        most = self.subject.limits.characters * (lines if lines == 1 else self.subject.limits.labels)
        return self.gr.Textbox(
            value=value, label=label, lines=lines, max_lines=max(lines, 8), info=info, max_length=most
        )

    def button(self, text: str) -> Any:
        """What is pressed for an answer."""
        return self.gr.Button(text, variant="primary")

    def columns(self) -> tuple[Any, Any]:
        """Inputs and answer, beside each other where there is room."""
        row = self.gr.Row()
        with row:
            left, right = self.gr.Column(scale=2, min_width=300), self.gr.Column(scale=3, min_width=300)
        return left, right

    def answer(self) -> Any:
        """Where an answer is shown; it is read out when it changes."""
        return self.gr.HTML(
            value='<p class="mw-note mw-wait">The answer will be here.</p>', elem_classes=["mw-answer"], padding=False
        )

    def on(
        self, asked: Sequence[Callable[..., Any]], work: Callable[..., Any], inputs: Sequence[Any], outputs: Any
    ) -> None:
        """Do `work` when one of `asked` (`button.click`, `words.submit`, ...) happens, and show what it gives.

        Args:
            work: from the inputs' values to HTML, or to a value for each of the outputs, HTML first.
        """
        several = isinstance(outputs, list)
        count = len(outputs) if several else 0
        for each in asked:
            each(
                self._guarded(work, count), list(inputs), outputs, api_visibility="private", concurrency_id="model",
                concurrency_limit=self.subject.limits.decoders, show_progress="minimal",
            )  # fmt: skip

    def samples(
        self, rows: Sequence[Sequence[Any]], inputs: Sequence[Any], label: str = "Held-out pictures: never trained on"
    ) -> None:
        """Held-out samples to click on, a value for each of the inputs. Below the answer, which on a phone would be far down else."""
        if len(rows) > 1:
            self.gr.Examples(
                [list(row) for row in rows], list(inputs), label=label, examples_per_page=8 if len(inputs) == 1 else 4,
                api_visibility="private", cache_examples=False,
            )  # fmt: skip

    def _guarded(self, work: Callable[..., Any], outputs: int) -> Callable[..., Any]:
        @functools.wraps(work)
        def guarded(*given: Any) -> Any:
            try:
                return work(*given)
            except _OURS as error:
                told = str(error)
            except Exception as error:
                if type(error).__module__.startswith("multiway.serve"):  # the server's own: busy, shutting down
                    told = str(error)
                else:
                    log.exception("a tab of the page failed")
                    told = f"The server failed at this ({type(error).__name__}); its log says more."
            shown = problem(told[:1].upper() + told[1:])
            return shown if not outputs else (shown, *[self.gr.skip() for _ in range(outputs - 1)])

        return guarded


def _paths(payload: Any) -> list[str]:
    """Of a gallery's pictures; what is no picture is found out when it is opened."""
    found = []
    for each in payload.root if payload is not None else ():
        medium = getattr(each, "image", None) or getattr(each, "video", None)
        if medium is not None and medium.path:
            found.append(medium.path)
    return found


def _kept(folder: Path, number: int, sample: Sample) -> str:
    path = folder / f"{number + 1}.png"
    picture = sample.picture.copy()
    picture.thumbnail((512, 512))
    picture.save(path)
    return str(path)
