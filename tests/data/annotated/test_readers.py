"""Readers of original files: what is written is read, word for word and picture for picture, and what is wrong has an address."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures
from annotated.miniatures import all_of, few, said

from multiway.data.annotated.gqa import open_gqa
from multiway.data.annotated.nlvr2 import open_nlvr2
from multiway.data.annotated.snli_ve import open_snli_ve
from multiway.data.annotated.visual_genome import open_visual_genome
from multiway.data.annotated.vqa import open_vqa
from multiway.data.examples import Examples, HasNotes
from multiway.data.source import BadRow, DataError, held_out_split, stable_id

CASES = {
    "vqa train": (miniatures.write_vqa, open_vqa, "train", "questions"),
    "vqa val": (miniatures.write_vqa, open_vqa, "val", "questions"),
    "vqa test": (miniatures.write_vqa, open_vqa, "test", "questions"),
    "vqa test-dev": (miniatures.write_vqa, open_vqa, "test-dev", "questions"),
    "gqa testdev": (miniatures.write_gqa, open_gqa, "testdev", "questions"),
    "gqa test": (miniatures.write_gqa, open_gqa, "test", "questions"),
    "snli-ve train": (miniatures.write_snli_ve, open_snli_ve, "train", "entailment"),
    "snli-ve val": (miniatures.write_snli_ve, open_snli_ve, "val", "entailment"),
    "nlvr2 train": (miniatures.write_nlvr2, open_nlvr2, "train", "statements"),
    "nlvr2 val": (miniatures.write_nlvr2, open_nlvr2, "val", "statements"),
    "nlvr2 test": (miniatures.write_nlvr2, open_nlvr2, "test", "statements"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read(case: str, tmp_path: Path) -> None:
    write, opener, split, annotation = CASES[case]
    written = few(annotation, split=split)
    wanted = write(tmp_path, split, written)
    found = opener(tmp_path, split)
    assert isinstance(found, Examples) and isinstance(found, HasNotes)
    assert said(all_of(found)) == wanted and len(wanted) > 7
    assert (found.split, found.rejected) == (split, ())
    assert found.labels == written.labels and found.kind == written.kind
    [note] = found.notes
    assert f"{len(wanted)} of " in note
    # Each example's pictures are those of the scene it was written from, but for JPEG's loss.
    for one, other in zip(all_of(found), all_of(written), strict=True):
        for here, there in zip(one.pictures, other.pictures, strict=True):
            drawn = written.pictures.squares(np.array([there]), miniatures.SIDE)[0].astype(int)
            assert np.abs(np.asarray(found.pictures.image(here)).astype(int) - drawn).mean() < 6
    named = {each.where for each in all_of(found)}
    assert len(named) == len(wanted) and all(".json" in where for where in named)


def test_visual_genome_is_held_out_by_picture(tmp_path: Path) -> None:
    wanted = miniatures.write_visual_genome(tmp_path, few("questions", 120, world="easy"))
    everything = open_visual_genome(tmp_path, "all")
    assert said(all_of(everything)) == wanted
    parts = {split: open_visual_genome(tmp_path, split) for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(wanted)
    for split, part in parts.items():
        for each in all_of(part):
            image = Path(part.pictures.files[each.pictures[0]]).stem
            assert held_out_split(stable_id(image)) == split
        assert part.notes == everything.notes, "the size is that of the file, whatever the split"
    miniatures.write_visual_genome(tmp_path / "small", few("questions", 2))
    with pytest.raises(DataError, match=r"none of its 8 questions.*small@all"):
        open_visual_genome(tmp_path / "small", "test")


def test_files_may_lie_where_their_authors_put_them(tmp_path: Path) -> None:
    wanted = miniatures.write_vqa(tmp_path / "a")
    (tmp_path / "a" / "Questions").mkdir()
    for path in (tmp_path / "a").glob("*questions.json"):
        path.rename(path.parent / "Questions" / path.name)
    pictures = (tmp_path / "a" / "val2014").rename(tmp_path / "pictures")
    found = open_vqa(tmp_path / "a", "val", pictures)
    assert said(all_of(found)) == wanted
    wanted_pairs = miniatures.write_snli_ve(tmp_path / "b")
    path = tmp_path / "b" / "snli_ve_dev.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:  # as the authors' first script wrote them
        row["Flikr30kID"] = row.pop("Flickr30K_ID") + ".jpg"
    (tmp_path / "b" / "snli_ve_dev.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    )
    path.unlink()
    assert said(all_of(open_snli_ve(tmp_path / "b", "val", tmp_path / "b" / "flickr30k-images"))) == wanted_pairs


def test_a_wrong_layout_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_vqa(tmp_path / "nowhere")
    (tmp_path / "readme.txt").write_text("")
    for opener, remedy in (
        (open_vqa, "visualqa.org"), (open_gqa, "gqa"), (open_snli_ve, "SNLI-VE"), (open_nlvr2, "lil-lab"),
        (open_visual_genome, "visualgenome"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=rf"readme\.txt.*{remedy}"):
            opener(tmp_path)
        with pytest.raises(DataError, match=r"no split 'validate'; it has train"):
            opener(tmp_path, "validate")
    miniatures.write_vqa(tmp_path)
    (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(DataError, match="answers of VQAv2's val"):
        open_vqa(tmp_path)
    with pytest.raises(DataError, match="images folder does not exist"):
        miniatures.write_nlvr2(tmp_path)
        open_nlvr2(tmp_path, "val", tmp_path / "nowhere")


def changed(path: Path, change) -> None:
    """A JSON file after `change`, which gets what it holds; lines become a list."""
    if path.suffix == ".jsonl" or path.name in ("dev.json", "train.json"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows)
        miniatures.write_lines(path, rows)
    else:
        value = json.loads(path.read_text())
        change(value)
        miniatures.write_json(path, value)


def only_loss(found) -> str:
    [lost] = found.rejected
    return str(lost)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda row: row.update(image_id=7), "no picture val2014/COCO_val2014_000000000007.jpg"),
        (lambda row: row.update(question="  "), "`question` is empty"),
        (lambda row: row.update(question=["why?"]), r"`question` is \['why\?'\] \(list\); expected text"),
        (lambda row: row.pop("question", None), "`question` is missing"),
        (lambda row: row.update(image_id=True), r"`image_id` is True \(bool\); expected a whole number"),
        (lambda row: row.update(image_id=-3), "at least 0"),
    ],
)  # fmt: skip
def test_a_bad_question_is_left_out_and_counted(change, complaint, tmp_path: Path) -> None:
    wanted = miniatures.write_vqa(tmp_path, "val", few("questions", 8))

    def both(file: dict) -> None:
        change((file.get("questions") or file.get("annotations"))[2])

    for path in tmp_path.glob("*.json"):
        changed(path, both)
    found = open_vqa(tmp_path)
    assert said(all_of(found)) == [
        replace(each, pictures=one.pictures)
        for each, one in zip([*wanted[:2], *wanted[3:]], all_of(found), strict=True)
    ]
    lost = [str(each) for each in found.rejected if "_questions.json, question 3" in str(each)]
    assert len(lost) == 1
    assert re.search(complaint, lost[0])


def test_questions_and_answers_belong_together(tmp_path: Path) -> None:
    wanted = miniatures.write_vqa(tmp_path, "val", few("questions", 8))
    questions, answers = sorted(tmp_path.glob("*.json"))

    def loss(path: Path, change) -> list[str]:
        before = path.read_text()
        changed(path, change)
        try:
            found = open_vqa(tmp_path)
        finally:
            path.write_text(before)
        assert set(map(repr, said(all_of(found)))) <= set(map(repr, wanted)) and len(found) >= len(wanted) - 1
        return [str(each) for each in found.rejected]

    [said_] = loss(answers, lambda file: file["annotations"].pop(5))
    assert "no answers to it" in said_
    [said_] = loss(questions, lambda file: file["questions"].pop(5))
    assert "annotations.json, annotation 6" in said_ and "no question of its id" in said_
    [said_] = loss(answers, lambda file: file["annotations"][5].update(image_id=1))
    assert "answers are about picture 1" in said_
    [said_] = loss(answers, lambda file: file["annotations"][5]["answers"].pop())
    assert "has not 10 answers" in said_
    [said_] = loss(questions, lambda file: file["questions"].insert(3, file["questions"][2]))
    assert "question 4: its id" in said_ and "is also that of v2_OpenEnded" in said_
    with pytest.raises(DataError, match="is also answered in"):
        loss(answers, lambda file: file["annotations"].append(file["annotations"][0]))
    with pytest.raises(DataError, match="no list `annotations`"):
        loss(answers, lambda file: file.pop("annotations"))
    with pytest.raises(DataError, match=r"of 32 rows cannot be used.*10%"):
        loss(answers, lambda file: file["annotations"].__delitem__(slice(0, 4)))


def test_an_empty_answer_is_one_of_ten(tmp_path: Path) -> None:
    miniatures.write_vqa(tmp_path)
    [answers] = tmp_path.glob("*annotations.json")
    changed(answers, lambda file: file["annotations"][0]["answers"][3].update(answer=""))
    given = open_vqa(tmp_path).example(0).answers
    assert len(given) == 10 and given[3] == ""


def test_a_key_named_twice_loses_no_question_in_silence(tmp_path: Path) -> None:
    miniatures.write_gqa(tmp_path)
    [path] = tmp_path.glob("*/*.json")
    path.write_text(path.read_text().replace('"00000001"', '"00000000"', 1))
    with pytest.raises(DataError, match="'00000000' is there twice"):
        open_gqa(tmp_path)


def test_labels_are_words_or_truth_values(tmp_path: Path) -> None:
    wanted = miniatures.write_nlvr2(tmp_path, "val", few("statements", 8))

    def rewritten(rows: list) -> None:
        for row in rows:
            row["label"] = row["label"] == "True"

    changed(tmp_path / "dev.json", rewritten)
    assert said(all_of(open_nlvr2(tmp_path))) == wanted
    changed(tmp_path / "dev.json", lambda rows: rows[0].update(label="perhaps"))
    assert "`label` is 'perhaps' (str); expected one of false, true" in only_loss(open_nlvr2(tmp_path))
    changed(tmp_path / "dev.json", lambda rows: rows[0].update(label="True", identifier="dev-1"))
    assert "expected split-set-pair-sentence" in only_loss(open_nlvr2(tmp_path))


def test_a_sentence_without_a_majority_is_left_out(tmp_path: Path) -> None:
    miniatures.write_snli_ve(tmp_path)
    changed(tmp_path / "snli_ve_dev.jsonl", lambda rows: rows[0].update(gold_label="-"))
    assert "expected one of entailment, neutral, contradiction" in only_loss(open_snli_ve(tmp_path, "val"))


def test_twins_are_the_pairs_of_one_sentence(tmp_path: Path) -> None:
    """As the authors' own script tells them: the identifier without its third part."""
    miniatures.write_nlvr2(tmp_path, "val", few("statements", 8))
    groups: dict[str, set[str]] = {}
    for each in all_of(open_nlvr2(tmp_path)):
        parts = each.key.split("-")
        parts[2] = ""
        groups.setdefault("-".join(parts), set()).add(each.twin)
    assert all(len(twins) == 1 for twins in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


def test_a_damaged_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    miniatures.write_gqa(tmp_path)
    found = open_gqa(tmp_path)
    (tmp_path / "images" / "n0.jpg").write_bytes(b"<html>")
    with pytest.raises(BadRow, match=r"n0\.jpg.*HTML"):
        found.pictures.image(0)
