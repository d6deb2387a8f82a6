"""Self-supervision made sick: from journals by hand, and from one forward pass of tiny methods whose outputs are set to collapse."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from views_journal import METHODS, between, filling, lines

import multiway.engine.symptoms
from multiway.batch import Batch, DataInfo
from multiway.engine.doctor import diagnose, render
from multiway.engine.health import health
from multiway.engine.history import Finding
from multiway.methods import method_class
from multiway.methods.method import Losses, Step
from multiway.methods.siamese import Siamese
from multiway.nn.backbone import resnet
from multiway.recipes import recipe_function
from multiway.world import World

NAMES = list(METHODS)
EVERY = pytest.mark.parametrize("name", NAMES)


def seen(journal: list[dict[str, Any]], steps: int = 1000) -> list[Finding]:
    """What is no `ok`."""
    return [each for each in diagnose(journal, context={"steps": steps}) if each.severity != "ok"]


def only(journal: list[dict[str, Any]], steps: int = 1000) -> Finding:
    found = seen(journal, steps)
    assert len(found) == 1, render(found)
    (finding,) = found
    assert len(finding.causes) == len(finding.tries) and finding.evidence
    return finding


# Healthy runs


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(0, 10_000),
    st.sampled_from([5, 10, 25]),
    st.integers(300, 4000),
    st.floats(0.0, 1.5),
)
def test_a_healthy_run_of_any_method_gets_one_ok(name: str, seed: int, every: int, steps: int, noise: float) -> None:
    found = diagnose(lines(name, steps, every, seed, noise), context={"steps": steps})
    assert [each.severity for each in found] == ["ok"], render(found)


@EVERY
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.6])
def test_so_does_one_that_is_under_way(name: str, share: float) -> None:
    young = [line for line in lines(name, 2000) if line["step"] <= 2000 * share]
    assert [each for each in seen(young, 2000) if each.severity != "note"] == []


@EVERY
def test_and_one_that_knows_no_labels_and_none_of_the_new_figures(name: str) -> None:
    """Journals from before these figures, and data without labels."""
    _, _, _, _, report = METHODS[name]
    old = lines(name, without={*report} - {"momentum", "twin_gap", "accuracy", "target_entropy", "usage"})
    assert seen(old) == []


def test_ok_speaks_of_a_negative_cosine_as_a_share_of_its_way() -> None:
    (ok,) = diagnose(lines("simsiam", noise=0.0), context={"steps": 1000})
    assert "cosine is at 1" in ok.evidence and "% of its chance value" in ok.evidence, ok.evidence


# Collapse to a point

POINT: dict[str, Any] = {
    "projected__std": 0.02,
    "projected__mean_cosine": 0.9996,
    "projected__rank": 1.0,
    "alignment": 0.001,
    "probe": 2.2,
}
FLAT = POINT | {"backbone__std": 0.003, "backbone__mean_cosine": 0.9999}


@pytest.mark.parametrize(
    ("name", "bent", "cause"),
    [
        ("simsiam", {"loss": -0.999, "chance": -0.9995, "predictor_gain": 0.0}, "gradients enter through the target"),
        (
            "byol",
            {"loss": 0.002, "chance": 0.001, "predictor_gain": 0.0, "momentum": 0.5},
            "the twin follows its student too fast",
        ),
        ("simclr", {"loss": math.log(255)}, "the learning rate is too high"),
    ],
)
def test_complete_collapse(name: str, bent: dict[str, Any], cause: str) -> None:
    found = seen(lines(name, **(FLAT | bent)))
    (point,) = [each for each in found if each.term == "projected"]
    assert (point.severity, point.what) == ("illness", "the embeddings have collapsed to a point")
    assert point.causes[0].startswith(cause) and "the backbone has collapsed with it" in point.evidence
    assert not any(each.term in ("cosine", "distance") for each in found), render(found)


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_without_a_predictor_that_comes_first(name: str) -> None:
    loss, chance = (-0.999, -0.9995) if name == "simsiam" else (0.002, 0.001)
    finding = only(lines(name, without=["predictor_gain"], **FLAT, loss=loss, chance=chance))
    assert finding.causes[0].startswith("there is no predictor") and "--method.no-predict" in finding.tries[0]


def test_a_collapse_of_the_projector_alone() -> None:
    finding = only(lines("simsiam", **POINT, loss=-0.999, chance=-0.9995))
    assert finding.what == "the projections have collapsed to a point, the backbone's features have not"
    assert finding.evidence.endswith(": only the projector has collapsed")


def test_few_directions_and_a_line() -> None:
    few = only(lines("byol", projected__rank=4.0))
    assert (few.severity, few.what) == ("warning", "the embeddings use only a few directions")
    # As SimSiam without a predictor was after 26 steps: rank 3.4 of 48, views as good as one.
    agreed = only(
        lines("simsiam", projected__rank=9.0, alignment=between(1.5, 0.015, 0.0, 0.5), without=["predictor_gain"])
    )
    assert agreed.what == few.what and agreed.causes[0].startswith("there is no predictor")
    assert seen(lines("simsiam", projected__rank=9.0)) == []
    # As BYOL's without a predictor were after 100 steps: rank 6.9 of 128, views not yet as good as one.
    alone = only(lines("byol", projected__rank=9.0, without=["predictor_gain"]))
    assert alone.what == few.what and alone.causes[0].startswith("there is no predictor")
    assert not any("too fast" in cause for cause in alone.causes)  # its momentum is 0.99 and more
    assert seen(lines("byol", projected__rank=9.0)) == []
    line = only(lines("simsiam", projected__rank=1.2, alignment=between(1.5, 0.01), loss=between(0.0, -0.99, 0.0, 0.3)))
    assert (line.severity, line.what) == ("illness", "the embeddings have collapsed to a line")
    assert line.causes[0].startswith("gradients enter through the target")


def test_a_prediction_no_better_than_the_mean_target() -> None:
    finding = only(lines("byol", loss=1.2, chance=1.2, momentum=0.5))
    assert (finding.severity, finding.term, finding.what) == (
        "illness",
        "distance",
        "predicts no more than the mean target",
    )
    assert finding.causes[0].startswith("the twin moves as fast as its student")
    (worse,) = [each for each in seen(lines("simsiam", loss=0.1)) if each.term == "cosine"]
    assert "1 - |mean target|" in worse.evidence and "twin" not in " ".join(worse.causes)


# Outputs


@pytest.mark.parametrize(
    ("bent", "what", "cause"),
    [
        ({"target_entropy": 6.238, "usage": 6.238, "loss": 6.238, "teacher_temperature": 0.1}, "even for every picture", "centring without sharpening: the teacher's temperature is 0.1"),
        ({"target_entropy": 6.238, "usage": 6.238, "loss": 6.238}, "even for every picture", "the learning rate is too high"),
        ({"target_entropy": 0.001, "usage": 0.001, "loss": 0.002}, "one output for every picture", "sharpening without centring"),
        ({"target_entropy": 2.0, "usage": 2.01, "loss": 2.1}, "the same for every picture", "sharpening without centring"),
    ],
)  # fmt: skip
def test_dinos_collapses(bent: dict[str, Any], what: str, cause: str) -> None:
    finding = only(lines("dino", noise=0.1, **bent))
    assert (finding.severity, finding.term) == ("illness", "outputs")
    assert finding.what.startswith(f"targets are {what}") and finding.causes[0].startswith(cause)


def test_a_short_run_is_told_too_when_it_ended_in_a_collapse() -> None:
    """Trained for 100 steps, the last 60 with one output for everything: as `views_study.py collapse` recorded it."""
    told = [0.7, 0.5, 0.3, 0.04, 0.004, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    short = lines("dino", noise=0.1)[: len(told)]
    for line, nats in zip(short, told, strict=True):
        line["report"] |= {"target_entropy": 0.001, "usage": 0.001 + nats}
        line["step"] = 10 * short.index(line)
    found = [each for each in diagnose(short, [], {}, {"steps": 100}) if each.term == "outputs"]
    assert [each.what for each in found] == ["targets are one output for every picture"]
    assert not [each for each in diagnose(short, [], {}, {"steps": 1000}) if each.term == "outputs"]  # not yet


def test_swav_at_ln_k() -> None:
    collapsed = only(lines("swav", noise=0.1, target_entropy=5.545, loss=5.545, **FLAT))
    assert "uniform collapse" in collapsed.what and "--method.epsilon 0.03" in collapsed.tries[0]
    even = only(lines("swav", noise=0.1, loss=5.545))
    assert even.what.startswith("at ln K") and "ln 256 = 5.545" in even.evidence


def test_unused_prototypes() -> None:
    finding = only(lines("swav", winners=between(0.4, 0.02, 0.0, 0.4)))
    assert (finding.term, finding.what) == ("outputs", "most are unused")
    assert "--method.prototypes" in finding.tries[0]


# Memories


def test_a_queue_too_old_for_its_twin() -> None:
    finding = only(lines("moco", momentum=0.9))
    assert (finding.term, finding.what) == ("queue", "its entries are stale")
    assert "its oldest entry is 32 steps old, where the twin remembers about 10" in finding.evidence


@pytest.mark.parametrize(
    ("name", "term", "remedy"), [("moco", "queue", "--method.momentum"), ("instdisc", "bank", "--method.proximal")]
)
def test_stale_memories(name: str, term: str, remedy: str) -> None:
    finding = only(lines(name, freshness=0.1))
    assert (finding.term, finding.what) == (term, "what it holds of a picture is stale")
    assert remedy in finding.tries[0]
    assert seen(lines(name, freshness=0.1)[:40]) == []  # in the first half it is nothing unusual
    once = lines(name, freshness=0.0, epochs=1.5)
    assert name == "moco" or seen(once) == []  # no row of a bank was met again yet


def test_a_filling_memory_is_no_explosion_and_a_real_one_is() -> None:
    found = seen(lines("moco", loss=lambda p: filling(p) if p < 0.5 else 60.0))
    assert found[0].what == "the loss explodes" and "(first steps) to 6" in found[0].evidence
    (once,) = [line for line in lines("moco", noise=0.0) if line["step"] == 100]
    growing = lines("moco", noise=0.0)[:12]
    assert growing[-1]["loss"] > 2.5 * growing[0]["loss"] and once["loss"] > 8.0  # the queue's doing
    assert not any(each.what == "the loss explodes" for each in seen(growing))


# Temperature, shortcuts


@pytest.mark.parametrize("name", ["simclr", "moco", "moco-v3", "invaspread", "instdisc"])
def test_a_temperature_that_is_too_low(name: str) -> None:
    finding = only(lines(name, hardest_weight=0.9, negatives_felt=0.02))
    assert (finding.term, finding.severity) == ("negatives", "warning")
    assert finding.what.endswith("too low")


def test_a_temperature_that_is_too_high() -> None:
    finding = only(lines("simclr", noise=0.0, hardest_weight=1 / 255, negatives_felt=0.9995, loss=between(5.5, 5.2)))
    assert finding.what.endswith("too high") and "--method.temperature" in finding.tries[0]
    assert seen(lines("simclr", noise=0.0, negatives_felt=0.9995)) == []  # it learns all the same


def test_a_shortcut_leaves_the_probe_behind() -> None:
    finding = only(lines("simclr", loss=between(5.3, 1.0), probe=math.log(9)))
    assert finding.term == "probe" and finding.causes[0].startswith(
        "a shortcut: two crops of a picture share its colours"
    )
    unlearned = only(lines("simclr", loss=between(5.3, 1.0), probe=lambda p: 1.2 + 0.8 * p))
    assert "the probe was at" in unlearned.evidence
    # A method that has learned nothing has no shortcut: its own term says so.
    assert [each.term for each in seen(lines("simclr", loss=math.log(255), probe=math.log(9)))] == ["nt_xent"]


def test_views_that_are_alike_from_the_start() -> None:
    finding = only(lines("simclr", alignment=between(0.1, 0.02)))
    assert finding.term == "views" and "--views.views.0.scale" in finding.tries[0]


# Remedies


def options() -> list[str]:
    """Every option that a remedy names."""
    folder = Path(multiway.engine.symptoms.__file__).parent
    text = " ".join(path.read_text() for path in folder.glob("*.py") if path.stem in OURS)
    return sorted(set(re.findall(r"--((?:method|views|optimiser)\.[a-z0-9.-]*[a-z0-9])", text)))


OURS = ("view_causes", "regression", "outputs", "staleness", "temperature", "shortcut")


def has(given: Any, path: list[str]) -> bool:
    if not path:
        return True
    if isinstance(given, tuple):
        return has(given[int(path[0])], path[1:])
    name = path[0].replace("-", "_")
    for each in (name, name.removeprefix("no_")):
        if hasattr(given, each):
            return has(getattr(given, each), path[1:])
    return False


@pytest.mark.parametrize("option", options())
def test_every_option_that_is_advised_exists(option: str) -> None:
    recipes = [recipe_function(name)("tiny") for name in NAMES]
    at = [each.settings if option.startswith("optimiser") else each for each in recipes]
    assert any(has(each, option.split(".")) for each in at)


# Real reports: one forward pass of a tiny method, its parts set so that it collapses


def batch(rows: int = 48, alike: bool = False) -> Batch:
    make = torch.Generator().manual_seed(0)
    views = [torch.randn(rows, 3, 8, 8, generator=make) for _ in range(2)]
    return Batch(
        views=(views[0], views[0] if alike else views[1]),
        labels=torch.arange(rows) % 5,
        image_id=torch.arange(rows),
        sample_index=torch.arange(rows),
    )


def built(name: str, **changed: Any) -> Siamese:
    torch.manual_seed(0)
    kind = method_class(name)
    config = kind.config_class.preset("tiny")  # type: ignore[attr-defined]
    if name in ("moco-v3", "dino"):
        own = replace(config.backbone, size=8, patch=4, width=16, layers=1, heads=2)
    else:
        own = resnet(18, "cifar", base=4)
    method = kind(replace(config, backbone=own, **changed).resolve(DataInfo(samples=64, classes=5)))
    assert isinstance(method, Siamese)
    return method.train()


def written(losses: Losses, steps: int = 600, every: int = 20) -> list[dict[str, Any]]:
    """A journal of a run of which every line is this one, as JSON gives it back."""
    terms = {
        name: {
            "value": float(term.value.detach()),
            "chance": term.chance,
            "formula": term.formula,
            "weight": term.weight,
        }
        for name, term in losses.terms.items()
    }
    line = {
        "loss": float(losses.total.detach()),
        "terms": terms,
        "report": {name: float(value) for name, value in losses.report.items()},
        "health": health(losses.features),
        "lr": 1e-3,
        "grad_norm": 1.0,
    }
    line = json.loads(json.dumps(line))
    return [{**line, "step": step, "epoch": step // 50} for step in [1, *range(every, steps + 1, every)]]


def constant(method: Siamese) -> None:
    """The projector says the same of every picture; the twin as well."""
    heads = [method.projector] if method.twin is None else [method.projector, method.twin[1]]
    for head in heads:

        def same(module: Any, given: Any, out: Tensor) -> Tensor:
            ramp = torch.linspace(-10.0, 10.0, out.shape[1])
            return ramp + 1e-6 * out

        head.register_forward_hook(same)


def told(method: Siamese, rows: Batch | None = None, warm: int = 0) -> list[Finding]:
    """Findings of a journal whose lines are one real step."""
    rows, step = rows or batch(), Step(progress=0.5)
    with torch.no_grad():
        for _ in range(warm):
            method.after_step(step, method.training_step(rows, World(), step).updates)
        losses = method.training_step(rows, World(), step)
    return diagnose(written(losses), context={"steps": 600})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("swav", "dino")])
def test_real_reports_of_constant_projections(name: str) -> None:
    method = built(name)
    constant(method)
    found = told(method, warm=2)
    (point,) = [each for each in found if each.term == "projected"]
    assert "only the projector has collapsed" in point.evidence, render(found)
    if name == "simsiam":
        assert point.causes[0].startswith("gradients enter")


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_real_reports_without_a_predictor(name: str) -> None:
    method = built(name, predictor=None)
    constant(method)
    (point,) = [each for each in told(method) if each.term == "projected"]
    assert point.causes[0].startswith("there is no predictor")


@pytest.mark.parametrize(
    ("centring", "temperature", "what"),
    [(True, 0.1, "the uniform collapse"), (False, 0.01, "one output for every picture")],
)
def test_real_reports_of_dinos_two_collapses(centring: bool, temperature: float, what: str) -> None:
    method = built(
        "dino", centring=centring, teacher_temperature=temperature, warm_temperature=temperature, center_momentum=0.0
    )
    constant(method)
    found = told(method, warm=1)
    (finding,) = [each for each in found if each.term == "outputs"]
    assert what in finding.what, render(found)


def test_real_reports_of_swavs_collapse() -> None:
    method = built("swav")
    constant(method)
    found = told(method)
    assert [each.term for each in found if each.severity == "illness"] == ["outputs"], render(found)
    (finding,) = [each for each in found if each.term == "outputs"]
    assert "uniform collapse" in finding.what


def test_real_reports_of_a_cold_contrast_and_of_equal_views() -> None:
    assert any(each.what.endswith("too low") for each in told(built("simclr", temperature=0.002)))
    assert not any(each.term == "negatives" for each in told(built("simclr")))
    assert any(each.term == "views" for each in told(built("simclr"), batch(alike=True)))


def test_real_reports_of_a_stale_bank() -> None:
    method = built("instdisc")
    assert any(each.term == "bank" for each in told(method))  # its rows are random still
    assert not any(each.term == "bank" for each in told(method, warm=3))
