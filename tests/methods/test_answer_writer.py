"""The decoder of answers on methods of every build: ranking, writing and loss against slow twins that do one answer at a time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from multiway_batches import INFO, WORDS, toy_batch
from peer_weights import randomise

from multiway.abilities import Encoded
from multiway.batch import Batch
from multiway.config import ConfigError, to_json
from multiway.methods.albef import AlbefConfig
from multiway.methods.answer_writer import AnswerWriter, AnswerWriterConfig
from multiway.methods.blip import BlipConfig
from multiway.methods.clip import ClipConfig
from multiway.methods.method import Step
from multiway.methods.simvlm import SimvlmConfig
from multiway.methods.vilt import ViltConfig
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.generate import Generation
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

VISION = VisionConfig(size=16, patch=4, width=32, layers=1, heads=2)
READER = TextConfig(width=32, layers=2, heads=2, causal=False, pool="class")
UNDER: dict[str, Any] = {
    "albef": AlbefConfig(image=VISION, text=READER, embedding=20, queue=16),
    "blip": BlipConfig(image=VISION, text=replace(READER, cross_width=32), embedding=20, queue=16),
    "vilt": ViltConfig(size=16, patch=4, width=32, layers=2, heads=2),
    "simvlm": SimvlmConfig(
        image=ConvStageConfig(size=16, patch=4, depths=()), text=TextConfig(width=32, layers=2, heads=2, causal=False, pool="last")
    ),
}  # fmt: skip
ANSWERS = ("red", "two", "no", "left of the blue circle", "blue", "a square", "yes")
STEP = Step()


def ids_of(answers: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    words = WORDS(answers)
    return tuple(tuple(ids[mask].tolist()) for ids, mask in zip(words.ids, words.mask))


def config(name: str = "albef", **changes: Any) -> AnswerWriterConfig:
    of = to_json(UNDER[name].resolve(INFO))
    return AnswerWriterConfig(
        method=name, of=of, answers=ANSWERS, answer_ids=ids_of(ANSWERS), **{"top": 0, **changes}
    ).resolve(INFO)


def build(name: str = "albef", **changes: Any) -> AnswerWriter:
    torch.manual_seed(0)
    return randomise(AnswerWriter(config(name, **changes))).eval()  # type: ignore[no-any-return]


BATCH = toy_batch(4)
PICTURES = torch.tensor([[0], [0], [2], [1]])
TARGETS = torch.tensor([[0.7, 0, 0, 0.3, 0, 0, 0], [0, 1.0, 0, 0, 0, 0, 0], [0] * 7, [0, 0, 0.5, 0.1, 0.2, 0, 0.1]])


def asked(method: AnswerWriter) -> tuple[Encoded, Encoded]:
    image = method.encode_image(BATCH.images).rows(PICTURES[:, 0])
    return image, method.encode_text(BATCH.text, BATCH.text_mask)


def batch() -> Batch:
    return Batch(
        images=BATCH.images, pictures=PICTURES, text=BATCH.text, text_mask=BATCH.text_mask, targets=TARGETS,
        sample_index=torch.arange(4),
    )  # fmt: skip


@torch.no_grad()
def slowly(method: AnswerWriter, question: int, answer: tuple[int, ...]) -> float:
    """Log-probability of one answer to one question, token after token, each time from the beginning."""
    image, text = asked(method)
    own = torch.tensor([question])
    fused = method.base.fuse(image.rows(own), text.rows(own), tokens=True)
    total = 0.0
    for place in range(1, len(answer)):
        logits = method.decoder(torch.tensor([answer[:place]]), fused.tokens, fused.mask)[0, -1]
        total += float(logits.log_softmax(0)[answer[place]])
    return total


@pytest.mark.parametrize("name", UNDER)
def test_ranking_all_is_scoring_each_in_full(name: str) -> None:
    method = build(name)
    with torch.no_grad():
        found = method.answer(*asked(method))
    want = torch.tensor([[slowly(method, row, ids) for ids in method.config.answer_ids] for row in range(4)])
    assert found.shape == (4, len(ANSWERS)) and torch.allclose(found, want, atol=2e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3) and not torch.allclose(found[0], found[2], atol=1e-3)


@torch.no_grad()
def test_a_short_list_is_drawn_by_the_first_token() -> None:
    method = build()
    image, text = asked(method)
    everything = method.answer(image, text)
    fused = method.base.fuse(image, text, tokens=True)
    start = torch.full((4, 1), method.config.start)
    first = method.decoder(start, fused.tokens, fused.mask)[:, 0].log_softmax(1)
    by_first = first[:, [ids[1] for ids in method.config.answer_ids]]
    for top in (1, 3, 100):
        shorter = AnswerWriter(replace(method.config, top=top)).eval()
        shorter.load_state_dict(method.state_dict())
        found = shorter.answer(image, text)
        kept = found > torch.finfo(torch.float32).min
        assert (kept.sum(1) == min(top, len(ANSWERS))).all()
        assert torch.allclose(found[kept], everything[kept], atol=1e-5)
        assert by_first.where(kept, torch.inf).min() >= -torch.inf
        for row in range(4):
            if top < len(ANSWERS):
                assert by_first[row][kept[row]].min() >= by_first[row][~kept[row]].max()


@pytest.mark.parametrize("name", ["albef", "vilt"])
@torch.no_grad()
def test_greedy_writing_takes_the_likeliest_token_each_time(name: str) -> None:
    method = build(name)
    image, text = asked(method)
    said = method.write_answers(image, text, Generation(max_length=6))
    fused = method.base.fuse(image, text, tokens=True)
    for row in range(4):
        ids = [method.config.start]
        while len(ids) < 6 and (len(ids) == 1 or ids[-1] != method.config.end):
            mask = None if fused.mask is None else fused.mask[row : row + 1]
            ids.append(int(method.decoder(torch.tensor([ids]), fused.tokens[row : row + 1], mask)[0, -1].argmax()))
        assert said.ids[row][said.mask[row]].tolist() == ids


@torch.no_grad()
def test_a_beam_of_all_finds_the_likeliest_answer_of_the_list() -> None:
    """Where nothing but the list can be written: beam search and ranking agree on what is likeliest."""
    method = build()
    method.decoder.embed.words.weight.mul_(2)
    image, text = asked(method)
    beam = method.write_answers(image, text, Generation("beam", max_length=12, beams=20, length_penalty=0.0))
    for row in range(4):
        ids = tuple(beam.ids[row][beam.mask[row]].tolist())
        if ids[-1] == method.config.end:
            assert float(beam.scores[row]) == pytest.approx(slowly(method, row, ids), abs=1e-3)
            assert float(beam.scores[row]) >= float(method.answer(image, text)[row].max()) - 1e-3


@pytest.mark.parametrize("name", UNDER)
def test_the_loss_is_the_weighted_sum_over_answers(name: str) -> None:
    method = build(name)
    found = method.training_step(batch(), World(), STEP)
    want = 0.0
    for row in range(4):
        for place, weight in enumerate(TARGETS[row].tolist()):
            if weight:
                want -= weight * slowly(method, row, method.config.answer_ids[place]) / 4
    assert float(found.terms["lm"].value.detach()) == pytest.approx(want, rel=1e-4)
    found.total.backward()
    for part in (method.decoder, method.base):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_questions_without_a_listed_answer_teach_nothing() -> None:
    method = build()
    none = replace(batch(), targets=torch.zeros(4, len(ANSWERS)))
    found = method.training_step(none, World(), STEP)
    found.total.backward()
    assert float(found.total.detach()) == 0.0


@torch.no_grad()
def test_a_blind_one_sees_no_picture_and_the_other_does() -> None:
    image, text = asked(build())
    other = replace(image, tokens=image.tokens.flip(1) * 2)  # type: ignore[union-attr]
    assert not torch.allclose(build().answer(image, text), build().answer(other, text), atol=1e-3)
    blind = build(blind=True)
    assert torch.equal(blind.encode_image(BATCH.images).tokens, blind.encode_image(BATCH.images * 3).tokens)


@torch.no_grad()
def test_the_decoder_begins_from_the_methods_own_blocks() -> None:
    method, trained = AnswerWriter(config(layers=3)), build().base
    before = method.decoder.state_dict()["blocks.blocks.2.attention.qkv.weight"].clone()
    taken = method.decoder.begin_from(trained)
    own, theirs = method.decoder.state_dict(), trained.student.fusion.state_dict()
    same = [name for name, each in theirs.items() if torch.equal(own[f"blocks.{name}"], each)]
    assert len(same) == len(theirs) and taken == len(theirs) + 1
    words = trained.student.text.embed.words.weight
    assert torch.equal(own["embed.words.weight"], words)
    assert torch.equal(own["blocks.blocks.2.attention.qkv.weight"], before)  # the method has two
    # BLIP's vocabulary has two ids more than the tokeniser, and its decoder shares the text transformer's blocks.
    assert AnswerWriter(config("blip")).decoder.begin_from(build("blip").base) > 20
    assert AnswerWriter(config("vilt")).decoder.begin_from(build("vilt").base) == 1  # the words: no block crosses


def test_what_it_can_be_asked_and_how_it_is_kept() -> None:
    method = build()
    able = method.abilities()
    assert {"answer", "write_answers", "match", "encode_image"} <= set(able) and method.answers == ANSWERS
    again = AnswerWriter.from_config_json(method.config_json()).eval()
    again.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(again.answer(*asked(again)), method.answer(*asked(method)))
        assert method.match(*asked(method)).shape == (4,)
    assert method.starting is method.base and method.learning_rates()[0][1] == 3.0


def test_refusals() -> None:
    clip = ClipConfig(image=VISION, text=TextConfig(width=32, layers=1, heads=2), embedding=8).resolve(INFO)
    able = "albef, blip, coca, simvlm, vlmo, vilt, meter, beit3"
    with pytest.raises(ConfigError, match=f"clip, as .* does not read a picture with a question.* that do: {able}"):
        AnswerWriter(replace(config(), method="clip", of=to_json(clip)))
    with pytest.raises(ConfigError, match="name a run"):
        AnswerWriter(AnswerWriterConfig())
    with pytest.raises(ConfigError, match="7 answers with the tokens of 2"):
        AnswerWriter(replace(config(), answer_ids=ids_of(ANSWERS[:2])))
    with pytest.raises(ConfigError, match="layers count from 1"):
        AnswerWriter(replace(config(), layers=0))
    with pytest.raises(ConfigError, match="longest is 3; an answer of the list has"):
        AnswerWriter(replace(config(), longest=3))
    method = build()
    most = method.config.longest
    with pytest.raises(ConfigError, match=rf"of {most + 1} tokens or more .* this run writes at most {most}, start"):
        method.write_answers(*asked(method), Generation(min_length=most + 1, max_length=99))


def test_it_learns_what_it_is_taught() -> None:
    """Four questions by heart: the likeliest answer of the list is then the one that most people gave, and it is written too."""
    torch.manual_seed(0)
    method = AnswerWriter(config()).train()
    optimiser = torch.optim.AdamW(method.parameters(), 5e-3)
    taught = replace(batch(), pictures=torch.arange(4)[:, None], targets=torch.eye(len(ANSWERS))[[3, 1, 6, 4]])
    for _ in range(150):
        optimiser.zero_grad()
        loss = method.training_step(taught, World(), STEP).total
        if float(loss.detach()) < 0.3:
            break
        loss.backward()
        optimiser.step()
    method.eval()
    image, text = method.encode_image(BATCH.images), method.encode_text(BATCH.text, BATCH.text_mask)
    with torch.no_grad():
        assert method.answer(image, text).argmax(1).tolist() == [3, 1, 6, 4]
        said = method.write_answers(image, text, Generation("beam", max_length=40))
    assert [WORDS.decode(ids[mask].tolist()) for ids, mask in zip(said.ids, said.mask)] == [
        ANSWERS[place] for place in (3, 1, 6, 4)
    ]
