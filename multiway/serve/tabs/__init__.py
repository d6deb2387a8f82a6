"""The tabs of the web page, a file each: functions from what a visitor gives to a piece of HTML, and how they are put on the page.

None of them imports Gradio: it is handed to them (`ui.py`), so that what they compute can be called and tested without it.
"""

from __future__ import annotations

from multiway.serve.subject import Subject
from multiway.serve.tabs import answer, caption, classify, curves, look, reconstruct, search, similarity
from multiway.serve.tabs.tab import Tab

__all__ = ["TABS", "tabs_of"]

TABS: tuple[Tab, ...] = (
    search.TAB,
    classify.TAB,
    caption.TAB,
    answer.TAB,
    similarity.TAB,
    look.TAB,
    reconstruct.TAB,
    curves.TAB,
)
"""In the order of the page."""


def tabs_of(subject: Subject) -> list[Tab]:
    """Those that the model is able to do."""
    return [tab for tab in TABS if tab.able(subject)]
