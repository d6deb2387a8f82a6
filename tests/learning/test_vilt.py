"""ViLT learns on scenes what its blind twin cannot: `make test-slow`."""

from pathlib import Path

import pytest
import torch

from multiway.cli.train import parse
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.recipes.training import run_recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow


def test_vilt_guesses_colours_and_tells_pairs(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    outcome = run_recipe(parse(["vilt", "--out", str(tmp_path / "run")]), World())
    torch.set_num_threads(threads)
    assert outcome.finished
    model, source = load(tmp_path / "run"), open_source(f"{WORLD}@test")
    guessed = TASKS["masked-words"].run(model, source).metrics
    seen, blind = guessed["with_picture/colour"], guessed["without_picture/colour"]
    # Chance, the most frequent colour: 0.14. BERT, trained blind on the same captions: 0.13.
    assert seen.value > 0.6 > 3 * seen.chance and blind.value < seen.chance + 0.05, (seen, blind)
    matched = TASKS["matching"].run(model, source).metrics["random/accuracy"]
    assert matched.value > 0.85 > matched.chance == pytest.approx(2 / 3, abs=1e-3), matched
