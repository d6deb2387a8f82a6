"""The section on fused models: its numbers are the tasks', its examples are what they say, and the page shows them."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import own_data
from fused import Cards, FusedModel
from PIL import Image

from multiway.abilities import abilities_of
from multiway.data.scenes.source import Scenes
from multiway.data.source import Row
from multiway.data.thumbnail import picture_uri
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods.albef import Albef
from multiway.tasks import TASKS
from multiway.tasks.masked_words import Guess
from multiway.workflows.encoded_once import EncodedOnce
from multiway.workflows.fusion import Fused, fused_section, masked_words, spread
from multiway.workflows.report import write_report
from multiway.workflows.run_page import environment


@pytest.fixture(scope="module")
def section(model: Model, source: Scenes) -> Fused:
    return fused_section(EncodedOnce(model, source), picture_uri)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retrieval", "rerank", "matching", "masked-words"])
def test_numbers_are_those_of_the_task_by_itself(name: str, section: Fused, model: Model, source: Scenes) -> None:
    alone = TASKS[name].run(model, source)
    shown = getattr(section, name.partition("-")[0])
    assert (shown.task, shown.data, shown.split) == (alone.task, alone.data, alone.split)
    assert list(shown.metrics) == list(alone.metrics) and len(alone.metrics) >= 4
    for metric in alone.metrics.values():
        other = shown.metrics[metric.name]
        for part in ("value", "low", "high", "chance"):
            assert getattr(other, part) == pytest.approx(getattr(metric, part), abs=1e-5), metric.name
        assert other.n == metric.n


# --- examples --------------------------------------------------------------------------------------------------------


def number(image: Image.Image) -> str:
    """In place of a data URI: the number that a card's picture is."""
    return str(image.getpixel((0, 0)))


@pytest.mark.parametrize("truthful", [True, False])
def test_what_is_called_put_right_was_wrong_and_is_right(truthful: bool) -> None:
    texts = [f"card {i}" for i in range(20)]
    odds = (4.0 * torch.eye(20) - 2) * (1 if truthful else -1)
    found = fused_section(EncodedOnce(FusedModel(odds, texts), Cards([(text,) for text in texts])), number, count=30)
    before = found.rerank.details.dual.image_retrieval.rank
    right, wrong = [texts[i] for i in range(20) if before[i] > 1], [texts[i] for i in range(20) if before[i] <= 1]
    assert wrong and any(before[i] <= 16 for i in range(20) if before[i] > 1)
    if truthful:  # whoever was among the first 16 is first now
        assert [each.words for each in found.up] == [text for text in right if before[texts.index(text)] <= 16]
        assert not found.down
    else:
        assert [each.words for each in found.down] == wrong and not found.up
    for each in [*found.up, *found.down]:
        own = str(texts.index(each.words))
        first, last = (each.before, each.after) if truthful else (each.after, each.before)
        assert last[0] == (own, True)
        assert first[0][0] != own and not first[0][1]
        assert [right for _, right in each.after] == [picture == own for picture, _ in each.after]
        assert (each.after_rank == 1) == truthful == (each.before_rank > 1)
        assert each.before_rank == before[int(own)]
    assert found.masked is None and found.hidden == [] and found.looks == []
    assert found.matched <= 20 * 20 == found.every


def test_guesses_are_shown_with_the_picture_and_without(section: Fused) -> None:
    guesses = section.masked.details
    assert {one.guess.kind for one in section.hidden} == {guess.kind for guess in guesses}
    for one in section.hidden:
        assert one.guess in guesses and one.start + one.guess.word + one.end == one.guess.caption
        assert isinstance(one.guess.seen, str) and isinstance(one.guess.blind, str)


def test_the_word_that_is_blanked_is_the_one_that_was_hidden() -> None:
    from multiway.workflows.fusion import _blanks

    caption = "a covered red cup left of a Red cup"
    words = ["red", "cup", "red", "cup", "naïve"]
    blanks = _blanks([Guess(0, caption, word, "word", None, word) for word in words])
    assert blanks[:4] == [(10, 13), (14, 17), (28, 31), (32, 35)] and blanks[4] == ()


def test_maps_are_there_for_methods_that_have_them_and_only_for_those(
    section: Fused, model: Model, source: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [look.caption for look in section.looks] == [source.row(row).captions[0] for row in (3, 9, 15, 21)]
    known = {word for words in source.word_classes.values() for word in words}
    for look in section.looks:
        assert look.words and {word for word, _, _ in look.words} <= known
        assert all(uri.startswith("data:image/png") for _, *maps in look.words for uri in maps)
    able = tuple(name for name in abilities_of(model) if name != "match_with_maps")
    monkeypatch.setattr(Albef, "abilities", lambda self: able, raising=False)
    assert fused_section(EncodedOnce(model, source), picture_uri).looks == []


def test_captions_without_a_word_to_ask_about_have_no_guesses(model: Model) -> None:
    class Emoji(Scenes):
        def row(self, index: int) -> Row:
            return replace(super().row(index), captions=("\N{RED APPLE}" * (1 + index),))

    assert masked_words(EncodedOnce(model, Emoji.open("val", "easy,gallery=8"))) is None


def test_examples_are_spread_evenly() -> None:
    assert spread([], 3) == [] and spread([5, 6], 3) == [5, 6]
    assert spread(list(range(12)), 3) == [2, 6, 10]


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_of_a_fused_run_shows_all_of_the_section(fused_run: Path) -> None:
    page = (fused_run / "report.html").read_text(encoding="utf-8")
    split = Scenes.open("test", "easy,gallery=16,samples=64")
    section = fused_section(EncodedOnce(load(fused_run), split), picture_uri)
    body = page[page.index(f"Seen together: {section.title}") :]
    assert page.count("<h2>Seen together:") == 2 and "scenes:easy,gallery=16@val" in page
    for heading in ("Matching: pairs beside near misses", "Hidden words", "Where words look"):
        assert heading in body
    for metric in ("words → picture R@1", "dual picture → words R@1", "mean R@1_gain", "with_picture colour"):
        assert f"<td>{metric}</td>" in body, metric
    loss = section.matching.metrics["hard/loss"]
    assert f"<td>hard/loss</td><td><b>{loss.value:.3f}</b></td>" in body and f"<td>{loss.chance:.4f}</td>" in body
    assert f"{section.matched:,} pairs were matched of {section.every:,}" in body
    for one in section.hidden:
        row = f'{one.start}<span class="blank">?</span>{one.end}</td><td>{one.guess.word}</td>'
        rest = re.sub(r"\s+", " ", html.unescape(body))
        assert row in rest
        seen, blind = re.findall(r">([^<]*)</td>", rest[rest.index(row) + len(row) :])[:2]
        assert (seen, blind) == (one.guess.seen, one.guess.blind)
        assert one.picture in body
    for look in section.looks:
        assert look.picture in body and f"<b>{look.caption}</b>" in body
        for word, attention, cam in look.words:
            assert f'<figure><img src="{attention}" alt=""><img src="{cam}" alt="">{word}</figure>' in body
    assert [each.words for each in section.up] == re.findall(
        r"<b>([^<]*)</b><span>from number \d+ to number 1<", body.partition("Put wrong by")[0]
    )


def test_right_and_wrong_guesses_are_told_apart(section: Fused) -> None:
    one = section.hidden[0]
    guesses = [replace(one.guess, seen=seen, blind="wrong") for seen in (one.guess.word, None)]
    shown = replace(section, hidden=[replace(one, guess=guess) for guess in guesses])
    page = environment().get_template("fusion.html.j2").render(fused=[shown], scores=lambda result: "")
    cells = re.findall(r'<td class="(yes|no)">([^<]*)</td>', page)
    assert cells == [("yes", one.guess.word), ("no", "wrong"), ("no", "–"), ("no", "wrong")]


def test_what_is_tried_next_is_what_the_model_can_do(fused_run: Path, tiny_run: Path) -> None:
    fused = (fused_run / "report.html").read_text(encoding="utf-8")
    dual = write_report(tiny_run).read_text(encoding="utf-8")
    assert "--task rerank" in fused and "multiway search" in fused and "multiway convert" not in fused
    assert "--task rerank" not in dual and "multiway search" in dual and "multiway convert" in dual
    assert "Seen together" not in dual and "Hidden words" not in dual and "Where words look" not in dual


def test_a_model_of_words_alone_is_reported_too(tmp_path: Path, trained, small) -> None:
    layers = ["--method.text.width", "32", "--method.text.layers", "1", "--method.text.heads", "2"]
    page = trained("bert", tmp_path / "run", *small["scenes"], *layers)
    assert page.count("Masked words: scenes:easy,gallery=16@") == 2
    assert "without_picture colour" in page and "with_picture colour" not in page.replace("without_picture", "")
    assert "Seen together" not in page and "multiway search" not in page and "Recall on pictures" not in page
    assert "--task masked-words --data scenes:easy,gallery=16@test" in page


def test_ones_own_captions_are_reported_and_escaped(caption_folder: Path, trained, small) -> None:
    """Data that know no classes of words: any word is asked about. And captions come from strangers."""
    file = caption_folder / "captions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{**row, "caption": [f"<kbd>{row['caption'][0]}</kbd>"], "split": "val"} for row in rows[:16]] + rows[16:]
    file.write_text("\n".join(json.dumps({"split": "train", **row}) for row in rows))
    page = trained("albef", caption_folder / "run", *own_data(caption_folder, "run"), *small["fused"])
    assert "Seen together" in page and "with_picture word" in page and "<kbd>" not in page
