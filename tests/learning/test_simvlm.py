"""SimVLM on scenes: it tells what it sees. `make test-slow`."""

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

BLIND = 1.22  # nats per token of GPT trained on the same captions: docs/methods/gpt.md


def test_simvlm_learns_to_tell(tmp_path: Path) -> None:
    """The recipe `tiny`, as docs/methods/simvlm.md has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert run_recipe(parse(["simvlm", "--out", str(tmp_path / "simvlm")]), World()).finished
    torch.set_num_threads(threads)
    model, source = load(tmp_path / "simvlm"), open_source(f"{WORLD}@test")
    told = TASKS["captioning"].run(model, source).metrics
    nats = told["with_picture/nats"]
    assert nats.value < 0.9 < BLIND - 0.3 and nats.value < nats.chance - 1.5, nats
    assert told["gain/nats"].low > 0.8
    for kind, threshold in (("colour", 0.6), ("shape", 0.25)):  # chance: 0.14, the most frequent word
        seen, other = told[f"with_picture/{kind}"], told[f"other_picture/{kind}"]
        assert seen.value > threshold > 1.2 * seen.chance, (kind, seen)
        assert seen.low > other.high and other.value < other.chance + 0.05, (kind, seen, other)
