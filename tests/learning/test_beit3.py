"""The chain of BEiT-3 on scenes: a teacher, an image tokeniser, masked data modelling, retrieval tuning. `make test-slow`."""

from pathlib import Path

import pytest
import torch

from multiway.data.open import open_source
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow

WHITE = ["--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four runs of docs/methods/beit3.md, each begun from the one before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    out = tmp_path_factory.mktemp("runs")
    for name, args in (
        (
            "teacher",
            ["clip", "--data", WORLD, "--steps", "200", "--batch", "64", "--method.image.stem", "conv", *WHITE],
        ),
        ("codes", ["vqkd", "--teacher", str(out / "teacher")]),
        ("beit3", ["beit3", "--codes", str(out / "codes")]),
        ("retrieval", ["beit3-retrieval", "--init", str(out / "beit3"), "--steps", "300"]),
    ):
        assert run_recipe(parse([*args, "--out", str(out / name)]), World()).finished
    torch.set_num_threads(threads)
    return out


def test_codes_tell_what_the_teacher_sees(runs: Path) -> None:
    last = Run.read(runs / "codes").metrics()[-1]
    told = last["terms"]["distillation"]
    assert told["value"] < 0.15 < 0.5 * told["chance"] and last["report"]["codes_used"] > 0.4


def test_hidden_colours_come_from_the_picture(runs: Path) -> None:
    guessed = TASKS["masked-words"].run(load(runs / "beit3"), open_source(f"{WORLD}@test")).metrics
    seen, blind = guessed["with_picture/colour"], guessed["without_picture/colour"]
    assert seen.value > 0.35 > 2 * seen.chance and blind.value < seen.chance + 0.05, (seen, blind)


def test_a_short_contrast_makes_it_search(runs: Path) -> None:
    found = TASKS["retrieval"].run(load(runs / "retrieval"), open_source(f"{WORLD}@test")).metrics
    for way in ("text_retrieval", "image_retrieval"):
        assert found[f"{way}/R@1"].value >= 0.35 > 100 * 1 / 1000, found[f"{way}/R@1"]
