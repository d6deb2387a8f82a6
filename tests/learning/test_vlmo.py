"""VLMo on scenes: it aligns, decides and guesses with one transformer. `make test-slow`."""

from pathlib import Path

import pytest
import torch

from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.recipes.command import parse
from multiway.recipes.training import run_recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe `tiny`, as long as docs/methods/vlmo.md has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("runs") / "vlmo"
    outcome = run_recipe(parse(["vlmo", "--steps", "500", "--out", str(folder)]), World())
    torch.set_num_threads(threads)
    assert outcome.finished
    return folder


def test_vlmo_learns_to_find_to_decide_and_to_guess(trained: Path) -> None:
    model, source = load(trained), open_source(f"{WORLD}@test")
    found = TASKS["retrieval"].run(model, source).metrics
    for way in ("text_retrieval", "image_retrieval"):
        assert found[f"{way}/R@1"].value >= 0.3 > 100 * 1 / 1000
        assert found[f"{way}/R@10"].value >= 0.85 > 50 * 10 / 1000
    matched = TASKS["matching"].run(model, source).metrics
    assert matched["hard/loss"].value <= 0.5 < matched["hard/loss"].chance == pytest.approx(0.6365, abs=1e-4)
    guessed = TASKS["masked-words"].run(model, source).metrics
    for kind, threshold in (("colour", 0.75), ("shape", 0.18)):  # chance: 0.14, the most frequent word
        seen, blind = guessed[f"with_picture/{kind}"], guessed[f"without_picture/{kind}"]
        assert seen.value > threshold > 1.2 * seen.chance and seen.low > blind.high, (kind, seen, blind)
