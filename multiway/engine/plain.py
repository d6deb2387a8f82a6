"""Numbers as strict JSON and back, nothing lost: finite floats in full precision, the others as words.

JSON has no NaN and no infinity; Python writes them all the same, and other readers then choke on the file. Here they
become the strings "nan", "inf" and "-inf", which is unambiguous because those three strings are refused as values.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

__all__ = ["from_plain", "to_plain"]

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_plain(value: Any, where: str = "value") -> Any:
    """A tree of dicts, lists, strings and numbers as JSON values; one-element tensors and NumPy scalars become numbers.

    Args:
        where: prefix of names in messages.

    Raises:
        TypeError: naming what has no place in JSON and would come back as something else.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, str):
        if value in _WORDS:
            raise TypeError(f"{where} is the string {value!r}, which stands for a float here; give float({value!r})")
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; JSON keys are strings: use str(key), or a list of pairs")
        return {key: to_plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    # A 0-dimensional tensor or a NumPy scalar; duck-typed, since NumPy's scalars have no common name worth importing.
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return to_plain(value.detach().item() if isinstance(value, Tensor) else value.item(), where)
    raise TypeError(
        f"{where} is of type {type(value).__name__}, which JSON lacks; expected None, bool, int, float, str, list, dict "
        "or a 0-dimensional tensor (longer tensors belong among the tensors of a checkpoint)"
    )


def from_plain(value: Any) -> Any:
    """What `to_plain` was given, tuples having become lists."""
    if isinstance(value, str):
        return _WORDS.get(value, value)
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value
