"""The doctor: each symptom from lines written by hand, and from tiny trainings that really are sick."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multiway.engine.doctor import diagnose, render
from multiway.engine.health import gradient_health, health
from multiway.engine.history import Finding, History, Series
from multiway.engine.symptoms import SYMPTOMS

CHANCE = math.log(128)
BOUNDS = {"temperature_scale": (1.0, 100.0)}


def line(step, value, *, lr=1e-3, grad_norm=1.0, scale=20.0, std=0.9, rank=60.0, **more):
    """One line of metrics.jsonl of a healthy run, but for what is given."""
    return {
        "step": step,
        "epoch": 0,
        "loss": value,
        "terms": {"itc": {"value": value, "chance": CHANCE, "formula": "ln 128", "weight": 1.0}},
        "report": {"temperature_scale": scale},
        "health": {
            "image/std": std,
            "image/rank": rank,
            "image/rank_limit": 128.0,
            "image/mean_cosine": 1 - std if isinstance(std, float) else std,
            "image/nonfinite": 0.0,
        },
        "lr": lr,
        "grad_norm": grad_norm,
        **more,
    }


def course(value, steps=1000, every=10, noise=0.01, **series):
    """Lines along functions of progress in [0, 1]; learning rate with warm-up and cosine decay."""
    generator = np.random.default_rng(0)
    lines = []
    for step in range(every, steps + 1, every):
        p = step / steps
        lr = 1e-3 * min(1.0, p / 0.1) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, p - 0.1) / 0.9))
        values = {"lr": lr, **{name: f(p) for name, f in series.items()}}
        lines.append(line(step, value(p) * (1 + noise * generator.normal()), **values))
    return lines


def healthy(p):
    return CHANCE * (0.25 + 0.75 * math.exp(-4 * p))


def timings(steps=30, share=0.02):
    return [
        {"step": s, "step_seconds": 0.2, "data_seconds": 0.2 * share, "samples_per_second": 640.0}
        for s in range(1, steps + 1)
    ]


def only(findings, severity, term):
    """The single finding of a severity about a term."""
    chosen = [each for each in findings if (each.severity, each.term) == (severity, term)]
    assert len(chosen) == 1, render(findings)
    return chosen[0]


def scored(values, low=0.01, chance=0.0025):
    """A function of progress that attaches evaluations to every tenth of the run."""

    def at(p):
        tenth = round(p * 10, 6)
        if tenth != int(tenth):
            return {}
        value = values[int(tenth) - 1]
        return {"mean/R@1": {"value": value, "low": value - low, "high": value + low, "n": 400, "chance": chance}}

    return at


RISING = [0.02, 0.08, 0.15, 0.2, 0.25, 0.27, 0.29, 0.30, 0.305, 0.303]


# Healthy runs


@pytest.mark.parametrize(
    "lines",
    [
        course(healthy),
        course(healthy, steps=60, every=1),
        course(lambda p: CHANCE if p < 0.15 else healthy(p)),  # a while at chance, then learning
        course(healthy, noise=0.06),
        course(
            healthy, std=lambda p: min(0.9, 0.05 + 3 * p), rank=lambda p: 2 + 100 * p
        ),  # narrow at first, as transformers are
        course(healthy, grad_norm=lambda p: 5 * math.exp(-6 * p), scale=lambda p: 14 + 40 * p),
        course(lambda p: 0.002 + CHANCE * math.exp(-30 * p), grad_norm=lambda p: math.exp(-25 * p)),  # solved
        course(healthy, eval=scored(RISING)),
        course(healthy, eval=scored([*RISING[:7], 0.30, 0.295, 0.298])),  # a plateau is no overfitting
    ],
)
def test_a_healthy_run_gets_one_ok(lines):
    found = diagnose(lines, timings(), BOUNDS, {"steps": 1000})
    assert [each.severity for each in found] == ["ok"], render(found)
    assert "of its chance value" in found[0].evidence


def test_a_term_that_starts_above_chance_and_falls_is_healthy():
    found = diagnose(course(lambda p: CHANCE * (2.2 - 1.0 * p)), timings())
    assert [each.severity for each in found] == ["ok"], render(found)


def test_terms_without_chance_are_left_alone():
    lines = course(lambda p: 11.0, noise=0.001)
    for each in lines:
        each["terms"]["itc"]["chance"] = None
    assert [each.severity for each in diagnose(lines)] == ["ok"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.floats(0.0, 0.05), st.floats(2.5, 8.0), st.floats(0.1, 0.5), st.integers(300, 5000))
def test_no_false_alarm_for_curves_that_learn(seed, noise, speed, floor, steps):
    generator = np.random.default_rng(seed)
    lines = course(
        lambda p: CHANCE * (floor + (1 - floor) * math.exp(-speed * p)) * (1 + noise * generator.normal()), steps=steps
    )
    assert [each.severity for each in diagnose(lines, timings(), BOUNDS)] == ["ok"]


# Too short, or empty


def test_too_short_a_run_says_so():
    for lines in ([], [line(1, CHANCE)], course(lambda p: CHANCE, steps=40, every=1)):
        found = diagnose(lines, [])
        assert [(each.severity, each.what) for each in found] == [("note", "too short a run to tell")]


def test_in_the_warm_up_being_at_chance_is_no_illness():
    lines = [line(step, CHANCE, lr=1e-3 * step / 2000) for step in range(10, 1001, 10)]
    found = diagnose(lines)
    assert [each.what for each in found] == ["too short a run to tell"]
    assert "step 1000 the learning rate is still rising" in found[0].evidence


def test_a_short_run_can_be_ill_already():
    lines = [line(step, "nan", grad_norm="nan", skipped=True) for step in range(1, 8)]
    found = diagnose(lines)
    assert only(found, "illness", "gradient").what == "no step succeeds any more"


# At chance


def test_stuck_at_chance_names_constant_and_formula():
    found = diagnose(course(lambda p: CHANCE, noise=0.003), timings())
    finding = only(found, "illness", "itc")
    assert "itc has been within 2% of ln 128 = 4.852 for 990 steps" in finding.evidence
    assert finding.causes[0].startswith("the learning rate does not fit (its peak was 0.001)")
    assert any("not paired" in cause for cause in finding.causes)
    assert len(finding.causes) == len(finding.tries)


def test_a_hundred_steps_at_chance_warn_and_three_hundred_are_an_illness():
    assert only(diagnose(course(lambda p: CHANCE, steps=250)), "warning", "itc")
    assert only(diagnose(course(lambda p: CHANCE, steps=500)), "illness", "itc")


@pytest.mark.parametrize(
    ("lines", "clue"),
    [
        (course(lambda p: CHANCE, lr=lambda p: 0.0), "the learning rate is 0"),
        (course(lambda p: CHANCE, lr=lambda p: 1e-7), "the learning rate is too low: it never exceeded 1e-07"),
        (course(lambda p: CHANCE, lr=lambda p: 0.01), "the learning rate is too high: it reached 0.01"),
        (
            course(lambda p: CHANCE * (2.5 if 0.05 < p < 0.2 else 1)),
            "the learning rate is too high: the loss jumped to 12",
        ),
        (course(lambda p: CHANCE * (0.5 if 0.1 < p < 0.3 else 1)), "training broke down after step"),
        (course(lambda p: CHANCE, grad_norm=lambda p: 1e-5), "hardly any gradient arrives"),
    ],
)
def test_the_likeliest_cause_comes_first(lines, clue):
    finding = only(diagnose(lines), "illness", "itc")
    assert finding.causes[0].startswith(clue), finding.causes


def test_only_the_ill_term_is_named():
    lines = course(healthy)
    for each in lines:
        each["terms"]["itm"] = {"value": 0.637, "chance": 0.6365, "formula": "H(1/3)", "weight": 1.0}
    found = diagnose(lines)
    assert "H(1/3) = 0.6365" in only(found, "illness", "itm").evidence
    assert {each.term for each in found} == {"itm"}


def test_worse_than_chance():
    finding = only(diagnose(course(lambda p: CHANCE * 1.3)), "warning", "itc")
    assert "1.3 times its chance value (ln 128 = 4.852)" in finding.evidence


# Collapse


def test_collapse_to_a_point():
    finding = only(diagnose(course(healthy, std=lambda p: 0.01, rank=lambda p: 1.0)), "illness", "image")
    assert "0.01 of that of an even spread" in finding.evidence and "0.990" in finding.evidence


def test_few_directions():
    finding = only(diagnose(course(healthy, rank=lambda p: 3.0)), "warning", "image")
    assert "effective rank of image is 3 of at most 128" in finding.evidence


# Gradients


def test_exploding_loss_and_growing_gradient():
    assert only(diagnose(course(lambda p: CHANCE * (1 + 9 * p))), "illness", "run").what == "the loss explodes"
    grown = diagnose(course(lambda p: 0.9 * CHANCE, grad_norm=lambda p: math.exp(6 * p)))
    assert only(grown, "warning", "gradient").what == "the gradient grows"
    falling = diagnose(course(healthy, grad_norm=lambda p: math.exp(6 * p)))
    assert only(falling, "note", "gradient") and only(falling, "ok", "run")


def test_vanishing_gradient():
    assert (
        only(diagnose(course(lambda p: 0.9 * CHANCE, grad_norm=lambda p: 0.0)), "illness", "gradient").what
        == "no gradient arrives"
    )
    assert only(diagnose(course(lambda p: 0.9 * CHANCE, grad_norm=lambda p: 1e-8)), "illness", "gradient")


def test_skipped_steps():
    lines = course(healthy)
    lines[50] = line(505, "nan", grad_norm="inf", skipped=True)
    finding = only(diagnose(lines), "note", "gradient")
    assert "1 of 1000 steps were skipped" in finding.evidence and "not finite: itc" in finding.evidence
    for i in range(30, 60):
        lines[i] = line(10 * i + 10, 3.0, grad_norm="inf", skipped=True)
    finding = only(diagnose(lines), "warning", "gradient")
    assert "30 of 1000 steps" in finding.evidence and "arose in the backward pass" in finding.evidence
    for i in range(60, 100):
        lines[i] = line(10 * i + 10, "nan", grad_norm="nan", skipped=True)
        lines[i]["health"]["image/nonfinite"] = 4.0
    finding = only(diagnose(lines), "illness", "gradient")
    assert "embeddings with nan or inf: image" in finding.evidence


def test_most_parameters_without_gradient():
    lines = course(healthy)
    for each in lines:
        each["health"]["gradient/zero_share"] = 0.8
    assert "80% of the trained parameters" in only(diagnose(lines), "warning", "gradient").evidence


# Bounds, data, evaluation


def test_temperature_at_its_clamp():
    at_top = course(healthy, scale=lambda p: min(100.0, 20 + 200 * p))
    assert "temperature_scale is 100" in only(diagnose(at_top, (), BOUNDS), "note", "temperature_scale").evidence
    assert not any(each.term == "temperature_scale" for each in diagnose(at_top))
    at_bottom = course(lambda p: 0.95 * CHANCE, scale=lambda p: 1.0)
    assert only(diagnose(at_bottom, (), BOUNDS), "warning", "temperature_scale").what == "at its lower bound"
    assert only(diagnose(at_bottom, (), {"temperature_scale": (1.0, math.inf)}), "warning", "temperature_scale")


def test_waiting_for_data():
    finding = only(diagnose(course(healthy), timings(share=0.6)), "warning", "data")
    assert "60% of the time" in finding.evidence and "2.5 times as fast" in finding.evidence
    assert "workers" in finding.tries[0]
    # The first step starts the workers.
    slow_start = [{"step": 0, "step_seconds": 60.0, "data_seconds": 59.0}, *timings()]
    assert [each.severity for each in diagnose(course(healthy), slow_start)] == ["ok"]


def test_waiting_for_checkpoints():
    def saving(share, steps=30):
        return [
            line | {"loop_seconds": 2.0, "checkpoint_seconds": 2.0 * share * 2 * (line["step"] % 2)}
            for line in timings(steps)
        ]

    finding = only(diagnose(course(healthy), saving(0.04)), "note", "checkpoints")
    assert "3.9% of the time between step 2 and 30" in finding.evidence and "--checkpoint-every" in finding.tries[0]
    assert only(diagnose(course(healthy), saving(0.3)), "warning", "checkpoints")
    # Less than a hundredth is what there may be; runs of before have no such numbers; the first save makes the buffers.
    first = [saving(0.0)[0] | {"checkpoint_seconds": 1.9}, *saving(0.0)[1:]]
    for lines in (saving(0.005), timings(), first, saving(0.5, steps=4)):
        assert [each.severity for each in diagnose(course(healthy), lines)] == ["ok"]


def test_overfitting():
    values = [0.02, 0.1, 0.25, 0.30, 0.28, 0.26, 0.24, 0.23, 0.22, 0.2]
    finding = only(diagnose(course(healthy, eval=scored(values))), "warning", "mean/R@1")
    assert "best at step 400 (0.3) and is 0.2 at step 1000" in finding.evidence
    assert "use the checkpoint of step 400" in finding.tries[0]
    # Within the interval of the best value it may be luck.
    assert [each.severity for each in diagnose(course(healthy, eval=scored(values, low=0.2)))] == ["ok"]


def test_overfitting_of_a_metric_where_less_is_better():
    lines = course(healthy, eval=scored([90, 50, 20, 10, 14, 18, 22, 25, 28, 30], low=1.0, chance=200))
    for each in lines:
        if each["eval"]:
            each["eval"] = {"text_retrieval/median_rank": each["eval"]["mean/R@1"]}
    finding = only(diagnose(lines), "warning", "text_retrieval/median_rank")
    assert "best at step 400 (10)" in finding.evidence


def test_evaluation_at_chance():
    finding = only(diagnose(course(healthy, eval=scored([0.003] * 10))), "warning", "mean/R@1")
    assert "chance 0.0025" in finding.evidence and "itc has reached" in finding.evidence


def test_the_metric_that_matters_can_be_named():
    lines = course(healthy, eval=scored(RISING))
    for each in lines:
        if each["eval"]:
            each["eval"] = {"other": 0.5, **each["eval"]}
    assert History(lines).scored == "other"
    assert History(lines, context={"score": "mean/R@1"}).scored == "mean/R@1"
    assert len(History(lines).evaluation("other")) == 10


# Robustness, output, extension


def test_lines_may_be_words_repeated_and_out_of_order():
    lines = course(healthy)
    lines[3]["loss"] = "inf"
    lines.insert(0, line(500, 1e9))  # an older version of a line that a resumed run wrote again
    run = History(lines)
    assert list(run.loss.steps) == sorted(run.loss.steps) and run.loss.values.max() == math.inf
    assert run.loss.finite.values.max() < 10
    assert run.last_step == 1000


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_journal_makes_a_symptom_fail(data):
    number = st.one_of(
        st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["nan", "inf", "-inf"]), st.just(0.0)
    )
    lines = []
    for step in range(data.draw(st.integers(0, 12))):
        whole = line(
            step * 20, data.draw(number), grad_norm=data.draw(number), scale=data.draw(number), std=data.draw(number)
        )
        whole["terms"]["itc"]["chance"] = data.draw(st.one_of(st.none(), number))
        whole["eval"] = {
            "R@1": {"value": data.draw(number), "low": data.draw(number), "high": data.draw(number), "chance": 0.1}
        }
        lines.append({key: value for key, value in whole.items() if key == "step" or data.draw(st.integers(0, 5))})
    found = diagnose(lines, [{"step": 1}] * 3, BOUNDS)
    assert found and render(found)


def test_smoothing_takes_medians_of_what_went_before():
    values = np.random.default_rng(0).normal(size=30)
    for n in (0, 1, 3, 5, 30):
        smooth = Series(np.arange(n), values[:n]).smooth()
        assert smooth.values.tolist() == [np.median(values[max(0, i - 4) : i + 1]) for i in range(n)]


def test_a_journal_of_a_long_run_is_read_in_a_moment():
    lines = course(healthy, steps=200_000, every=10)
    began = time.perf_counter()
    assert [each.severity for each in diagnose(lines, timings(20_000), BOUNDS)] == ["ok"]
    assert time.perf_counter() - began < 10


def test_rendering_is_plain_text_in_order_of_severity():
    lines = course(lambda p: CHANCE, noise=0.003)
    text = render(diagnose(lines, timings(share=0.5)), width=80)
    assert text.index("ILLNESS  itc: at its chance value") < text.index("WARNING  data: training waits")
    assert "likely causes:" in text and "    1. " in text and "try:" in text
    assert max(map(len, text.splitlines())) <= 80
    json.dumps([finding.to_json() for finding in diagnose(lines)], allow_nan=False)


def test_a_new_symptom_is_one_function():
    def stale_queue(run):
        if run.report("queue_age").tail().median() > 100:
            yield Finding("warning", "queue", "stale", "its oldest row is 120 steps old")

    lines = [{**each, "report": {"queue_age": 120.0}} for each in course(healthy)]
    assert only(diagnose(lines, chronic=(stale_queue,)), "warning", "queue")


def test_every_symptom_is_quiet_on_nothing():
    assert [finding for symptom in SYMPTOMS for finding in symptom(History([]))] == []


# Really sick trainings: two linear layers a side, matching random pairs


def train(steps=120, lr=3e-3, break_features=None, break_loss=None, freeze=False, unit=True, optimiser="AdamW"):
    """Lines of a tiny contrastive training, as the loop writes them."""
    torch.manual_seed(0)
    towers = nn.ModuleList(nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 48)) for _ in range(2))
    pictures, texts = torch.randn(2, 256, 16)
    texts = pictures @ torch.randn(16, 16) / 4 + 0.1 * texts
    update = getattr(torch.optim, optimiser)(towers.parameters(), lr=lr)
    lines = []
    for step in range(1, steps + 1):
        rows = torch.randperm(256)[:64]
        raw = [tower(side[rows]) for tower, side in zip(towers, (pictures, texts), strict=True)]
        if break_features:
            raw = [break_features(each) for each in raw]
        v, w = (F.normalize(each, dim=1) for each in raw) if unit else raw
        scores = 14 * v @ w.T
        loss = (F.cross_entropy(scores, torch.arange(64)) + F.cross_entropy(scores.T, torch.arange(64))) / 2
        if break_loss:
            loss = break_loss(loss, step)
        if freeze:
            loss = loss.detach() + 0 * sum(p.sum() for p in towers.parameters())
        update.zero_grad()
        loss.backward()
        spread = {**health({"image": v, "text": w}), **gradient_health(towers.parameters())}
        norm = spread["gradient/norm"]
        applied = math.isfinite(norm) and math.isfinite(loss.item())
        if applied:
            update.step()
        term = {"value": loss.item(), "chance": math.log(64), "formula": "ln 64", "weight": 1.0}
        record = {
            "step": step,
            "epoch": 0,
            "loss": loss.item(),
            "terms": {"itc": term},
            "report": {},
            "health": spread,
            "lr": lr,
            "grad_norm": norm,
        }
        lines.append(record if applied else {**record, "skipped": True})
    return lines


def test_a_training_that_works():
    found = diagnose(train())
    assert [each.severity for each in found] == ["ok"], render(found)


@pytest.mark.parametrize(
    ("optimiser", "what"), [("AdamW", "the embeddings have collapsed to a point"), ("SGD", "the loss explodes")]
)
def test_a_learning_rate_of_ten(optimiser, what):
    # With unit embeddings the loss is bounded and these towers survive even that; without, they don't.
    found = diagnose(train(steps=120, lr=10.0, unit=False, optimiser=optimiser))
    finding = next(each for each in found if each.what == what)
    assert finding.severity == "illness" and "the learning rate is too high" in finding.causes[0]


def test_a_learning_rate_of_nothing():
    finding = only(diagnose(train(steps=160, lr=1e-9)), "warning", "itc")
    assert finding.causes[0].startswith("the learning rate is too low")


def test_frozen_towers():
    found = diagnose(train(steps=60, freeze=True))
    assert "no gradient arrives" in [each.what for each in found], render(found)


def test_constant_features():
    found = diagnose(train(steps=120, break_features=lambda raw: 1e-4 * raw + 1))
    whats = {(each.term, each.what) for each in found}
    assert ("image", "the embeddings have collapsed to a point") in whats and (
        "text",
        "the embeddings have collapsed to a point",
    ) in whats


def test_a_nan_in_one_step_and_in_all():
    found = diagnose(train(break_loss=lambda loss, step: loss * float("nan") if step == 60 else loss))
    assert only(found, "note", "gradient") and only(found, "ok", "run")
    found = diagnose(train(steps=40, break_loss=lambda loss, step: loss * float("nan")))
    assert only(found, "illness", "gradient").what == "no step succeeds any more"
