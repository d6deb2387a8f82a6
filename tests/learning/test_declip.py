"""DeCLIP, whose five losses have more to agree on than CLIP's one, names digits within a minute: `make test-slow`."""

from pathlib import Path

import pytest
import torch

from multiway.cli.train import parse
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.recipes.training import prepare, run_recipe
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow

ASKED = ["declip", "--data", "digits", "--steps", "200", "--seed", "0", "--evaluate"]


def test_declip_names_digits(tmp_path: Path) -> None:
    """Held-out digits by the words of their names, without a classifier. Recorded: 55.5 %; chance is 10 %."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    recipe = parse([*ASKED, "--out", str(tmp_path / "run")])
    held_out = open_source("digits@test")
    before = TASKS["zeroshot"].run(prepare(recipe, World()).model(), held_out).metrics["accuracy/top-1"]
    assert run_recipe(recipe, World()).finished
    after = TASKS["zeroshot"].run(load(tmp_path / "run"), held_out).metrics["accuracy/top-1"]
    torch.set_num_threads(threads)
    assert before.value < 0.25, before
    assert after.value > 0.35 > 3 * after.chance, after
