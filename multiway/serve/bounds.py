"""The limits of the server on the fields of requests: held, and written into the document."""

from __future__ import annotations

from typing import Any

from multiway.serve.limits import Limits
from multiway.serve.problems import Problem
from multiway.serve.schemas import Asked

__all__ = ["require_limits", "rows_of", "schema_of"]

_ITEMS = {"images": "pictures", "texts": "texts", "labels": "labels", "templates": "pictures", "against": "texts"}
_WORDS = ("text", "question", "prompt", "texts", "labels", "templates", "against")
_NUMBERS = {"top": "top", "max_length": "tokens", "min_length": "tokens"}


def require_limits(asked: Asked, limits: Limits) -> None:
    """Refuse a request that has more of anything than the server takes.

    Raises:
        Problem: naming every field that does.
    """
    errors = []

    def check(name: str, value: int, most: int, what: str) -> None:
        if value > most:
            errors.append({"at": name, "detail": f"{value:,} {what}; at most {most:,} are taken"})

    for name in type(asked).model_fields:
        value = getattr(asked, name)
        if name in _ITEMS:
            check(name, len(value), getattr(limits, _ITEMS[name]), name)
        if name in _NUMBERS:
            check(name, value, getattr(limits, _NUMBERS[name]), "asked for")
        if name in _WORDS:
            for number, text in enumerate([value] if isinstance(value, str) else value):
                at = name if isinstance(value, str) else f"{name}.{number}"
                check(at, len(text), limits.characters, "characters")
    if errors:
        raise Problem(
            "invalid",
            f"{errors[0]['at']}: {errors[0]['detail']}" + (f", and {len(errors) - 1} more" if len(errors) > 1 else ""),
            "send several smaller requests; /v1/model lists the limits",
            errors[:20],
        )


def rows_of(asked: Asked) -> int:
    """How much work a request is, in pictures and texts."""
    lists = sum(len(getattr(asked, name, ())) for name in ("images", "texts"))
    single = sum(bool(getattr(asked, name, None)) for name in ("image", "text", "question"))
    return max(1, lists + single) * int(getattr(asked, "samples", 1))


def schema_of(body: type[Asked], limits: Limits, form: bool = False) -> dict[str, Any]:
    """The JSON schema of a request, with the limits as bounds.

    Args:
        form: of `multipart/form-data`, in which pictures are files.
    """
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["description"] = body.__doc__
    for name, field in schema["properties"].items():
        item = field.get("items", field)
        if name in _ITEMS:
            field["maxItems"] = getattr(limits, _ITEMS[name])
        if name in _WORDS:
            item["maxLength"] = limits.characters
        if name in _NUMBERS:
            field["maximum"] = getattr(limits, _NUMBERS[name])
        if name in ("image", "images"):
            optional = "anyOf" in item
            for each in item.pop("anyOf", [dict(item)]):
                if each.get("type") != "null":
                    item.update(each)
            item["maxLength"] = limits.body
            if optional:
                # A picture that is not given is left out, or null.
                item["type"] = ["string", "null"]
            if form:
                for key in [key for key in item if key not in ("title",)]:
                    del item[key]
                item |= {"type": "string", "format": "binary"}
                if name == "images":
                    field["items"] = item
    return schema
