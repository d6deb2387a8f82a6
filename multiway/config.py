"""Frozen dataclasses to JSON and back, their digest and identity, and the differences between two of them.

This module imports nothing of ours.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["LATER", "ConfigError", "Difference", "differences", "digest", "from_json", "identity_json", "to_json"]

T = TypeVar("T")

LATER: Mapping[str, bool] = types.MappingProxyType({"later": True})
"""`field(default=..., metadata=LATER)`: a field that configurations kept before it lack. Such a field needs a default that leaves
everything as it was, and that never changes."""


class ConfigError(ValueError):
    """A configuration that cannot be read or does not fit."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One field in which two configurations differ; `path` is dotted."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r} -> {self.after!r}"


def to_json(value: Any) -> Any:
    """A dataclass (or a tree of them) as plain JSON values; tuples become lists."""
    return _plain(value, lambda owner, field: True)


def identity_json(value: Any, later: Collection[str] = ()) -> Any:
    """`to_json` without the fields marked `LATER` that have their default: what was kept before there were any is still the same.

    Args:
        value: a dataclass, or a tree of them.
        later: names of further such fields of `value` itself, where its class keeps a list of them beside it.
    """

    def used(owner: Any, field: dataclasses.Field[Any]) -> bool:
        if not (field.metadata.get("later") or (owner is value and field.name in later)):
            return True
        if field.default is not dataclasses.MISSING:
            return bool(getattr(owner, field.name) != field.default)
        if field.default_factory is not dataclasses.MISSING:
            return bool(getattr(owner, field.name) != field.default_factory())
        raise ConfigError(
            f"{type(owner).__name__}.{field.name} is marked as later and has no default; what was kept before it has no value for it: "
            "give it the one that leaves everything as it was"
        )

    return _plain(value, used)


def _plain(value: Any, used: Callable[[Any, dataclasses.Field[Any]], bool]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), used)
            for field in dataclasses.fields(value)
            if used(value, field)
        }
    if isinstance(value, dict):
        return {str(key): _plain(item, used) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, used) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{value!r} of type {type(value).__name__} has no place in a configuration")


def from_json(kind: type[T], value: Any, where: str = "config") -> T:
    """Build `kind` from what `to_json` gave. Unknown and missing fields are errors, by name.

    Args:
        kind: the dataclass to build.
        value: parsed JSON.
        where: prefix of the field names in messages.

    Raises:
        ConfigError: naming the field, what was found and what was expected.
    """
    return _convert(kind, value, where)


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(kind, value, where)
    if origin is typing.Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin in (tuple, list):
        return _convert_sequence(kind, origin, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected an object")
        key_kind, item_kind = get_args(kind)
        return {_convert(key_kind, k, where): _convert(item_kind, v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, float, str) and type(value) is not kind:
        raise ConfigError(f"{where} is {value!r}; expected {kind.__name__}")
    return value


def _convert_union(kind: Any, value: Any, where: str) -> Any:
    if value is None and type(None) in get_args(kind):
        return None
    complaints = []
    for option in get_args(kind):
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except (ConfigError, TypeError, AttributeError) as error:
            complaints.append(str(error))
    raise ConfigError("; ".join(complaints))


def _convert_sequence(kind: Any, origin: type, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}; expected a list")
    args = get_args(kind)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(args) != len(value):
            raise ConfigError(f"{where} has {len(value)} entries; expected {len(args)}")
        return tuple(
            _convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
        )
    return origin(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _convert_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected the fields of {kind.__name__}")
    hints = _hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ConfigError(f"{where} has fields that {kind.__name__} lacks: {', '.join(unknown)}")
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks fields of {kind.__name__}: {', '.join(missing)}")
    return kind(**{name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields; its annotations are strings, which are evaluated once for all instances."""
    return get_type_hints(kind)


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that name a configuration: equal configurations share them on every machine."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """The leaves in which two JSON trees differ, with dotted paths, in order."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[Difference] = []
        for key in list(before) + [key for key in after if key not in before]:
            inner = f"{path}.{key}" if path else key
            found += differences(before.get(key), after.get(key), inner)
        return found
    return [] if before == after else [Difference(path, before, after)]
