"""Every tab of the page as a function: its numbers are the model's, what is wrong is said, what visitors write stays text."""

import re
from pathlib import Path

import pytest
import torch
from markupsafe import escape
from masked_batches import built
from multiway_batches import INFO, WORDS
from PIL import Image
from toy import ToySource
from tuning import METHODS, VIEW, tuned

import multiway
from multiway.config import to_json
from multiway.data.processor import Processor
from multiway.data.source import BadRow
from multiway.data.thumbnail import picture_uri
from multiway.data.view import draw
from multiway.engine.run import Run
from multiway.explain.overlay import drawn_part, with_heat
from multiway.explain.reconstruction import reconstruct
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.methods.answer_writer import AnswerWriter, AnswerWriterConfig
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.mae import MaeConfig
from multiway.nn.generate import Generation
from multiway.nn.vit import VisionConfig
from multiway.serve.find import rerank
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex
from multiway.serve.subject import Refused, Sample, Subject
from multiway.serve.tabs import (
    answer,
    caption,
    classify,
    curves,
    look,
    search,
    similarity,
    tabs_of,
)
from multiway.serve.tabs import (
    reconstruct as filling,
)
from multiway.serve.tabs.html import number, problem

SOURCE = ToySource(20)
LIMITS = Limits()
SAMPLES = [Sample(str(row), SOURCE.image(row), SOURCE.row(row).captions[0]) for row in range(4)]


def moved(method: torch.nn.Module) -> torch.nn.Module:
    """With weights that differ enough for all scores to differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return method


def subject(name: str, limits: Limits = LIMITS) -> Subject:
    torch.manual_seed(0)
    model = Model(moved(method_class(name)(METHODS[name].resolve(INFO))), Processor(VIEW, WORDS))
    found = Subject(model, name, limits, SAMPLES, SOURCE.classes, SOURCE.templates[1])
    if found.able("compare"):
        found.index, found.place = PictureIndex.build(model, SOURCE), "20 toys"
    return found


@pytest.fixture(scope="module")
def clip() -> Subject:
    return subject("clip")


@pytest.fixture(scope="module")
def blip() -> Subject:
    return subject("blip")


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for row in range(3):
        SOURCE.image(row).save(tmp_path / f"{row}.png")
    return [str(tmp_path / f"{row}.png") for row in range(3)]


def numbers(html: str, tag: str) -> list[float]:
    """What stands in tags of a kind, pictures aside."""
    found = re.findall(rf"<{tag}[^>]*>(?:\d+\. )?([−\d.]+)%?<", html)
    return [float(each.replace("−", "-")) for each in found]


def drawn(kind: str, heat: torch.Tensor) -> str:
    """A map over the first picture, as the page has it."""
    square = Image.fromarray(draw(SOURCE.image(0), VIEW, 224))
    return picture_uri(Image.fromarray(with_heat(square, drawn_part(kind, heat).numpy())), 224, False)


def shown(found: look.Shown) -> list[tuple[str, str]]:
    """What stands under each figure, and the figure."""
    each = re.findall(r'<figure><img src="(.*?)" alt=".*?"><figcaption>(.*?)</figcaption>', found.html)
    return [(title, picture) for picture, title in each]


def test_tabs_are_what_a_model_is_able_to_do(clip: Subject, blip: Subject) -> None:
    def titles(of: Subject) -> list[str]:
        return [tab.title for tab in tabs_of(of)]

    assert titles(clip) == ["Search", "Classify", "Similarity", "Look"]
    assert titles(blip) == ["Search", "Classify", "Caption", "Similarity", "Look"]
    assert titles(subject("vilt")) == ["Similarity", "Look"]
    assert titles(Subject(Model(built("mae"), Processor(VIEW, None)), "mae")) == ["Look", "Reconstruct"]
    assert titles(Subject(Model(tuned("vilt"), Processor(VIEW, WORDS)), "vqa")) == ["Answer", "Similarity", "Look"]
    assert titles(subject("bert")) == []


def test_search_shows_what_the_index_finds(clip: Subject, blip: Subject, paths: list[str]) -> None:
    for given in (("red on the left", None), ("", paths[1]), ("blue", paths[0])):
        picture = clip.opened(given[1]) if given[1] else None
        hits = clip.index.find(given[0], picture, 0.3, 5)
        html = search.searched(clip, given[0], given[1], 0.3, 5)
        assert numbers(html, "b") == pytest.approx([hit.score for hit in hits], abs=6e-4)
        captions = re.findall(r"<span>(.*?)</span>", html)
        assert captions == [hit.caption for hit in hits]
        middle = clip.index.similarities(given[0], picture, 0.3).median()
        assert f"the middle one of the 20 has {number(float(middle))}" in html
    hits = rerank(blip.model, "red", blip.index.find("red", top=50), blip.index.picture)[:4]
    assert numbers(search.searched(blip, "red", None, 0.5, 4, True), "b") == pytest.approx(
        [h.score for h in hits], abs=6e-4
    )
    for words, path, top, match, told in (
        (" ", None, 5, False, "query is empty"), ("", paths[0], 5, True, "no words"), ("red", None, 0, False, "gives 1 to 100"),
        ("red " * 600, None, 5, False, "at most 2,000"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=told):
            search.searched(blip, words, path, 0.5, top, match)


def test_classification_is_by_cosine(clip: Subject, paths: list[str]) -> None:
    labels, model = list(SOURCE.classes)[:5], clip.model
    said = model.encode_text([f"something {label}" for label in labels]).embedding
    scores = (model.encode_image([SOURCE.image(2)]).embedding @ said.T)[0]
    html = classify.classified(clip, paths[2], "\n".join([*labels, labels[0]]), "something {}")
    order = scores.argsort(descending=True).tolist()
    assert re.findall(r'<th scope="row">(.*?)</th>', html) == [labels[place] for place in order]
    assert numbers(html, 'td class="mw-value"') == pytest.approx(scores[order].tolist(), abs=6e-4)
    assert "1 time in 5" in html
    assert "1 time in 3" in classify.classified(clip, paths[0], "a, b , c")
    for given, told in (
        ((None, "a,b", "{}"), "no picture yet"), ((paths[0], "a", "{}"), "two or more"), ((paths[0], " ", "{}"), "no label"),
        ((paths[0], "a,b", "no place"), "0 places"), ((paths[0], ",".join(map(str, range(1001))), "{}"), "at most 1,000"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=told):
            classify.classified(clip, *given)


def test_captions_are_the_models_own(blip: Subject, paths: list[str]) -> None:
    encoded = blip.model.encode_image([SOURCE.image(0)], tokens=True)
    for way, (strategy, _) in caption.WAYS.items():
        settings = Generation(strategy, max_length=40, texts=1 if strategy == "greedy" else 3)
        wanted = dict.fromkeys(blip.model.generate(encoded, settings, ["the"], seed=3)[0])
        html = caption.captioned(blip, paths[0], way, "the", 3)
        assert html.count("<q>") == len(wanted) and html.count("match ") == len(wanted)
    with pytest.raises(Refused, match="no way"):
        caption.captioned(blip, paths[0], "backwards")


def test_answers_are_the_best_of_the_list(paths: list[str]) -> None:
    model = Model(tuned("albef"), Processor(VIEW, WORDS))
    found = Subject(model, "vqa", samples=SAMPLES)
    shown, asked = model.encode_image([SOURCE.image(1)], True), model.encode_text(["what colour is it?"], True)
    shares = model.answer(shown, asked)[0].softmax(0)
    html = answer.answered(found, paths[1], "what colour is it?")
    assert f'<p class="mw-head">{model.answers[int(shares.argmax())]}</p>' in html
    best = 100 * shares.sort(descending=True).values[:5]
    assert numbers(html, 'td class="mw-value"') == pytest.approx(best.tolist(), abs=0.06)
    assert "It knows no other answer" in html
    with pytest.raises(Refused, match="no question"):
        answer.answered(found, paths[0], " ")


def test_an_answer_in_its_own_words_stands_first(paths: list[str]) -> None:
    words = WORDS(["red", "blue", "two"])
    ids = tuple(tuple(row[kept].tolist()) for row, kept in zip(words.ids, words.mask, strict=True))
    of = to_json(METHODS["blip"].resolve(INFO))
    config = AnswerWriterConfig(method="blip", of=of, answers=("red", "blue", "two"), answer_ids=ids).resolve(INFO)
    model = Model(moved(AnswerWriter(config)), Processor(VIEW, WORDS))
    shown, asked = model.encode_image([SOURCE.image(0)], True), model.encode_text(["what"], True)
    html = answer.answered(Subject(model, "vqa"), paths[0], "what")
    written = model.write_answers(shown, asked, Generation("beam"))[0]
    assert f'<p class="mw-head">{escape(written)}</p>' in html if written else "It knows no other answer" in html
    assert numbers(html, 'td class="mw-value"')[0] == pytest.approx(
        100 * float(model.answer(shown, asked).softmax(1).max()), abs=0.06
    )


def test_the_table_of_similarities_is_the_models(blip: Subject, paths: list[str]) -> None:
    texts, model = ["red, on the left", "blue"], blip.model
    shown, said = model.encode_image([SOURCE.image(row) for row in range(3)], True), model.encode_text(texts, True)
    html = similarity.compared(blip, paths, "\n".join(texts))
    cells = [float(each.replace("−", "-")) for each in re.findall(r"<td class.*?>(?:<b>)?([−\d.]+)", html)]
    assert cells == pytest.approx(model.compare(shown, said).flatten().tolist(), abs=6e-3)
    assert html.count("<b>") == 3 and html.count("↑</sup>") == 2 and ">red, on the left</th>" in html
    html = similarity.compared(blip, paths, "\n".join(texts), similarity.MATCH)
    cells = [float(each.replace("−", "-")) for each in re.findall(r"<td class.*?>(?:<b>)?([−\d.]+)", html)]
    rows = [torch.tensor([picture, text]) for picture in range(3) for text in range(2)]
    wanted = [float(model.match(shown.rows(pair[:1]), said.rows(pair[1:]))) for pair in rows]
    assert cells == pytest.approx(wanted, abs=6e-3)
    for given, told in (
        ((None, "a"), "no picture"),
        ((paths * 6, "a"), "at most 16"),
        ((paths, ""), "no text"),
        ((paths, "a", "x"), "no way"),
    ):
        with pytest.raises(Refused, match=told):
            similarity.compared(blip, *given)


def test_looking_follows_the_chosen_word(clip: Subject, blip: Subject, paths: list[str]) -> None:
    text, picture = "red, on the left", SOURCE.image(0)
    maps = multiway.explain(blip.model, picture, text)
    html = look.looked(blip, paths[0], text)
    assert html.words == [look.ALL, "1. red", "3. on", "4. the", "5. left"], "the comma is no word"
    assert html.word == look.ALL and number(maps["grad-cam"].score, 2, sign=True) in html.html
    kinds = ["cross-attention", "grad-cam", "itc-cam", "attention", "rollout"]
    assert shown(html) == [(kind, drawn(kind, maps[kind].heat)) for kind in kinds]
    # Of a word its own map, or, where a kind tells no words apart, the map of the word as a text of its own.
    left = multiway.explain(blip.model, picture, "left", ["itc-cam"])
    by_word = {kind: dict(maps[kind].each_word()) for kind in kinds[:2]}
    chosen = maps["grad-cam"].words[4]
    html = look.looked(blip, paths[0], text, word="5. left")
    assert html.word == "5. left" and shown(html)[:3] == [
        *((kind, drawn(kind, by_word[kind][chosen])) for kind in kinds[:2]),
        ("itc-cam of the word alone", drawn("itc-cam", left["itc-cam"].heat)),
    ]
    assert f"Similarity of “left” alone: {number(left['itc-cam'].score, 2)}" in html.html
    assert look.looked(blip, paths[0], text, word="6. nothing").word == look.ALL


def test_one_kind_shows_its_words_layers_and_heads(blip: Subject, paths: list[str]) -> None:
    text, picture = "red, on the left", SOURCE.image(0)
    for layer, head in (("as usual", "as usual"), ("0", "as usual"), ("as usual", "1"), ("1", "0")):
        at = {"layers": (int(layer),) if layer.isdigit() else (), "heads": (int(head),) if head.isdigit() else ()}
        own = multiway.explain(blip.model, picture, text, ["cross-attention"], **at)["cross-attention"]
        found = look.looked(blip, paths[0], text, "cross-attention", "", layer, head)
        assert found.layers == [look.OWN, "0", "1"] and found.heads == [look.OWN, "0", "1"]
        assert (found.layer, found.head) == (layer, head)
        words = [(word.text, drawn("cross-attention", heat)) for word, heat in own.each_word() if word.text != ","]
        layers = at["layers"] or (range(2) if at["heads"] else own.layers)
        heads = [
            (f"layer {one}, head {two}", drawn("cross-attention", own.by_head[one, two]))
            for one in layers
            for two in at["heads"] or range(2)
        ]
        assert shown(found) == [(look.ALL, drawn("cross-attention", own.heat)), *words, *heads]
    assert look.looked(blip, paths[0], text, "rollout").layers == [], "it follows all of them"
    assert look.looked(blip, paths[0], text, "attention", layer="7").layer == look.OWN
    occluded = look.looked(blip, paths[0], text, "occlusion")
    own = multiway.explain(blip.model, picture, text, ["occlusion"])["occlusion"]
    assert shown(occluded) == [(look.ALL, drawn("occlusion", own.heat))] and occluded.heads == []


def test_a_picture_alone_keeps_its_own_maps(blip: Subject, paths: list[str]) -> None:
    alone = look.looked(blip, paths[0])
    assert [title for title, _ in shown(alone)] == ["attention", "rollout"] and alone.words == [] and not alone.word
    with pytest.raises(Refused, match="type a text"):
        look.looked(blip, paths[0], " ", "grad-cam")
    with pytest.raises(Refused, match="no map 'filip' of blip; choose attention"):
        look.looked(blip, paths[0], "red", "filip")
    found = Subject(Model(built("mae"), Processor(VIEW, None)), "mae")
    assert [title for title, _ in shown(look.looked(found, paths[0], "red"))] == ["attention", "rollout"]
    with pytest.raises(Refused, match="50 times; at most 49"):
        look.looked(Subject(blip.model, "blip", Limits(passes=49)), paths[0], "red", "occlusion")
    blind = look.looked(subject("simvlm"), paths[0])
    assert shown(blind) == [] and "simvlm has nothing to show of a picture by itself" in blind.html


def test_what_speaks_for_a_class_is_named(paths: list[str]) -> None:
    torch.manual_seed(0)
    of = to_json(MaeConfig(VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, positions="sincos")))
    model = Model(PictureClassifier(ClassifierConfig("mae", of, ("cat", "dog", "<b>"))), Processor(VIEW))
    own = multiway.explain(model, SOURCE.image(0), kinds=["class-cam"])["class-cam"]
    found = look.looked(Subject(model, "classifier"), paths[0])
    named = f"class-cam: {escape(own.chosen)} {own.score:.0%}"
    assert (named, drawn("class-cam", own.heat)) in shown(found) and "<b>" not in found.html
    one = look.looked(Subject(model, "classifier"), paths[0], kind="class-cam", layer="0")
    assert one.layers == [look.OWN, "0", "1"] and shown(one)[0] != shown(found)[-1]


def test_what_is_filled_in_is_measured(paths: list[str]) -> None:
    found = Subject(Model(built("mae"), Processor(VIEW, None)), "mae")
    html = filling.filled_in(found, paths[0], 50, 7)
    images = found.model.processor.images([SOURCE.image(0)])
    one = reconstruct(found.model.method, images, 0.5, 7)
    wrong, even, count = 0.0, 0.0, 0
    for place, hidden in enumerate(one.mask[0].tolist()):  # patch by patch
        top, left = 4 * (place // 4), 4 * (place % 4)
        if hidden:
            patch = images[0, :, top : top + 4, left : left + 4]
            wrong += float((one.filled[0, :, top : top + 4, left : left + 4] - patch).square().sum())
            even += float(patch.square().sum())
            count += patch.numel()
    assert filling.errors(one) == pytest.approx((wrong / count, even / count), rel=1e-4)
    assert "50% hidden" in html and f"{wrong / count:.3f}" in html
    assert filling.filled_in(found, paths[0], 50, 8) != html
    for ratio in (0, 100):
        with pytest.raises(Refused, match="more than 0 and less than 100"):
            filling.filled_in(found, paths[0], ratio)


def test_curves_are_those_of_the_journal(tiny_run: Path) -> None:
    run = Run.read(tiny_run)
    drawn: list[int] = []

    def plots(metrics: list[dict]) -> list[tuple[str, str]]:
        drawn.append(len(metrics))
        return [("loss", "<svg></svg>")]

    found = Subject(load(tiny_run), "tiny", run=run, plots=plots)
    html = curves.drawn(found)
    assert drawn == [len(run.metrics())] and "<svg></svg>" in html and "30 of 30" in html
    assert f"{run.metrics()[-1]['loss']:.3f}" in html and "too short a run to tell" in html
    assert "Curves" in [tab.title for tab in tabs_of(found)]
    with pytest.raises(Refused, match="run's folder"):
        curves.drawn(Subject(found.model, "file"))


def test_pictures_are_opened_within_the_limits(tmp_path: Path) -> None:
    found = subject("clip", Limits(pixels=1000))
    Image.new("RGB", (40, 26)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 25)).save(tmp_path / "fits.png")
    (tmp_path / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert found.opened(str(tmp_path / "fits.png")).size == (40, 25)
    for name, told in (("large.png", "40x26"), ("drawing.png", "SVG")):
        with pytest.raises(BadRow, match=told) as refused:
            found.opened(str(tmp_path / name))
        assert str(tmp_path) not in str(refused.value), "a visitor learns where uploads are kept"


def test_everything_is_escaped(clip: Subject, paths: list[str]) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    for html in (
        classify.classified(clip, paths[0], f"{hostile}\nb"), similarity.compared(clip, paths, hostile), problem(hostile),
    ):  # fmt: skip
        assert "<img src=x" not in html and "&lt;img" in html
    # Words are told apart at brackets, which are none.
    seen = look.looked(clip, paths[0], hostile, word="2. img")
    assert seen.word == "2. img" and "“img”" in seen.html and "<img src=x" not in seen.html


def test_numbers_are_for_people() -> None:
    assert [number(each) for each in (0.1234, -0.5, -0.0001)] == ["0.123", "−0.500", "0.000"]
    assert [number(each, 2, sign=True) for each in (1.0, -1.0, -0.001)] == ["+1.00", "−1.00", "0.00"]
