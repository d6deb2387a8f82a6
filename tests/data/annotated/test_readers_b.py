"""The second half of the readers: what is written is read, and what is peculiar to each benchmark."""

import dataclasses
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures_b as mini
from annotated.miniatures import SIDE, all_of, few, said
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.annotated.boxes import box_of_corners, box_of_size
from multiway.data.annotated.flickr30k_entities import open_flickr30k_entities, phrases_of
from multiway.data.annotated.open import READERS, open_examples
from multiway.data.annotated.pairs import open_aro, open_sugarcrepe, open_winoground
from multiway.data.annotated.plain_pickle import read_pickle
from multiway.data.annotated.refcoco import open_refcoco, open_refcoco_plus, open_refcocog
from multiway.data.annotated.vcr import open_vcr, words_of
from multiway.data.examples import Examples, HasNotes
from multiway.data.source import BadRow, DataError


def same(found: Examples, wanted: list, noun: str) -> None:
    assert isinstance(found, Examples) and isinstance(found, HasNotes)
    assert not found.rejected
    assert len(found) == len(wanted) > 3
    for one, other in zip(said(all_of(found)), wanted, strict=True):
        rounded = dataclasses.asdict(one), dataclasses.asdict(other)
        for boxes in ("boxes", "candidates"):
            pair = [each.pop(boxes, ()) for each in rounded]
            assert np.allclose(np.array(pair[0]), np.array(pair[1]), atol=1e-9)
        assert rounded[0] == rounded[1]
    [note] = found.notes
    assert f" of {note.split(' of ')[1].split()[0]} {noun}" in note


def drawn_alike(found: Examples, written: Examples, wanted: list, sources: list) -> None:
    """Each example's pictures are those of the scene it was written from, but for JPEG's loss."""
    for one, other in zip(all_of(found), sources, strict=True):
        for here, there in zip(one.pictures, other.pictures, strict=True):
            drawn = written.pictures.squares(np.array([there]), SIDE)[0].astype(int)
            assert np.abs(np.asarray(found.pictures.image(here)).astype(int) - drawn).mean() < 6


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_vcr(split: str, tmp_path: Path) -> None:
    written = few("choices", split=split)
    wanted = mini.write_vcr(tmp_path, split, written)
    found = open_vcr(tmp_path, split)
    same(found, wanted, "questions")
    drawn_alike(found, written, wanted, all_of(written))
    assert (found.example(0).label == -1) == (found.example(0).reason == -1) == (split == "test")


def test_vcr_regions_are_where_the_scene_has_them(tmp_path: Path) -> None:
    written = few("choices")
    mini.write_vcr(tmp_path, "val", written)
    found = open_vcr(tmp_path, "val", tmp_path / "vcr1images")
    for number, each in enumerate(all_of(written)):
        things = written.pictures.scene(each.pictures[0]).things
        regions = found.regions(number)
        assert [one.name for one in regions] == [f"{thing.shape} {place}" for place, thing in enumerate(things, 1)]
        assert np.allclose([one.box for one in regions], [thing.box for thing in things])
        left, top, right, bottom = regions[0].box
        assert np.allclose(regions[0].polygons[0], [(left, top), (right, top), (right, bottom)])


@pytest.mark.parametrize("change", ["gone", "no json", "fewer boxes", "outside", "no polygon"])
def test_vcr_regions_that_do_not_fit_have_an_address(change: str, tmp_path: Path) -> None:
    mini.write_vcr(tmp_path)
    found = open_vcr(tmp_path)
    path = tmp_path / "vcr1images" / found.metadata[0][0]
    values = json.loads(path.read_text())
    if change == "gone":
        path.unlink()
    elif change == "no json":
        path.write_text("{")
    else:
        values["boxes"] = values["boxes"][1:] if change == "fewer boxes" else values["boxes"]
        values["boxes"][:1] = [[900, 0, 950, 5, 0.5]] if change == "outside" else values["boxes"][:1]
        values["segms"][0] = 3 if change == "no polygon" else values["segms"][0]
        path.write_text(json.dumps(values))
    with pytest.raises(BadRow, match=r"val\.jsonl, line 1: .*still@"):
        found.regions(0)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Does", [2], "feel", "comfortable", "?"], "Does person 3 feel comfortable?"),
        ([[0, 1], "are", "n't", "here", "."], "person 1 and dog 2 aren't here."),
        ([[0, 1, 2], "'s", "car", "(", "red", ")"], "person 1, dog 2 and person 3's car (red)"),
    ],
)
def test_vcr_tokens_as_words(tokens: list, text: str) -> None:
    assert words_of(tokens, ["person", "dog", "person"]) == text


@pytest.mark.parametrize("tokens", [[[3]], [[-1]], [[True]], [[]], [7], [None], [], "a word", [["0"]], [["dog"]]])
def test_vcr_tokens_that_mean_nothing(tokens: object) -> None:
    with pytest.raises(BadRow, match="row"):
        words_of(tokens, ["person", "dog", "person"])


@pytest.mark.parametrize(
    ("name", "opener", "splits"),
    [
        ("refcoco", open_refcoco, ("train", "val", "testA", "testB")),
        ("refcoco+", open_refcoco_plus, ("train", "val", "testA", "testB")),
        ("refcocog", open_refcocog, ("train", "val", "test")),
    ],
)
def test_refcoco(name: str, opener, splits: tuple[str, ...], tmp_path: Path) -> None:
    written = few("expressions", 12)
    wanted = mini.write_refcoco(tmp_path, name, splits, written)
    for split in splits:
        found = opener(tmp_path, split)
        same(found, wanted[split], "expressions")
        assert all(each.boxes[0] in each.candidates for each in all_of(found))
        twice = [each for each in all_of(written) if splits[each.pictures[0] % len(splits)] == split for _ in (0, 1)]
        drawn_alike(found, written, wanted[split], twice)
    assert opener(tmp_path / name, splits[1], tmp_path / "train2014").fingerprint
    with pytest.raises(DataError, match=f"{name.replace('+', '.')} has no split 'testC'; it has train, val"):
        opener(tmp_path, "testC")


def test_refcoco_of_two_releases_is_refused(tmp_path: Path) -> None:
    mini.write_refcoco(tmp_path)
    path = tmp_path / "refcoco" / "instances.json"
    data = json.loads(path.read_text())
    for each in data["annotations"]:
        each["image_id"] += 1
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="of another picture"):
        open_refcoco(tmp_path, "val")


class _Evil:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('harm').touch()",))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_asks_for_a_class_is_refused_before_it_runs(protocol: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": 1}, _Evil()], protocol))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: this pickle asks for (__builtin__|builtins)\.eval"):
        read_pickle(path, list)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    value = [{"ref_id": 2**40, "sent": "ünï", "box": [1.5, None, True], "ids": (1, 2)}]
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "a.p", list) == value
    with pytest.raises(DataError, match="holds a list; expected a dict"):
        read_pickle(tmp_path / "a.p", dict)


def test_an_index_that_would_fill_memory_does_not(tmp_path: Path) -> None:
    """LONG_BINPUT with the greatest index there is: in the C interpreter, 32 GiB."""
    (tmp_path / "a.p").write_bytes(b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".")
    assert read_pickle(tmp_path / "a.p", list) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plain_pickle_or_refused(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.p"
    path.write_bytes(data)
    try:
        assert isinstance(read_pickle(path, list), list)
    except DataError as error:
        assert "any.p" in str(error)


def test_flickr30k_entities(tmp_path: Path) -> None:
    written = few("expressions", 6)
    wanted = mini.write_flickr30k_entities(tmp_path, "val", written)
    found = open_flickr30k_entities(tmp_path, "val")
    same(found, wanted, "pictures")
    drawn_alike(found, written, wanted, all_of(written))
    for each in all_of(found):
        assert each.sentence[each.start :].startswith(each.text)


def _by_tokens(line: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The marked line read word by word, as one would by hand."""
    words, found, inside = [], [], None
    for token in line.split():
        if token.startswith("[/EN#"):
            chain, *kinds = token.removeprefix("[/EN#").split("/")
            inside = (chain, kinds[0], [])
            continue
        if inside:
            inside[2].append(token.removesuffix("]"))
            if token.endswith("]"):
                found.append((inside[0], inside[1], " ".join(inside[2])))
                inside = None
            token = token.removesuffix("]")
        words.append(token)
    return " ".join(words), found


_WORDS = st.lists(st.sampled_from(["a", "red", "hat", ",", ".", "girl's", "(old)"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(_WORDS, st.integers(0, 999), st.sampled_from(["people", "other/scene"]), _WORDS), max_size=5))
def test_marks_are_read_as_word_by_word(parts: list) -> None:
    line = " ".join(f"{' '.join(a)} [/EN#{chain}/{kinds} {' '.join(b)}]" for a, chain, kinds, b in parts)
    sentence, phrases = phrases_of(line)
    assert (sentence, [(each.chain, each.kind, each.text) for each in phrases]) == _by_tokens(line)
    assert all(sentence[each.start :].startswith(each.text) for each in phrases)


@pytest.mark.parametrize(
    "line", ["[/EN#12 girl]", "a [/EN#12/people ]", "[/EN#12/people a girl", "[/EN#x/people a girl]"]
)
def test_marks_of_another_form(line: str) -> None:
    with pytest.raises(BadRow, match="not of the form"):
        phrases_of(line)


def test_boxes_of_several_chains_and_chains_of_several_boxes(tmp_path: Path) -> None:
    mini.write_flickr30k_entities(tmp_path)
    name = (tmp_path / "val.txt").read_text().split()[0]
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>51</xmax><ymax>101</ymax></bndbox>"
    objects = (
        f"<object><name>1</name><name>2</name>{box.format(1)}</object><object><name>2</name>{box.format(26)}</object>"
    )
    size = "<size><width>100</width><height>100</height></size>"
    (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (tmp_path / "Sentences" / f"{name}.txt").write_text("[/EN#1/people one] of [/EN#2/people two] .\n")
    one, two = all_of(open_flickr30k_entities(tmp_path))[:2]
    assert one.boxes == ((0.0, 0.0, 0.5, 1.0),)
    assert two.boxes == ((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.5, 1.0)) == two.candidates


def test_chains_that_no_annotation_lists_are_said(tmp_path: Path) -> None:
    wanted = mini.write_flickr30k_entities(tmp_path)
    name = (tmp_path / "val.txt").read_text().split()[0]
    path = tmp_path / "Sentences" / f"{name}.txt"
    path.write_text(path.read_text().replace("EN#10/", "EN#77/"))
    found = open_flickr30k_entities(tmp_path)
    assert len(found) < len(wanted) and "phrases of chains that the annotations do not list" in found.notes[-1]


def test_xml_with_entities_is_not_expanded(tmp_path: Path) -> None:
    wanted = mini.write_flickr30k_entities(tmp_path, "val", few("expressions", 20))
    name = (tmp_path / "val.txt").read_text().split()[0]
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    (tmp_path / "Annotations" / f"{name}.xml").write_text(bomb)
    found = open_flickr30k_entities(tmp_path)
    assert len(found) < len(wanted) and "document type" in str(found.rejected[0])


def test_winoground(tmp_path: Path) -> None:
    wanted = mini.write_winoground(tmp_path)
    found = open_winoground(tmp_path)
    same(found, wanted, "examples")
    assert found.labels == ("false", "true")
    scores = {}
    for each in all_of(found):
        scores.setdefault(each.twin, []).append(each.label)
    assert set(map(tuple, scores.values())) == {(1, 0, 0, 1)}, "the order that a Winoground score is computed from"


def test_a_row_of_winoground_is_used_whole_or_not_at_all(tmp_path: Path) -> None:
    mini.write_winoground(tmp_path, few("counterfactuals", 20))
    (tmp_path / "images" / "ex_1_img_1.png").unlink()
    found = open_winoground(tmp_path)
    assert not [each for each in all_of(found) if each.twin == "1"] and len(found.rejected) == 4
    assert len(found.pictures) == len({each.pictures[0] for each in all_of(found)}) + 1


@pytest.mark.parametrize("split", ["relation", "attribution"])
def test_aro_shows_the_part_that_is_meant(split: str, tmp_path: Path) -> None:
    written = few("counterfactuals", 6)
    wanted = mini.write_aro(tmp_path, split, written)
    found = open_aro(tmp_path, split)
    same(found, wanted, "pairs")
    for each, pair in zip(all_of(found), mini._pairs(written), strict=True):
        drawn = written.pictures.squares(np.array(pair[0].pictures), SIDE)[0].astype(int)
        shown = np.asarray(found.pictures.image(each.pictures[0])).astype(int)
        assert shown.shape == (SIDE, SIDE // 2, 3) and np.abs(shown - drawn[:, SIDE // 2 :]).mean() < 6


def test_a_part_outside_its_picture_is_a_bad_row(tmp_path: Path) -> None:
    mini.write_aro(tmp_path)
    path = tmp_path / "visual_genome_relation.json"
    path.write_text(path.read_text().replace(f'"bbox_x": {SIDE // 2}', '"bbox_x": 5000'))
    found = open_aro(tmp_path)
    with pytest.raises(BadRow, match="outside its 32 x 32 pixels"):
        found.pictures.image(0)


def test_sugarcrepe(tmp_path: Path) -> None:
    wanted = mini.write_sugarcrepe(tmp_path, few("counterfactuals", 12))
    for split, examples in wanted.items():
        same(open_sugarcrepe(tmp_path, split), examples, "pairs")
    everything = open_sugarcrepe(tmp_path, "test", tmp_path / "val2017")
    assert [each.key for each in all_of(everything)] == [each.key for several in wanted.values() for each in several]
    assert {each.group for each in all_of(everything)} == set(wanted)
    right = [each.label for each in all_of(everything)]
    assert 0.3 < sum(right) / len(right) < 0.7, "a model that always takes the first has no chance"


@given(st.tuples(*(st.floats(0, 1) for _ in range(4))), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_are_shares(given_box, width: int, height: int) -> None:
    left, right = sorted(given_box[:2])
    top, bottom = sorted(given_box[2:])
    pixels = (left * width, top * height, right * width, bottom * height)
    size = (pixels[0], pixels[1], pixels[2] - pixels[0], pixels[3] - pixels[1])
    if pixels[2] > pixels[0] and pixels[3] > pixels[1]:
        assert np.allclose(box_of_corners(pixels, width, height), (left, top, right, bottom))
        if size[2] > 1e-9 and size[3] > 1e-9:
            assert np.allclose(box_of_size(size, width, height), (left, top, right, bottom))
    else:
        with pytest.raises(BadRow, match="encloses nothing"):
            box_of_corners(pixels, width, height)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [1, 2, 3],
        "1234",
        [0, 0, 10**400, 1],
        [0, 0, float("nan"), 1],
        [0, 0, True, 1],
        [0, 0, 90, 5],
        [-9, 0, 5, 5],
    ],
)
def test_boxes_that_are_none(values: object) -> None:
    with pytest.raises(BadRow, match="the box"):
        box_of_corners(values, 50, 50)


def test_boxes_that_reach_over_the_edge_by_rounding_are_cut() -> None:
    assert box_of_size([-0.5, 0, 51.0, 50], 50, 50) == (0.0, 0.0, 1.0, 1.0)


def test_bytes_that_are_not_utf8_reject_the_expression_alone(tmp_path: Path) -> None:
    mini.write_refcoco(tmp_path, examples=few("expressions", 60))
    path = tmp_path / "refcoco" / "refs(unc).p"
    refs = pickle.loads(path.read_bytes())
    next(each for each in refs if each["split"] == "val")["sentences"][0]["sent"] = "a caf\ufffd"
    path.write_bytes(pickle.dumps(refs, 2))
    assert len(open_refcoco(tmp_path, "val").rejected) == 1


WRITERS = {
    "vcr": (mini.write_vcr, "val"),
    "refcoco": (mini.write_refcoco, "testA"),
    "refcoco+": (lambda at: mini.write_refcoco(at, "refcoco+"), "testB"),
    "refcocog": (lambda at: mini.write_refcoco(at, "refcocog", ("train", "val", "test")), "test"),
    "flickr30k-entities": (mini.write_flickr30k_entities, "val"),
    "winoground": (mini.write_winoground, "test"),
    "aro": (mini.write_aro, "relation"),
    "sugarcrepe": (mini.write_sugarcrepe, "add_obj"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_opened_by_its_name(name: str, tmp_path: Path) -> None:
    write, split = WRITERS[name]
    write(tmp_path)
    found = open_examples(f"{name}:{tmp_path}@{split}")
    assert len(found) > 3 and found.split == split and found.kind == READERS[name].kind
    assert found.name == f"{name}:{tmp_path}"
    with pytest.raises(DataError, match="it has "):
        open_examples(f"{name}:{tmp_path}@banana")


def test_a_box_that_belongs_to_no_picture_is_counted(tmp_path: Path) -> None:
    """It may be a candidate of any."""
    mini.write_refcoco(tmp_path, examples=few("expressions", 60))
    path = tmp_path / "refcoco" / "instances.json"
    data = json.loads(path.read_text())
    data["annotations"].append({"id": 7, "image_id": 7, "bbox": [0, 0, 5, 5]})
    path.write_text(json.dumps(data))
    assert "none of the file's images" in str(open_refcoco(tmp_path, "val").rejected[0])
    data["annotations"].append(data["annotations"][0])
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"instances\.json, annotation \d+: its id \d+ is also that of"):
        open_refcoco(tmp_path, "val")
