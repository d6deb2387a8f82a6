"""Each of the second half of the readers by its name on the command line."""

from pathlib import Path

import pytest
from annotated import miniatures_b as mini

from multiway.data.annotated.open import READERS, open_examples
from multiway.data.source import DataError

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
