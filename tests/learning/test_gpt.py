"""GPT on scenes: it learns to tell captions and, having no eyes, nothing of the picture. `make test-slow`."""

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


def test_gpt_learns_grammar_and_no_more(tmp_path: Path) -> None:
    """The recipe `tiny`, as docs/methods/gpt.md has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert run_recipe(parse(["gpt", "--out", str(tmp_path / "gpt")]), World()).finished
    torch.set_num_threads(threads)
    told = TASKS["captioning"].run(load(tmp_path / "gpt"), open_source(f"{WORLD}@test")).metrics
    nats = told["without_picture/nats"]
    assert nats.value < 1.28 < nats.chance - 1.5, nats
    for kind in ("colour", "shape"):
        assert told[f"without_picture/{kind}"].value < told[f"without_picture/{kind}"].chance + 0.05, told
