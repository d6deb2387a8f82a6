"""Run the notebooks as their readers would, keep what they print, and put each one's first figure into the documentation.

    python scripts/run_notebooks.py [NAME ...]      # make notebooks; needs `pip install 'multiway[notebooks]'`

Trained models stay in notebooks/runs, which is not kept: a second run takes them from there.
"""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FIGURES = {"search_your_photos": 0, "caption_and_clean": 1}  # which of its figures stands on docs/notebooks.md


def figures(book: nbformat.NotebookNode) -> list[bytes]:
    """The pictures in a notebook's outputs, in order, as PNG files."""
    shown = [
        each.data["image/png"]
        for cell in book.cells
        for each in cell.get("outputs", [])
        if "image/png" in each.get("data", {})
    ]
    return [base64.b64decode(each) for each in shown]


def run(path: Path) -> None:
    """Execute in place, without what differs from one execution to the next: times, identifiers of the kernel."""
    book = nbformat.read(path, as_version=4)
    begun = time.perf_counter()
    NotebookClient(book, timeout=1200, record_timing=False, resources={"metadata": {"path": path.parent}}).execute()
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    nbformat.write(book, path)
    chosen = figures(book)[FIGURES[path.stem]]
    (ROOT / "docs" / "images" / f"notebook-{path.stem.replace('_', '-')}.png").write_bytes(chosen)
    print(f"{path.name}: {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        run(ROOT / "notebooks" / f"{name}.ipynb")
