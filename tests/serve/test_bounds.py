"""What the document says of a field is what is held: at the bound a request passes, one above it does not, for every route."""

from __future__ import annotations

from typing import Any

import pytest
from served import b64

from multiway.serve import schemas
from multiway.serve.answers import ROUTES
from multiway.serve.bounds import require_limits, rows_of, schema_of
from multiway.serve.limits import Limits
from multiway.serve.problems import Problem

LIMITS = Limits(pictures=3, texts=4, labels=5, characters=6, tokens=41, top=12)
REQUIRED: dict[str, Any] = {"images": [b64(0)], "texts": ["a"], "image": b64(0), "question": "a"}


def cases() -> list[tuple[Any, str, Any, Any]]:
    """Route, field, its largest value and one above."""
    found: list[tuple[Any, str, Any, Any]] = []
    for route in ROUTES:
        for name, field in schema_of(route.body, LIMITS)["properties"].items():
            if "maxItems" in field:
                item = b64(0) if name == "images" else "{}"
                found.append((route, name, [item] * field["maxItems"], [item] * (field["maxItems"] + 1)))
            if name not in ("image", "images"):
                long = field.get("items", field).get("maxLength")
                if long:
                    largest, more = "x" * long, "x" * (long + 1)
                    many = "items" in field
                    found.append((route, name, [largest] if many else largest, [more] if many else more))
            if name in ("top", "max_length", "min_length"):
                found.append((route, name, field["maximum"], field["maximum"] + 1))
    return found


@pytest.mark.parametrize(
    ("route", "name", "largest", "more"), cases(), ids=lambda value: value if isinstance(value, str) else None
)
def test_the_document_states_what_is_held(route: Any, name: str, largest: Any, more: Any) -> None:
    needed = set(schema_of(route.body, LIMITS).get("required", ()))
    body = {field: REQUIRED[field] for field in needed}
    require_limits(route.body.model_validate(body | {name: largest}, strict=True), LIMITS)
    with pytest.raises(Problem) as refused:
        require_limits(route.body.model_validate(body | {name: more}, strict=True), LIMITS)
    assert refused.value.errors[0]["at"].startswith(name) and "at most" in refused.value.detail


def test_pictures_are_text_in_json_and_files_in_a_form() -> None:
    json = schema_of(schemas.Match, LIMITS)["properties"]["images"]["items"]
    form = schema_of(schemas.Match, LIMITS, form=True)["properties"]["images"]["items"]
    assert json["contentEncoding"] == "base64" and json["maxLength"] == LIMITS.body
    assert form["format"] == "binary" and "contentEncoding" not in form
    assert schema_of(schemas.Search, LIMITS)["properties"]["image"]["type"] == ["string", "null"]


def test_work_is_counted_in_pictures_and_texts() -> None:
    picture = b64(0)
    assert rows_of(schemas.Match(images=[picture] * 2, texts=["a"] * 3)) == 5
    assert rows_of(schemas.Caption(images=[picture] * 2, samples=4)) == 8
    assert rows_of(schemas.Ask(image=picture, question="what")) == 2
    assert rows_of(schemas.Search(text="a")) == 1
