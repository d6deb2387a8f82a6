"""Re-ranking and full fusion against the whole table of scores, sorted in Python."""

import pytest
import torch
from fused import Cards, FusedModel
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.abilities import LacksAbility
from multiway.tasks import TASKS
from multiway.tasks.rerank import Rerank
from multiway.tasks.retrieval import Retrieval


def cards(pictures: int, each: int = 2) -> tuple[Cards, list[str]]:
    captions = [tuple(f"card {'very ' * (i % 3)}{i} {j}" for j in range(each)) for i in range(pictures)]
    return Cards(captions, [f"{1 + i % 2} things" for i in range(pictures)]), [c for row in captions for c in row]


def slow(model: FusedModel, source: Cards, texts: list[str], top: int, mix: float, tau: float) -> dict[str, float]:
    """Recall at 1 both ways by sorting every query's items in Python."""
    pictures = model._vectors(list(range(len(source))), 0)
    words = model._vectors(list(range(len(texts))), 1)
    cosine = (pictures @ words.T).double()
    owner = {t: i for i in range(len(source)) for t in range(len(texts)) if texts[t] in source.captions[i]}

    def first(query: int, items: int, score, odds) -> int:
        order = sorted(range(items), key=lambda g: -score(query, g))
        near = sorted(order[:top], key=lambda g: -(odds(query, g) + mix * score(query, g) / tau))
        return (near + order[top:])[0]

    there = [
        first(i, len(texts), lambda q, g: float(cosine[q, g]), lambda q, g: float(model.odds[q, g]))
        for i in range(len(source))
    ]
    back = [
        first(t, len(source), lambda q, g: float(cosine[g, q]), lambda q, g: float(model.odds[g, q]))
        for t in range(len(texts))
    ]
    return {
        "text_retrieval/R@1": sum(owner[t] == i for i, t in enumerate(there)) / len(there),
        "image_retrieval/R@1": sum(owner[t] == i for t, i in enumerate(back)) / len(back),
    }


@given(
    pictures=st.integers(2, 9), each=st.integers(1, 3), top=st.integers(1, 30), mix=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_equals_the_sorted_table(pictures: int, each: int, top: int, mix: float, seed: int) -> None:
    source, texts = cards(pictures, each)
    torch.manual_seed(seed)
    model = FusedModel(torch.randn(pictures, len(texts)), texts, seed)
    result = Rerank(top=top, mix=mix, tau=0.1, resamples=50).run(model, source)
    want = slow(model, source, texts, top, mix, 0.1)
    for name, value in want.items():
        assert result.metrics[name].value == pytest.approx(value)


def test_all_of_them_re_ranked_is_full_fusion() -> None:
    source, texts = cards(8)
    torch.manual_seed(0)
    odds = torch.randn(8, 16)
    every = Rerank(top=16, resamples=50).run(FusedModel(odds, texts), source)
    fusion = TASKS["fusion"].run(FusedModel(odds, texts), source)
    assert {n: m.value for n, m in every.metrics.items()} == {n: m.value for n, m in fusion.metrics.items()}
    assert fusion.details.matched == 8 * 16
    # With every pair scored the cosines decide nothing.
    other = TASKS["fusion"].run(FusedModel(odds, texts, seed=5), source)
    assert other.metrics["mean/R@1"].value == fusion.metrics["mean/R@1"].value


def test_an_oracle_gains_and_a_liar_loses_only_within_the_top() -> None:
    source, texts = cards(30, 1)
    truth = 4.0 * torch.eye(30) - 2
    oracle = Rerank(top=10, resamples=200).run(FusedModel(truth, texts), source)
    in_top = Retrieval(ks=(10,)).run(FusedModel(truth, texts), source)
    for way in ("text_retrieval", "image_retrieval"):
        assert oracle.metrics[f"{way}/R@1"].value == pytest.approx(in_top.metrics[f"{way}/R@10"].value)
    gain = oracle.metrics["mean/R@1_gain"]
    assert gain.value == pytest.approx(oracle.metrics["mean/R@1"].value - oracle.metrics["dual/mean/R@1"].value)
    assert gain.low > 0 and gain.n == 60
    liar = Rerank(top=10, resamples=200).run(FusedModel(-truth, texts), source)
    assert liar.metrics["mean/R@1"].value == 0.0
    for way in ("text_retrieval", "image_retrieval"):
        assert liar.metrics[f"{way}/R@10"].value == pytest.approx(oracle.metrics[f"{way}/R@10"].value)


def test_everything_is_encoded_once_and_no_pair_matched_twice() -> None:
    source, texts = cards(12)
    model = FusedModel(torch.zeros(12, 24), texts)
    result = Rerank(top=4, resamples=50).run(model, source)
    assert model.calls["image"] == 12 and model.calls["text"] == 24
    assert model.calls["match"] == result.details.matched <= 4 * (12 + 24)
    assert result.details.encoded == 36


def test_equal_odds_are_a_random_order() -> None:
    """A fused encoder that says the same of all: chance among the re-ranked, not the best case."""
    source, texts = cards(6, 1)
    result = Rerank(top=6, resamples=50).run(FusedModel(torch.zeros(6, 6), texts), source)
    assert result.metrics["mean/R@1"].value == pytest.approx(1 / 6)
    assert result.metrics["mean/R@1"].chance == pytest.approx(1 / 6)


def test_groups_are_reported_by_themselves() -> None:
    source, texts = cards(9)
    torch.manual_seed(1)
    result = Rerank(top=3, resamples=50).run(FusedModel(torch.randn(9, 18), texts), source)
    one, two = (result.metrics[f"image_retrieval/R@1[{n} things]"] for n in (1, 2))
    assert (one.n, two.n) == (10, 8)
    whole = result.metrics["image_retrieval/R@1"].value
    assert (10 * one.value + 8 * two.value) / 18 == pytest.approx(whole)
    alone = Rerank(top=3, resamples=50).run(FusedModel(torch.randn(9, 18), texts), Cards(source.captions))
    assert not any("[" in name for name in alone.metrics)


def test_a_dual_encoder_is_refused() -> None:
    source, texts = cards(3)
    model = FusedModel(torch.zeros(3, 6), texts)
    model.abilities = lambda: ("encode_image", "encode_text", "compare")  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match="match"):
        Rerank().run(model, source)


def test_nan_is_refused() -> None:
    source, texts = cards(3)
    odds = torch.zeros(3, 6)
    odds[1, 2] = torch.nan
    with pytest.raises(ValueError, match="1 of 18 pairs"):
        TASKS["fusion"].run(FusedModel(odds, texts), source)


def test_the_cost_is_told_before_it_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    source, texts = cards(40)
    model = FusedModel(torch.zeros(40, 80), texts)
    said: list[tuple[int, str]] = []
    silent = Rerank(top=8, resamples=50).run(FusedModel(torch.zeros(40, 80), texts), source)
    monkeypatch.setattr("multiway.tasks.rerank._STEP", 100)
    monkeypatch.setattr("multiway.tasks.rerank._SILENCE", -1.0)
    task = Rerank(top=8, resamples=50, say=lambda line: said.append((model.calls["match"], line)))
    result = task.run(model, source)
    pairs = result.details.matched
    assert said[0][1] == "rerank: encoding 40 pictures and 80 texts, each once"
    matched, line = said[1]
    assert line.startswith(f"rerank: matching {pairs} pairs, ") and "pairs/s" in line
    assert 0 < matched < 128 < pairs  # a sample has been timed, and nothing more
    assert len(said) > 3 and all("% of the pairs are matched" in line and "left" in line for _, line in said[2:])
    assert model.calls["match"] == pairs and result.metrics == silent.metrics and task == Rerank(top=8, resamples=50)
