"""The parts that a method consists of, by the names that people call them by: `image`, `text`, `fusion`, ...

A part is what the method has one attribute for, be it an encoder, a head or a single parameter. A trained copy beside a momentum
twin is looked into: `student.image` is the part `image`. What training makes for itself (`Method.own_state`) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from multiway.methods.method import Method

__all__ = ["bare", "freeze", "part_of", "parts_of"]

# A trained copy beside a momentum twin stands one level deeper than the same part of a method without one.
_STUDENT = "student."


def bare(name: str) -> str:
    """A tensor's name as a method without a twin has it."""
    return name.removeprefix(_STUDENT)


def part_of(name: str) -> str:
    """The part that a tensor belongs to, by its name."""
    return bare(name).partition(".")[0]


def parts_of(names: Iterable[str], own: Sequence[str] = ()) -> list[str]:
    """The parts that tensors belong to, in order.

    Args:
        names: of a method's tensors.
        own: beginnings of names of its own state.
    """
    return list(dict.fromkeys(part_of(name) for name in names if not name.startswith(tuple(own))))


def freeze(method: Method, part: str) -> nn.Module | None:
    """Let a part learn nothing, and be read as in evaluation: without dropout, and by the statistics that it has.

    Args:
        part: one of `parts_of`.

    Returns:
        The module, in evaluation mode; None for a part that is a single parameter.
    """
    for name, parameter in method.named_parameters(remove_duplicate=False):
        if part_of(name) == part and not name.startswith(method.own_state):
            parameter.requires_grad_(False)
    modules = dict(method.named_modules(remove_duplicate=False))
    found = modules.get(_STUDENT + part, modules.get(part))
    return None if found is None else found.eval()
