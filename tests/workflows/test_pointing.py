"""The pointing game over kinds of maps: an oracle, a map that says nothing, and the same figure as the grounding task."""

from dataclasses import replace

import pytest
import torch

import multiway.workflows.pointing as module
from multiway.config import ConfigError
from multiway.data.annotated.scenes import open_scenes
from multiway.data.source import DataError
from multiway.explain.kinds import KINDS
from multiway.explain.look import Explanation, HeatMap
from multiway.explain.pairs import CannotShow
from multiway.hub.model import Model
from multiway.tasks.grounding import Grounding
from multiway.tasks.pointing import inside_of
from multiway.workflows.explain_pointing import pointing_section, verdict
from multiway.workflows.pointing import pointing_game

EXAMPLES = open_scenes("expressions", "test", "easy,gallery=12")


def test_an_oracle_is_always_right_and_an_even_map_is_chance(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = {
        (EXAMPLES.example(n).text, EXAMPLES.example(n).pictures): EXAMPLES.example(n).boxes
        for n in range(len(EXAMPLES))
    }
    asked = iter([EXAMPLES.example(n) for n in range(len(EXAMPLES))])

    def known(model, pictures, texts, kinds, look):
        found = []
        for text in texts:
            row = next(asked)
            assert row.text == text
            right = inside_of(boxes[(row.text, row.pictures)], 96).float()
            maps = {"grad-cam": right, "occlusion": torch.zeros(4, 4), "attention": 1 - right}
            found.append(Explanation(text, {kind: HeatMap(kind, heat) for kind, heat in maps.items()}))
        return found

    monkeypatch.setattr(module, "explain_pairs", known)
    result = pointing_game(model, EXAMPLES, samples=10_000, resamples=50)
    metrics = result.metrics
    assert metrics["grad-cam"].value == 1.0 and metrics["attention"].value == 0.0
    assert (
        metrics["occlusion"].value == pytest.approx(metrics["random"].value) == pytest.approx(metrics["random"].chance)
    )
    assert 0.0 < metrics["random"].chance < 0.3 and metrics["grad-cam"].n == len(EXAMPLES)
    assert verdict(metrics["grad-cam"]) == "above chance" and verdict(metrics["occlusion"]) == "no better than chance"
    # What is meant is one of the things; an even map is hottest at its first cell, whatever is asked.
    habits = result.details.habits
    assert habits["grad-cam"].things == 1.0 and habits["attention"].things < 1.0
    assert habits["occlusion"].place == (0, 0) and habits["occlusion"].often == 1.0
    assert habits["grad-cam"].often < 0.5 and set(habits) == {"grad-cam", "occlusion", "attention"}
    assert (
        verdict(metrics["attention"]) in ("below chance", "no better than chance") and verdict(metrics["centre"]) == ""
    )


def test_grad_cam_points_where_grounding_points(model: Model) -> None:
    result = pointing_game(model, EXAMPLES, ["grad-cam"], samples=10_000, resamples=20)
    own = Grounding(resamples=20).run(model, EXAMPLES)
    assert result.metrics["grad-cam"].value == pytest.approx(own.metrics["pointing"].value, abs=1e-6)
    assert result.details.hits["grad-cam"] == pytest.approx(own.details.hits, abs=1e-6)
    assert result.metrics["random"].value == pytest.approx(own.metrics["pointing"].chance)
    groups = {name for name in own.metrics if name.startswith("pointing[")}
    assert {f"grad-cam{name.removeprefix('pointing')}" for name in groups} <= set(result.metrics)


def test_kinds_samples_and_the_section(model: Model) -> None:
    said: list[str] = []
    result = pointing_game(model, EXAMPLES, samples=5, resamples=20, say=said.append)
    assert result.metrics["occlusion"].n == 5 and said == ["5 of 5 expressions"]
    assert set(result.details.absent) == {"class-cam", "wpa", "filip"}
    section = pointing_section(model, EXAMPLES, result)
    assert len(section.table) == 1 + 2 + 6 and len(section.figures) == 3
    values = [float(row[1].split()[0]) for row in section.table[1:]]
    assert values == sorted(values, reverse=True)
    assert section.table[0][-2:] == ("on any thing", "at one place")
    habits = {row[0]: row[-2:] for row in section.table[1:]}
    assert habits["random"] == ("", "") and all("row" in place for kind, (_, place) in habits.items() if kind in KINDS)
    assert set(section.numbers["pointing habits"]) == set(habits) - {"random", "centre"}


def test_refusals(model: Model) -> None:
    with pytest.raises(ConfigError, match="samples is 0"):
        pointing_game(model, EXAMPLES, samples=0)
    with pytest.raises(CannotShow, match="cannot show `wpa`"):
        pointing_game(model, EXAMPLES, ["wpa"])
    with pytest.raises(DataError, match="takes `pointed`"):
        pointing_game(model, open_scenes("questions", "test", "easy,gallery=4"))

    class Withheld:
        kind, name, split, pictures = "pointed", "hidden", "test", EXAMPLES.pictures
        labels, rejected, fingerprint = (), (), ""

        def __len__(self) -> int:
            return 3

        def example(self, index: int):
            return replace(EXAMPLES.example(index), boxes=())

    with pytest.raises(DataError, match="withholds its boxes"):
        pointing_game(model, Withheld())
