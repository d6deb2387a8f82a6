"""The notebooks: what is stored in them is what they say, and they run, on their own data and on a reader's."""

import csv
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from toy import ToySource

from scripts.run_notebooks import FIGURES, figures

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(name: str, folder: Path, **parameters: object) -> tuple[str, int]:
    """Execute with other values for what its first cell sets; what it printed, and how many figures it showed."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    place = next(n for n, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    for parameter in parameters:
        assert re.search(rf"^{parameter} = ", book.cells[place].source, re.M), parameter
    given = "\n".join(f"{parameter} = {value!r}" for parameter, value in parameters.items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(f"import torch\n\ntorch.set_num_threads(1)\n{given}"))
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    streams = [each.text for cell in book.cells for each in cell.get("outputs", []) if each.output_type == "stream"]
    return "".join(streams), len(figures(book))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 60_000 and path.stem in FIGURES
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(each.output_type != "error" and each.get("name") != "stderr" for cell in code for each in cell.outputs)
    assert not re.search(r"/(home|tmp|root|work)/", path.read_text())
    shown = (ROOT / "docs" / "images" / f"notebook-{path.stem.replace('_', '-')}.png").read_bytes()
    assert shown == figures(book)[FIGURES[path.stem]]


@pytest.mark.slow
def test_search_your_photos(tmp_path: Path) -> None:
    said, shown = run("search_your_photos", tmp_path, STEPS=2)
    assert "300 pictures, 128 numbers each" in said and said.count("by chance") == 4 and shown == 2


def test_search_your_photos_on_ones_own(tiny_run: Path, tmp_path: Path) -> None:
    source = ToySource(12)
    for number in range(12):
        (tmp_path / "photos" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        source.image(number).save(tmp_path / "photos" / f"{number}.png")
    said, shown = run("search_your_photos", tmp_path, PHOTOS="photos", MODEL=str(tiny_run))
    assert said.startswith("12 pictures") and shown == 2


def test_caption_and_clean(tmp_path: Path) -> None:
    said, shown = run("caption_and_clean", tmp_path, STEPS=2)
    assert "140 of 400 dropped" in said and "true in every word" in said and shown == 3
    assert len(list(csv.DictReader((tmp_path / "runs" / "clean.csv").open()))) == 260


@pytest.mark.slow
def test_caption_and_clean_ones_own(caption_folder: Path, tmp_path: Path) -> None:
    said, shown = run(
        "caption_and_clean", tmp_path, STEPS=2, PAIRS=str(caption_folder / "captions.jsonl"), IMAGES=str(caption_folder / "pictures")
    )  # fmt: skip
    assert "dropped" in said and "wrong before" not in said and shown == 3


@pytest.mark.slow
def test_they_learn_what_they_show(tmp_path: Path) -> None:
    """As they are stored: minutes. Chance is 3.3 % for recall@10, 36 % for what is wrong among the dropped."""
    said, _ = run("search_your_photos", tmp_path)
    assert float(re.search(r"composition image_retrieval/R@10 +([\d.]+)%", said)[1]) > 80  # type: ignore[index]
    assert float(re.search(r"concept +image_retrieval/R@10 +([\d.]+)%", said)[1]) > 12  # type: ignore[index]
    said, _ = run("caption_and_clean", tmp_path)
    assert float(re.search(r"of the dropped, wrong: (\d+)%", said)[1]) > 75  # type: ignore[index]
