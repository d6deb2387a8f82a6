"""Flickr30k Entities: marks, boxes of several chains, and XML that is none."""

from pathlib import Path

import pytest
from annotated import miniatures_regions as mini
from annotated.compared import drawn_alike, same
from annotated.miniatures import all_of, few
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.annotated.flickr30k_entities import open_flickr30k_entities, phrases_of
from multiway.data.source import BadRow


def test_flickr30k_entities(tmp_path: Path) -> None:
    written = few("expressions", 6)
    wanted = mini.write_flickr30k_entities(tmp_path, "val", written)
    found = open_flickr30k_entities(tmp_path, "val")
    same(found, wanted, "pictures")
    drawn_alike(found, written, all_of(written))
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
