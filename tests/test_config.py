from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.config import ConfigError, differences, digest, from_json, to_json


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    rate: float = 0.5


@dataclass(frozen=True)
class Other:
    depth: int = 3


@dataclass(frozen=True)
class Outer:
    part: Inner | Other = Inner()
    pair: tuple[float, float] = (0.9, 0.98)
    name: str = ""
    limit: int | None = None
    rules: tuple[tuple[str, float], ...] = ()


@given(
    st.builds(
        Outer,
        part=st.builds(Inner, kind=st.sampled_from("ab"), sizes=st.lists(st.integers(), max_size=4).map(tuple))
        | st.builds(Other, depth=st.integers()),
        name=st.text(),
        limit=st.none() | st.integers(),
        rules=st.lists(st.tuples(st.text(), st.floats(allow_nan=False)), max_size=3).map(tuple),
    )
)
def test_round_trip(config: Outer) -> None:
    assert from_json(Outer, to_json(config)) == config
    assert digest(config) == digest(from_json(Outer, to_json(config)))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"nmae": "x"}, "nmae"),
        ({"name": 3}, "name is 3; expected str"),
        ({"pair": [1.0]}, "pair has 1 entries; expected 2"),
        ({"part": {"kind": "c"}}, "kind is 'c'"),
        ({"limit": True}, "limit is True"),
        ([], "expected the fields of Outer"),
    ],
)
def test_errors_name_the_field(value: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        from_json(Outer, value)


def test_differences_are_dotted_and_complete() -> None:
    before, after = to_json(Outer()), to_json(Outer(part=Inner(kind="b"), name="n"))
    assert [(d.path, d.before, d.after) for d in differences(before, after)] == [
        ("part.kind", "a", "b"),
        ("name", "", "n"),
    ]
    assert differences(before, before) == []
    assert [d.path for d in differences({"a": 1}, {"b": 1})] == ["a", "b"]


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="set"):
        to_json({"x": {1, 2}})
