"""BLIP on scenes: it aligns, decides and writes, and what it writes comes from the picture. `make test-slow`."""

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


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe `tiny`, as docs/methods/blip.md has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("runs") / "blip"
    outcome = run_recipe(parse(["blip", "--out", str(folder)]), World())
    torch.set_num_threads(threads)
    assert outcome.finished
    return folder


def test_blip_learns_to_find_to_decide_and_to_tell(written: Path) -> None:
    model, source = load(written), open_source(f"{WORLD}@test")
    found = TASKS["retrieval"].run(model, source).metrics
    for way in ("text_retrieval", "image_retrieval"):
        assert found[f"{way}/R@10"].value >= 0.7 > 50 * 10 / 1000, found[f"{way}/R@10"]
    matched = TASKS["matching"].run(model, source).metrics["random/loss"]
    assert matched.value <= 0.25 < matched.chance == pytest.approx(0.6365, abs=1e-4)
    told = TASKS["captioning"].run(model, source).metrics
    nats = told["with_picture/nats"]
    assert nats.value < 1.1 < nats.chance - 1.5, nats
    # Beside other pictures the words are right as often as by guessing.
    assert told["gain/nats"].low > 0.8
    for kind, threshold in (("colour", 0.6), ("shape", 0.2)):  # chance: 0.14, the most frequent word
        seen, other = told[f"with_picture/{kind}"], told[f"other_picture/{kind}"]
        assert seen.value > threshold > 1.3 * seen.chance, (kind, seen)
        assert seen.low > other.high and other.value < other.chance + 0.05, (kind, seen, other)
