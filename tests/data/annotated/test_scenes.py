"""Scenes through the interface of the benchmarks: what is said of a picture is true of that picture."""

import numpy as np
import pytest
from annotated.miniatures import all_of

from multiway.data.annotated.scenes import ANNOTATIONS, TRUTH, SceneExamples, open_scenes
from multiway.data.examples import Asked, Chosen, Examples, HasNotes, Judged, KnowsAnswered, Pointed
from multiway.data.scenes.entailment import LABELS
from multiway.data.scenes.parse import parse
from multiway.data.scenes.questions import questions
from multiway.data.scenes.source import Scenes
from multiway.data.source import DataError, DrawsBatches


@pytest.mark.parametrize("world", ["easy", "hard"])
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_every_annotation_satisfies_the_contract(annotation: str, world: str) -> None:
    own = ANNOTATIONS[annotation]
    kind = {"asked": Asked, "judged": Judged, "chosen": Chosen, "pointed": Pointed}[own.kind]
    for split in ("train", "val", "test"):
        found = open_scenes(annotation, split, f"{world},gallery=20")
        assert isinstance(found, Examples) and isinstance(found, HasNotes) and isinstance(found.pictures, DrawsBatches)
        assert isinstance(found, KnowsAnswered) == (split == "train")
        assert (found.kind, found.split, found.labels) == (own.kind, split, own.labels)
        some = [found.example(number) for number in range(20)]
        assert len({each.key for each in some}) == 20 and all(
            type(each) is kind and each.text and each.where for each in some
        )
        for each in some:
            assert len(each.pictures) == (2 if annotation == "statements" else 1)
            assert max(each.pictures) < len(found.pictures)
        drawn = found.pictures.squares(np.array(some[0].pictures), 128)
        for pixels, number in zip(drawn, some[0].pictures, strict=True):
            assert np.array_equal(pixels, np.asarray(found.pictures.image(number)))
    again = open_scenes(own.tasks[0], "test", f"{world},gallery=20")
    assert all_of(again) == all_of(found) and again.fingerprint == found.fingerprint
    assert found.fingerprint != open_scenes(annotation, "val", f"{world},gallery=20").fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_are_true_of_their_own_picture_alone(split: str) -> None:
    found = open_scenes("counterfactuals", split, "medium,gallery=20")
    labels = []
    for number in range(min(len(found), 120)):
        each = found.example(number)
        holds = parse(each.text).holds(found.pictures.scene(each.pictures[0]))
        assert holds == (TRUTH[each.label] == "true")
        labels.append(each.label)
    assert 0.3 < np.mean(labels) < 0.7
    if split == "test":
        for one, two, three, four in zip(*[iter(all_of(found))] * 4, strict=True):
            assert one.twin == two.twin == three.twin == four.twin
            assert [each.label for each in (one, two, three, four)] == [1, 0, 0, 1]
            assert (one.text, two.text) == (three.text, four.text)
            assert one.pictures == two.pictures != three.pictures == four.pictures


def test_twins_are_true_once() -> None:
    opened, source = open_scenes("statements", "test", "medium,gallery=30"), Scenes.open("test", "medium,gallery=30")
    found = all_of(opened)
    twins: dict[str, list[Judged]] = {}
    for each in found:
        twins.setdefault(each.twin, []).append(each)
    assert len(twins) > 20
    for one, other in twins.values():
        assert one.text == other.text and {one.label, other.label} == {0, 1} and one.pictures != other.pictures
        row = int(one.key.split("-")[1])
        assert opened.pictures.scene(one.pictures[0]) == source.scene(row)
        assert opened.pictures.scene(one.pictures[1]) == source.scene((row + 1) % 30)


def test_questions_are_those_of_the_rows_scene() -> None:
    found, source = open_scenes("questions", "val", "medium,gallery=10"), Scenes.open("val", "medium,gallery=10")
    assert [found.pictures.scene(number) for number in range(10)] == [source.scene(row) for row in range(10)]
    for each in all_of(found):
        asked = {one.text: one for one in questions(source.scene(each.pictures[0]), 4)}
        assert (
            each.answers == asked[each.text].answers and each.group == asked[each.text].kind and len(each.answers) == 10
        )


def test_expressions_choose_among_all_things() -> None:
    found = open_scenes("expressions", "val", "hard,gallery=20")
    for each in all_of(found):
        things = found.pictures.scene(each.pictures[0]).things
        assert each.candidates == tuple(thing.box for thing in things) and each.boxes[0] in each.candidates


def test_every_picture_has_each_label_of_entailment() -> None:
    found = all_of(open_scenes("entailment", "val", "gallery=10"))
    assert [LABELS[each.label] for each in found[:3]] == list(LABELS) and len(found) == 30


def test_training_is_endless_and_the_same_in_any_order() -> None:
    found, other = open_scenes("statements", "train"), open_scenes("nlvr2", "train")
    assert isinstance(found, SceneExamples) and len(found) == 1_000_000
    there = [found.example(number) for number in (999_999, 5, 0)]
    assert [other.example(number) for number in (0, 5, 999_999)] == there[::-1]
    assert found.fingerprint == other.fingerprint != open_scenes("entailment", "train").fingerprint
    with pytest.raises(IndexError, match="which has 1,000,000"):
        found.example(1_000_000)


def test_what_a_world_cannot_say_is_refused() -> None:
    with pytest.raises(DataError, match=r"not annotated for 'captioning'; they have questions \(vqa"):
        open_scenes("captioning")
    with pytest.raises(DataError, match="no difficulty or option"):
        open_scenes("vqa", "test", "harder")
    with pytest.raises(DataError, match="no split"):
        open_scenes("vqa", "dev")
