"""Generation equals transformers' on the same random weights, cached equals recomputed, and draws are the nucleus'."""

from dataclasses import replace

import pytest
import torch
from generate_peers import END, PAD, START, pictures, writers
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.nn.generate import Generation, generate
from multiway.nn.generate.rules import nucleus

ENDING = 1.5


def ours_and_theirs(how: Generation, prompts: torch.Tensor, seed: int = 0, ending: float = ENDING):
    ours, theirs = writers(seed, ending)
    memory = pictures(len(prompts), seed)
    got = generate(ours.cached(memory), prompts, how, end=END, pad=PAD)
    beams = how.beams if how.strategy == "beam" else 1
    options = {} if beams == 1 else {"length_penalty": how.length_penalty, "early_stopping": how.early_stopping}
    with torch.no_grad():
        want = theirs.generate(
            input_ids=prompts, encoder_hidden_states=memory, eos_token_id=END, pad_token_id=PAD, do_sample=False,
            max_length=how.max_length, min_length=how.min_length, num_beams=beams, num_return_sequences=how.texts,
            repetition_penalty=how.repetition_penalty, return_dict_in_generate=True, output_scores=True, **options,
        )  # fmt: skip
    return got, want


def start(rows: int = 5, length: int = 1, seed: int = 0) -> torch.Tensor:
    words = torch.randint(3, 29, (rows, length), generator=torch.Generator().manual_seed(seed))
    words[:, 0] = START
    return words


GREEDY = [
    Generation(max_length=12),
    Generation(max_length=12, min_length=7),
    Generation(max_length=16, repetition_penalty=1.8),
    Generation(max_length=16, repetition_penalty=0.7, min_length=3),
]
BEAM = [
    Generation("beam", max_length=12, beams=3),
    Generation("beam", max_length=14, beams=4, texts=4, min_length=6),
    Generation("beam", max_length=14, beams=3, texts=2, length_penalty=2.0),
    Generation("beam", max_length=14, beams=3, texts=3, length_penalty=0.0),
    Generation("beam", max_length=14, beams=5, texts=3, length_penalty=-1.0, repetition_penalty=1.5),
    Generation("beam", max_length=14, beams=2, texts=2, early_stopping=True),
    Generation("beam", max_length=10, beams=4, texts=1, early_stopping=True, min_length=5, repetition_penalty=2.0),
    Generation("beam", max_length=9, beams=1),
]


@pytest.mark.parametrize("how", GREEDY + BEAM, ids=str)
@pytest.mark.parametrize(("seed", "length"), [(0, 1), (1, 3), (2, 2)])
def test_token_for_token_as_transformers(how: Generation, seed: int, length: int) -> None:
    got, want = ours_and_theirs(how, start(length=length, seed=seed), seed)
    assert got.ids.tolist() == want.sequences.tolist()
    if how.strategy == "beam" and how.beams > 1:
        torch.testing.assert_close(got.scores, want.sequences_scores, rtol=1e-5, atol=1e-5)


def test_the_settings_above_make_a_difference_and_texts_end_at_different_times() -> None:
    """Otherwise equality would say little."""
    lengths, texts = set(), set()
    for how in GREEDY + BEAM:
        got, _ = ours_and_theirs(how, start())
        lengths |= set(got.mask.sum(1).tolist())
        texts.add(str(got.ids[0].tolist()))
    assert len(lengths) > 4 and len(texts) > 4


@pytest.mark.parametrize(
    "how", [*GREEDY[:3], *BEAM[:4], Generation("nucleus", max_length=14, texts=3, top_p=0.8)], ids=str
)
def test_cached_as_recomputed(how: Generation) -> None:
    ours, _ = writers(4, ENDING)
    memory, prompts = pictures(4), start(4, 2)
    seen = torch.arange(6) < torch.tensor([[6], [3], [5], [1]])
    both = [
        generate(d(memory, seen), prompts, how, end=END, pad=PAD, generator=torch.Generator().manual_seed(0))
        for d in (ours.cached, ours.recomputed)
    ]
    assert torch.equal(both[0].ids, both[1].ids)
    torch.testing.assert_close(both[0].scores, both[1].scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", [*GREEDY[:3], *BEAM[:5]], ids=str)
def test_ragged_prompts_as_each_alone(how: Generation) -> None:
    ours, _ = writers(5, ENDING)
    memory, prompts = pictures(4), start(4, 5, seed=9)
    lengths = torch.tensor([5, 1, 3, 2])
    mask = torch.arange(5) < lengths[:, None]
    together = generate(
        ours.cached(memory), prompts.where(mask, torch.tensor(END)), how, end=END, pad=PAD, prompt_mask=mask
    )
    for row in range(4):
        alone = generate(
            ours.cached(memory[row : row + 1]), prompts[row : row + 1, : lengths[row]], how, end=END, pad=PAD
        )
        lines = slice(row * how.texts, (row + 1) * how.texts)
        length = alone.ids.shape[1]
        assert torch.equal(together.ids[lines, :length] * together.mask[lines, :length], alone.ids * alone.mask)
        assert torch.equal(together.mask[lines].sum(1), alone.mask.sum(1))
        torch.testing.assert_close(together.scores[lines], alone.scores, rtol=1e-4, atol=1e-4)


def test_scores_are_log_probabilities() -> None:
    ours, _ = writers(6, ENDING)
    memory, prompts = pictures(3), start(3, 2)
    texts = generate(ours.cached(memory), prompts, Generation("nucleus", max_length=12), end=END, pad=PAD)
    logp = ours.logits(texts.ids, memory).log_softmax(-1)[:, :-1].gather(2, texts.ids[:, 1:, None])[..., 0]
    slow = (logp * texts.mask[:, 1:])[:, 1:].sum(1)  # what follows the prompt of two
    torch.testing.assert_close(texts.scores, slow, rtol=1e-4, atol=1e-4)
    ended = texts.mask.sum(1) < 12
    last = texts.ids.gather(1, texts.mask.sum(1, keepdim=True) - 1)[:, 0]
    assert bool((last[ended] == END).all()) and bool((texts.ids[~texts.mask] == PAD).all())


class Counting:
    """A decoding that counts the rows it is asked to compute."""

    def __init__(self, inner) -> None:
        self.inner, self.rows = inner, []

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(ids))
        return self.inner.step(ids)

    def select(self, rows: torch.Tensor) -> None:
        self.inner.select(rows)


@pytest.mark.parametrize("how", [Generation(max_length=20), Generation("beam", max_length=20, beams=3)], ids=str)
def test_ended_texts_are_not_computed(how: Generation) -> None:
    ours, _ = writers(3, ENDING)
    counting = Counting(ours.cached(pictures(8)))
    texts = generate(counting, start(8), how, end=END, pad=PAD)
    assert counting.rows[0] == 8  # the prompt once for each picture, not for each beam
    assert counting.rows[1:] == sorted(counting.rows[1:], reverse=True) and counting.rows[-1] < max(counting.rows[1:])
    if how.strategy == "greedy":
        assert sum(counting.rows) == int(texts.mask.sum()) - 8  # one row for each written token


def slow_nucleus(scores: list[float], draw: float, top_p: float, temperature: float) -> int:
    """Holtzman et al., in words: tokens from the likeliest on until they have the mass; then as if there were no others."""
    weights = [2.718281828459045 ** (s / temperature) for s in scores]
    p = [w / sum(weights) for w in weights]
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    kept, mass = [], 0.0
    for token in order:
        kept.append(token)
        mass += p[token]
        if mass >= top_p - 1e-12:
            break
    reached = 0.0
    for token in kept:
        reached += p[token] / mass
        if draw < reached:
            return token
    return kept[-1]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(-40, 40).map(lambda x: x / 10), min_size=2, max_size=12, unique=True),
    draw=st.integers(0, 996).map(lambda x: (x + 0.37) / 997),
    top_p=st.sampled_from([0.05, 0.333, 0.61, 0.9, 0.999, 1.0]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_nucleus_as_its_slow_twin(scores: list[float], draw: float, top_p: float, temperature: float) -> None:
    got = nucleus(
        torch.tensor([scores], dtype=torch.float64), torch.tensor([draw], dtype=torch.float64), top_p, temperature
    )
    assert int(got) == slow_nucleus(scores, draw, top_p, temperature)


def test_draws_have_the_nucleus_distribution() -> None:
    """4,000 draws beside transformers' own filter."""
    from transformers.generation.logits_process import TopPLogitsWarper

    torch.manual_seed(0)
    scores = torch.randn(1, 12) * 1.5
    want = TopPLogitsWarper(0.8)(None, scores).softmax(1)[0]
    drawn = nucleus(scores.expand(4000, -1), torch.rand(4000, dtype=torch.float64), 0.8)
    share = torch.bincount(drawn, minlength=12) / 4000
    assert set(drawn.unique().tolist()) == set(want.nonzero()[:, 0].tolist())
    assert (share - want).abs().max() < 0.03  # about four standard errors


def test_draws_repeat_and_seeds_differ() -> None:
    ours, _ = writers(1, ENDING)
    how = Generation("nucleus", max_length=14, top_p=0.95, texts=2)

    def write(seed: int) -> torch.Tensor:
        return generate(
            ours.cached(pictures(3)), start(3), how, end=END, pad=PAD, generator=torch.Generator().manual_seed(seed)
        ).ids

    assert torch.equal(write(0), write(0)) and write(0).tolist() != write(1).tolist()


def test_a_nucleus_of_one_token_is_greedy() -> None:
    ours, _ = writers(2, ENDING)
    how = Generation(max_length=12)
    texts = [
        generate(ours.cached(pictures(3)), start(3), each, end=END, pad=PAD)
        for each in (how, replace(how, strategy="nucleus", top_p=1e-9))
    ]
    assert torch.equal(texts[0].ids, texts[1].ids)


def test_refusals() -> None:
    ours, _ = writers()
    for wrong in ({"texts": 2}, {"strategy": "beam", "texts": 4}, {"top_p": 0.0}, {"min_length": 9, "max_length": 8}):
        with pytest.raises(ValueError, match="strategy"):
            Generation(**wrong)
    with pytest.raises(ValueError, match="no room"):
        generate(ours.cached(pictures(2)), start(2, 6), Generation(max_length=6), end=END, pad=PAD)
    with pytest.raises(ValueError, match="start token"):
        generate(
            ours.cached(pictures(2)), start(2, 3), Generation(), end=END, pad=PAD,
            prompt_mask=torch.tensor([[True, False, False], [False, False, False]]),
        )  # fmt: skip
