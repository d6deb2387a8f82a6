"""What the web page is about: a model, held-out pictures to try it on, and what there is to search. Its tabs share one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from multiway.data.decode import decode
from multiway.engine.run import Run
from multiway.hub.model import Model
from multiway.serve.find import Finder
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex

__all__ = ["Refused", "Sample", "Subject", "one_at_a_time"]

T = TypeVar("T")
Compute = Callable[[Callable[[], T]], T]


class Refused(ValueError):
    """What was given cannot be used; the message names what was expected, for the person at the page."""


@dataclass(frozen=True)
class Sample:
    """A held-out picture to try the model on.

    Attributes:
        name: of it.
        picture: of any size.
        caption: what is said of it; empty where nothing is.
        question: what a tuned model may be asked of it; empty for none.
    """

    name: str
    picture: Image.Image
    caption: str = ""
    question: str = ""


def one_at_a_time() -> Callable[[Callable[[], T]], T]:
    """Runs what it is given in the caller's thread, never two at once: the page alone, with no server's model thread beside it."""
    lock = threading.Lock()

    def run(work: Callable[[], T]) -> T:
        with lock:
            return work()

    return run


@dataclass
class Subject:
    """One model and what is shown of it.

    Attributes:
        model: loaded.
        name: of the run or the weights.
        limits: of what a visitor may send; the API's own.
        samples: held-out pictures, with which every tab begins; empty without data.
        labels: class names to begin zero-shot classification with.
        template: of its prompts, with one `{}`.
        index: what is searched; None for nothing.
        place: name of what is searched.
        run: the run's folder, read; None for a weights file.
        plots: from the run's metrics to (title, SVG) of its curves; None for no curves.
        compute: runs what needs the model, one call at a time.
    """

    model: Model
    name: str
    limits: Limits = field(default_factory=Limits)
    samples: Sequence[Sample] = ()
    labels: Sequence[str] = ()
    template: str = "{}"
    index: PictureIndex | Finder | None = None
    place: str = ""
    run: Run | None = None
    plots: Callable[[list[dict[str, Any]]], list[tuple[str, str]]] | None = None
    compute: Callable[[Callable[[], Any]], Any] = field(default_factory=one_at_a_time)

    def able(self, *needs: str) -> bool:
        """Whether the model has all of these abilities."""
        return set(needs) <= set(self.model.abilities())

    @cached_property
    def embeds(self) -> bool:
        """Whether pictures and texts have vectors in one space, so that what is compared is a cosine."""
        return self.able("encode_text", "compare") and self.model.encode_text(["a"]).has_embedding

    @property
    def measure(self) -> str:
        """What a comparison of picture and text is called."""
        return "cosine" if self.embeds else "similarity"

    def opened(self, path: str | None, what: str = "the picture") -> Image.Image:
        """An uploaded picture, decoded within the limits.

        Raises:
            Refused: if none was given.
            BadRow: if it cannot be read; naming the cause.
        """
        if not path:
            raise Refused("There is no picture yet: drop one into the frame, or take one of those below.")
        # As bytes: a message must not tell where uploads are kept.
        return decode(Path(path).read_bytes(), what, ceiling=self.limits.pixels)

    def text(self, words: str | None, what: str) -> str:
        """Words of a visitor, trimmed.

        Raises:
            Refused: if there are none, or too many.
        """
        trimmed = (words or "").strip()
        if not trimmed:
            raise Refused(f"There is no {what} yet: type one.")
        return self.checked(trimmed, what)

    def checked(self, words: str, what: str) -> str:
        """Words that are not too many.

        Raises:
            Refused: naming the limit.
        """
        if len(words) > self.limits.characters:
            raise Refused(f"The {what} has {len(words):,} characters; at most {self.limits.characters:,} are read.")
        return words

    def lines(self, text: str | None, what: str, most: int) -> list[str]:
        """One thing a line (or between commas, where there is a single line), each once.

        Raises:
            Refused: if there is none, or too many.
        """
        given = (text or "").strip()
        parts = given.splitlines() if "\n" in given else given.split(",")
        found = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        if not found:
            raise Refused(f"There is no {what} yet: type one on each line, or several between commas.")
        if len(found) > most:
            raise Refused(f"There are {len(found):,} {what}s; at most {most:,} are taken.")
        return [self.checked(each, what) for each in found]
