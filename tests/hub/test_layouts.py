"""The page on weights names every layout that there is, and the tables of layouts lead somewhere."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from multiway.hub.layouts import COUNTERPARTS, LAYOUTS, RELEASES, WRITERS
from multiway.hub.transformers_parts import PARTS
from multiway.methods import METHODS

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()


def test_the_page_names_every_layout() -> None:
    for kind in (*LAYOUTS, *COUNTERPARTS):
        assert f"`{kind}`" in PAGE or f"[{kind}]" in PAGE, kind
    for release in RELEASES:
        assert release in PAGE, release
    for kind, parts in PARTS.items():
        assert f"`{kind}`" in PAGE and all(f"#{part}" in PAGE for part in parts)
    assert all(f"--layout {name}" in PAGE or name in ("transformers", "multiway") for name in WRITERS)


def test_the_page_names_nothing_that_is_not_there() -> None:
    table = PAGE.split("| `model_type` |")[1].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        kinds = re.findall(r"(?:^\| |; |, )`([a-z_0-9]+)`", row.split(" | ")[0])
        assert kinds and set(kinds) <= set(LAYOUTS), row
    for test in re.findall(r"`(tests/[\w/*.]+\.py)`", PAGE):
        assert list(Path(__file__).parents[2].glob(test)), test


@pytest.mark.parametrize(
    "place", sorted({*LAYOUTS.values(), *COUNTERPARTS.values(), *(place for place, _ in RELEASES.values())})
)
def test_modules_do_what_their_table_says(place: str) -> None:
    module = import_module(place)
    for what, places in (
        ("from_transformers", LAYOUTS.values()), ("to_transformers", COUNTERPARTS.values()),
        ("from_state", [each for each, _ in RELEASES.values()]),
    ):  # fmt: skip
        assert place not in places or callable(getattr(module, what))


def test_methods_with_a_counterpart_are_methods() -> None:
    assert set(COUNTERPARTS) <= set(METHODS)
