"""SigLIP finds scenes by words within minutes: `make test-slow`."""

from pathlib import Path

import pytest
import torch

from multiway.cli.train import parse
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.recipes.training import prepare, run_recipe
from multiway.recipes.world import WORLD
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow


def test_siglip_finds_scenes_by_words(tmp_path: Path) -> None:
    """Among 1,000 scenes with two captions each; chance is 0.1 %. The same model untrained is at chance."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    outcome = run_recipe(parse(["siglip", "--out", str(tmp_path / "run")]), World())
    assert outcome.finished
    found = TASKS["retrieval"].run(load(tmp_path / "run"), open_source(f"{WORLD}@test")).metrics
    torch.set_num_threads(threads)
    for way in ("text_retrieval", "image_retrieval"):
        assert found[f"{way}/R@1"].value > 0.2 > 100 * found[f"{way}/R@1"].chance, found
        assert found[f"{way}/R@10"].value > 0.7, found


def test_untrained_it_finds_nothing() -> None:
    untrained = prepare(parse(["siglip"]), World()).model()
    found = TASKS["retrieval"].run(untrained, open_source("scenes:easy,objects=1-3,gallery=100@test")).metrics
    for way in ("text_retrieval", "image_retrieval"):
        assert found[f"{way}/R@10"].value < 0.3, found  # chance: 0.1
