"""What has to learn something: `make test-slow`. Each threshold stands beside its chance value."""

from pathlib import Path

import pytest
import torch

from multiway.cli.train import parse
from multiway.data.emoji import Emoji
from multiway.data.open import open_source
from multiway.engine.doctor import diagnose
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.recipes.training import prepare, run_recipe
from multiway.recipes.world import WORLD
from multiway.serve.search import PictureIndex
from multiway.tasks import TASKS
from multiway.world import World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's own recipe, as `make demo` runs it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("runs") / "demo"
    outcome = run_recipe(parse(["clip", "--data", "emoji", "--out", str(folder)]), World())
    torch.set_num_threads(threads)
    assert outcome.finished
    return folder


def recall(model: object, split: str) -> dict[str, float]:
    result = TASKS["retrieval"].run(model, Emoji.open(split))
    return {name: metric.value for name, metric in result.metrics.items()}


# (split, metric, threshold, chance)
DEMO = [
    ("composition", "R@1", 0.55, 1 / 300),
    ("composition", "R@10", 0.95, 10 / 300),
    ("concept", "R@10", 0.25, 10 / 297),
    ("random", "R@1", 0.30, 1 / 400),
    ("random", "R@10", 0.60, 10 / 400),
]


def test_the_demo_learns_what_it_claims(demo: Path) -> None:
    model = load(demo)
    for split in ("composition", "concept", "random"):
        found = recall(model, split)
        for way in ("text_retrieval", "image_retrieval"):
            for name, threshold, chance in ((m, t, c) for s, m, t, c in DEMO if s == split):
                assert found[f"{way}/{name}"] >= threshold > 5 * chance, (split, way, name, found)


def test_the_untrained_model_is_at_chance() -> None:
    """Otherwise the figures above would come from the data, not from learning."""
    untrained = prepare(parse(["clip", "--data", "emoji"]), World()).model()
    for split, pictures in (("composition", 300), ("concept", 297), ("random", 400)):
        found = recall(untrained, split)
        for way in ("text_retrieval", "image_retrieval"):
            assert found[f"{way}/R@10"] < 3 * 10 / pictures, (split, found)


def test_the_doctor_finds_the_demo_healthy(demo: Path) -> None:
    run = Run.read(demo)
    findings = diagnose(run.metrics(), run.timings(), {"temperature_scale": (1.0, 100.0)}, {})
    assert not [finding for finding in findings if finding.severity == "illness"], findings


def test_groups_are_told_apart_by_words_alone(demo: Path) -> None:
    """Zero-shot over the nine groups on pictures held out at random; chance for balanced accuracy is 1/9."""
    result = TASKS["zeroshot"].run(load(demo), Emoji.open("random"))
    assert result.metrics["accuracy/balanced"].value > 1.7 / 9


def test_a_search_finds_fruit(demo: Path) -> None:
    """Among the ten first pictures for "red fruit", most are food; a tenth of all pictures is."""
    source = Emoji.open("all")
    hits = PictureIndex.build(load(demo), source).search(["red fruit"], 10)[0]
    food = sum(source.about(hit.index)["group"] == "Food & Drink" for hit in hits)
    assert food >= 5, [hit.caption for hit in hits]


def test_digits_are_read_zero_shot(tmp_path: Path) -> None:
    """From captions to digits never seen: well above 10 %, the chance level."""
    args = ["clip", "--data", "digits", "--out", str(tmp_path / "digits"), "--steps", "300", "--batch", "64"]
    run_recipe(parse([*args, "--method.image.layers", "2", "--method.text.layers", "2"]), World())
    from multiway.data.digits import Digits

    result = TASKS["zeroshot"].run(load(tmp_path / "digits"), Digits.open("test"))
    assert result.metrics["accuracy/top-1"].value > 0.8


def test_a_compiled_run_computes_the_same(tmp_path: Path) -> None:
    """torch.compile changes how fast, not what: losses of a few steps agree in fp32."""
    args = ["clip", "--data", "digits", "--steps", "4", "--batch", "32", "--log-every", "1", "--precision", "fp32",
            "--method.image.layers", "1", "--method.text.layers", "1"]  # fmt: skip
    losses = []
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        run_recipe(parse([*args, *more, "--out", str(tmp_path / name)]), World())
        losses.append([line["loss"] for line in Run.read(tmp_path / name).metrics()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ALBEF on scenes, as `make demo-fusion` trains it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("runs") / "fused"
    outcome = run_recipe(parse(["albef", "--out", str(folder)]), World())
    torch.set_num_threads(threads)
    assert outcome.finished
    return folder


# metric, threshold, chance; among 1,000 scenes of unique captions, two captions each
FUSED = [
    ("dual/text_retrieval/R@1", 0.40, 1 / 1000),
    ("dual/image_retrieval/R@1", 0.40, 1 / 1000),
    ("text_retrieval/R@16", 0.95, 16 / 1000),
    ("image_retrieval/R@16", 0.95, 16 / 1000),
    ("mean/R@1_gain", 0.02, 0.0),
]


def test_albef_learns_to_find_to_decide_and_to_guess(fused: Path) -> None:
    model, source = load(fused), open_source(f"{WORLD}@test")
    reranked = {name: metric.value for name, metric in TASKS["rerank"].run(model, source).metrics.items()}
    for name, threshold, chance in FUSED:
        assert reranked[name] >= threshold > chance, (name, reranked[name])
    matched = TASKS["matching"].run(model, source).metrics["hard/loss"]
    assert matched.value <= 0.45 < matched.chance == pytest.approx(0.6365, abs=1e-4)
    guessed = TASKS["masked-words"].run(model, source).metrics
    for kind, threshold in (("colour", 0.85), ("shape", 0.28)):  # chance: 0.14, the most frequent word
        seen, blind = guessed[f"with_picture/{kind}"], guessed[f"without_picture/{kind}"]
        assert seen.value > threshold > 1.8 * seen.chance and blind.value < seen.chance + 0.05, (kind, seen, blind)
    run = Run.read(fused)
    context = {"steps": run.config["settings"]["steps"]}
    found = diagnose(run.metrics(), run.timings(), type(model.method).watched, context)
    assert not [each for each in found if each.severity in ("illness", "warning")], found
