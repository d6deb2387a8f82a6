import re
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource

from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.tasks import TASKS
from multiway.workflows.curves import health_curves, loss_curves
from multiway.workflows.report import Shown, queries, write_report
from multiway.workflows.run_page import environment
from multiway.world import World


@pytest.fixture(scope="module")
def page(tiny_run: Path) -> str:
    return write_report(tiny_run).read_text(encoding="utf-8")


def test_the_report_stands_alone(page: str) -> None:
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links and all(link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) for link in links)
    assert "<script" not in page and "@import" not in page


def test_it_shows_curves_chance_intervals_and_searches(page: str, tiny_run: Path) -> None:
    assert "chance 3.466 = ln 32" in page and page.count("<svg") >= 2
    assert "captions.jsonl@val" in page and "95 % interval" in page
    assert "words → picture" in page and 'class="query"' in page
    assert f"multiway doctor {tiny_run}" in page and "30" in page


class Oracle:
    """Encodes toy pictures and captions so that the first half of the queries hits and the others miss."""

    def __init__(self, right: int) -> None:
        self.right = right

    def encode_image(self, images, tokens=False):
        from multiway.abilities import Encoded

        return Encoded(__import__("torch").eye(8)[: len(images)])

    def encode_text(self, texts, tokens=False):
        import torch

        from multiway.abilities import Encoded

        rows = torch.eye(8)[: len(texts)]
        rows[self.right :] = torch.eye(8)[0]
        return Encoded(rows)

    def compare(self, image, text, query="image"):
        return image.embedding @ text.embedding.T


def test_hits_and_misses_are_told_apart_and_the_right_one_is_shown() -> None:
    class Eight(ToySource):
        split = "val"

        def row(self, index: int):
            from dataclasses import replace

            row = super().row(index)
            return replace(row, captions=(f"<b>{index}</b>",))

    source = Eight(8)
    details = TASKS["retrieval"].run(Oracle(5), source).details
    hits, misses = queries(source, details, 10)
    assert [query.words for query in hits] == [f"<b>{i}</b>" for i in range(5)]
    assert all(query.found[0].right and query.wanted is None for query in hits)
    assert [query.words for query in misses] == [f"<b>{i}</b>" for i in range(5, 8)]
    assert all(query.rank > 1 for query in misses)
    for query in misses:
        assert query.wanted is not None or any(shown.right for shown in query.found)


def test_a_run_without_held_out_rows_is_reported_too(tiny_run: Path, tmp_path: Path) -> None:
    """Ten pictures may all fall into training; then there is nothing to evaluate, and nothing breaks."""
    import json
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    lines = (tiny_run.parent / "captions.jsonl").read_text().splitlines()[:10]
    rows = [{**json.loads(line), "split": "train"} for line in lines]
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": str(tmp_path / "few.jsonl")}))
    page = write_report(run).read_text()
    assert "multiway doctor" in page and 'class="query"' not in page


def test_captions_are_escaped() -> None:
    shown = Shown("data:image/png;base64,", '<script>alert("x")</script>', 0.5, True)
    # By whatever name: templates that end in .j2 are not escaped unless one insists.
    template = environment().from_string("<b>{{ shown.caption }}</b>")
    assert template.render(shown=shown) == "<b>&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;</b>"


def test_curves_leave_gaps_for_what_is_not_a_number() -> None:
    line = {
        "terms": {"itc": {"value": "nan", "chance": 2.0, "formula": "ln 7", "weight": 1.0}},
        "report": {"a_accuracy": 0.5}, "health": {"image/rank": 3.0}, "lr": 0.1, "grad_norm": "inf",
    }  # fmt: skip
    lines = [{"step": step, **line} for step in range(1, 4)]
    assert loss_curves(lines).startswith("<svg") and "ln 7" in loss_curves(lines)
    assert health_curves(lines).startswith("<svg") and loss_curves([]) == "" == health_curves([])
    assert loss_curves(lines) == loss_curves(lines)  # the same run gives the same file
    assert np.isfinite(len(loss_curves(lines)))


def test_a_run_on_pictures_alone_is_measured_by_its_features_and_looked_into(tmp_path: Path) -> None:
    own = ["simclr", "--data", "digits", "--steps", "2", "--batch", "16", "--out", str(tmp_path / "run")]
    run_recipe(parse([*own, "--method.backbone.base", "4"]), World())
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    for title in (
        "Nearest neighbours: digits@test",
        "Linear probe: digits@test",
        "First filters",
        "Where features are strong",
    ):
        assert f"<h2>{title}" in page, title
    assert "What is not shown" in page and "a convolutional network has none" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) for link in links)
