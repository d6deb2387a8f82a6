"""What a tab of the web page is: whether a model is able to do it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiway.serve.subject import Subject

if TYPE_CHECKING:
    from multiway.serve.tabs.ui import Ui

__all__ = ["Tab"]


@dataclass(frozen=True)
class Tab:
    """One tab.

    Attributes:
        key: its id in the page, and the end of its address.
        title: a word.
        able: whether it is shown.
        draw: puts its inputs and its answer on the page, within the tab.
    """

    key: str
    title: str
    able: Callable[[Subject], bool]
    draw: Callable[[Subject, Ui], None]
