"""BLIP with some of its losses: the terms are those of the whole, and nothing is computed or moved for the others."""

from dataclasses import replace

import pytest
import torch
from toy import ToySource

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import ConfigError
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.methods.blip import LOSSES, Blip, BlipConfig
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = BlipConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2),
    text=TextConfig(context=0, width=32, layers=2, heads=2, causal=False, pool="class"),
    embedding=20,
    queue=24,
)
LATE = Step(index=90, epoch=3, progress=0.9)
PARTS = [("lm",), ("itc", "itm"), ("itc",), ("itm",), ("itm", "lm"), ("itc", "lm")]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    source = ToySource(32)
    return Tokenizer.train([c for i in range(32) for c in source.row(i).captions], TokenizerSpec(300, 16))


@pytest.fixture(scope="module")
def batch(words: Tokenizer) -> Batch:
    view = ViewSpec(size=16)
    return finish(Loader(ToySource(32), view, words, 16).batch(0), view)


def build(words: Tokenizer, losses: tuple[str, ...] = LOSSES) -> Blip:
    torch.manual_seed(0)
    return Blip(replace(SMALL, losses=losses).resolve(DataInfo(len(words), 16, special=words.special)))


def step(method: Blip, batch: Batch):
    torch.manual_seed(1)
    return method.training_step(batch, World(), LATE)


@pytest.mark.parametrize("losses", PARTS, ids="+".join)
def test_terms_are_those_of_all_three(words: Tokenizer, batch: Batch, losses: tuple[str, ...]) -> None:
    whole, some = step(build(words), batch), step(build(words, losses), batch)
    assert tuple(some.terms) == losses
    for name, term in some.terms.items():
        assert term.value.item() == pytest.approx(whole.terms[name].value.item(), abs=1e-6)
        assert (term.chance, term.formula) == (whole.terms[name].chance, whole.terms[name].formula)
    assert set(some.report) <= set(whole.report) and bool(some.updates) == ("itc" in losses)


def test_a_captioner_moves_what_writes_and_a_filter_what_matches(words: Tokenizer, batch: Batch) -> None:
    touched = {}
    for losses in (("lm",), ("itc", "itm"), LOSSES):
        method = build(words, losses)
        step(method, batch).total.backward()
        touched[losses] = {name for name, each in method.named_parameters() if each.grad is not None}
        assert method.rests == (losses != LOSSES)
    assert not any(n.startswith(("match_head", "temperature")) or "projection" in n for n in touched["lm",])
    assert not any(n.startswith("decoder") for n in touched["itc", "itm"])
    assert touched["lm",] | touched["itc", "itm"] == touched[LOSSES]


def test_without_contrast_the_twin_is_neither_asked_nor_moved(words: Tokenizer, batch: Batch) -> None:
    method = build(words, ("itm", "lm"))
    for part in (method.twin.image, method.twin.text):
        part.register_forward_hook(lambda *_: pytest.fail("the twin was asked"))
    found = step(method, batch)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    before = [each.clone() for each in method.twin.parameters()]
    method.after_step(LATE, found.updates)
    assert all(torch.equal(a, b) for a, b in zip(before, method.twin.parameters(), strict=True))


def test_a_captioner_reads_no_text_by_itself(words: Tokenizer, batch: Batch) -> None:
    method = build(words, ("lm",))
    calls = []
    method.student.text.register_forward_hook(lambda *_: calls.append(1))
    step(method, batch)
    assert not calls


@pytest.mark.parametrize("losses", [(), ("mlm",), ("lm", "lm")])
def test_losses_that_are_none_are_refused(losses: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="BLIP's losses are itc, itm, lm; given"):
        BlipConfig(losses=losses)
