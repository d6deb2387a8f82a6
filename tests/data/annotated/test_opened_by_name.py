"""Each of the second half of the readers by its name on the command line."""

from pathlib import Path

import pytest
from annotated import miniatures_pairs as pairs
from annotated import miniatures_regions as regions

from multiway.data.annotated.open import READERS, open_examples
from multiway.data.source import DataError

WRITERS = {
    "vcr": (regions.write_vcr, "val"),
    "refcoco": (regions.write_refcoco, "testA"),
    "refcoco+": (lambda at: regions.write_refcoco(at, "refcoco+"), "testB"),
    "refcocog": (lambda at: regions.write_refcoco(at, "refcocog", ("train", "val", "test")), "test"),
    "flickr30k-entities": (regions.write_flickr30k_entities, "val"),
    "winoground": (pairs.write_winoground, "test"),
    "aro": (pairs.write_aro, "relation"),
    "sugarcrepe": (pairs.write_sugarcrepe, "add_obj"),
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
