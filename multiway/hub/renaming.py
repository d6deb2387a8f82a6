"""A layout as a table of rules (`hub/rules.py`): which tensors of theirs are which of ours, both ways.

The tensors that are asked for are those of our model, built from their configuration; a tensor without a rule on either side is an
error (`hub/accounting.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.hub.accounting import Accounting, Report, some
from multiway.hub.file import WeightsError, assign
from multiway.hub.rules import Rule, filled
from multiway.methods.method import Method
from multiway.nn.mae_decoder import MaeDecoder
from multiway.nn.vit import VisionTransformer

__all__ = ["Table", "fill", "renamed", "state_of"]

log = logging.getLogger(__name__)

_TOLERANCE = 1e-5  # by which sines and cosines of another library may differ


@dataclass(frozen=True)
class Table:
    """A layout.

    Attributes:
        kind: what it is of: a class of theirs, or a release.
        rules: the first that fits a name of ours counts.
        copies: (copy, original): tensors of theirs that are written twice, and have to be equal when read.
        empty: (regular expression, why): theirs that carry nothing.
        apart: (regular expression, what): parts of theirs that this model does without; it is said aloud what is left behind.
    """

    kind: str
    rules: Sequence[Rule]
    copies: Sequence[tuple[str, str]] = ()
    empty: Sequence[tuple[str, str]] = (
        (r"position_ids$", "position numbers 0, 1, 2, ..."),
    )  # which old versions stored
    apart: Sequence[tuple[str, str]] = ()

    def read(
        self,
        theirs: Mapping[str, Tensor],
        own: Sequence[str],
        source: str = "",
        allow: Sequence[str] = (),
        excused: Sequence[str] = (),
    ) -> tuple[dict[str, Tensor], Report]:
        """Their tensors under our names.

        Args:
            theirs: by name.
            own: names of ours that are asked for.
            source: for messages.
            allow: see `hub/accounting.py`.
            excused: beginnings of names of ours that need not be there, being made by training.

        Raises:
            WeightsError: naming tensors that are missing or left over.
        """
        account = Accounting(theirs, self.kind, source, allow)
        originals = self._take_copies(account, theirs)
        for pattern, why in (*self.empty, *self.apart):
            account.set_aside([name for name in account.names() if re.search(pattern, name)], why)
        for _, what in self.apart:
            if names := account.aside(what):
                log.warning("left behind, %s: %s", what, some(sorted(names), 6))
        ours: dict[str, Tensor] = {}
        done: set[str] = set()
        for name in own:
            if name in done:
                continue
            found = self._rule_of(name)
            if found is None:
                if not name.startswith(tuple(excused)):
                    account.unknown(name)
                continue
            rule, mine, others = found
            done.update(mine)
            if name.startswith(tuple(excused)) and not any(each in account for each in others):
                continue
            # One of two that are written twice may be there alone.
            taken = account.take_all([originals.get(each, each) for each in others], [n for n in mine if n in own])
            if taken is not None:
                ours |= {n: each for n, each in zip(mine, rule.read(taken), strict=True) if n in own}
        return ours, account.close(list(ours))

    def write(self, ours: Mapping[str, Tensor], leave: Sequence[str] = ()) -> dict[str, Tensor]:
        """Our tensors under their names.

        Args:
            ours: by name, fixed positions included (`state_of`).
            leave: regular expressions of ours that theirs has no place for.

        Raises:
            WeightsError: if one of ours has no place in theirs and was not to be left.
        """
        theirs: dict[str, Tensor] = {}
        done: set[str] = set()
        homeless = []
        for name in ours:
            if name in done or any(re.search(pattern, name) for pattern in leave):
                continue
            found = self._rule_of(name)
            if found is None or any(each not in ours for each in found[1]):
                homeless.append(name)
                continue
            rule, mine, others = found
            done.update(mine)
            theirs |= dict(zip(others, rule.write([ours[each].detach() for each in mine]), strict=True))
        if homeless:
            raise WeightsError(f"a {self.kind} has no place for {some(homeless, 8)}")
        for copy, original in self.copies:
            pattern = re.escape(original).replace(r"\*", r"(\d+)")
            for name in list(theirs):
                if found_again := re.fullmatch(pattern, name):
                    theirs[filled(copy, found_again.groups())] = theirs[name]
        return theirs

    def has(self, name: str) -> bool:
        """Whether there is a rule for a tensor of ours."""
        return self._rule_of(name) is not None

    def _rule_of(self, name: str) -> tuple[Rule, list[str], list[str]] | None:
        for rule in self.rules:
            numbers = rule.numbers(name)
            if numbers is not None:
                return rule, *rule.names(numbers)
        return None

    def _take_copies(self, account: Accounting, theirs: Mapping[str, Tensor]) -> dict[str, str]:
        """Copies that differ are refused; the others are set aside, unless the original is not there: then they stand for it."""
        instead: dict[str, str] = {}
        for copy, original in self.copies:
            pattern = re.escape(copy).replace(r"\*", r"(\d+)")
            for name in account.names():
                found = re.fullmatch(pattern, name)
                if not found:
                    continue
                first = filled(original, found.groups())
                if first not in theirs:
                    instead[first] = name
                elif torch.equal(theirs[first], theirs[name]):
                    account.set_aside([name], "written twice")
                else:
                    raise WeightsError(f"{name} differs from {first}, to which it is tied in a {self.kind}")
        return instead


# Tables and methods.


def fill(
    method: Method,
    table: Table,
    theirs: Mapping[str, Tensor],
    source: str = "",
    allow: Sequence[str] = (),
    lacks: Sequence[str] = (),
) -> Report:
    """Copy a checkpoint into a freshly built method.

    Args:
        method: is changed.
        table: its layout.
        theirs: by name.
        source: for messages.
        allow: see `hub/accounting.py`.
        lacks: beginnings of names of ours that this kind of checkpoint has nothing for, and that the method hides.

    Raises:
        WeightsError: naming tensors that are missing, left over, or of another shape; or fixed positions that are others.
    """
    own, fixed = method.state_dict(), _fixed(method)
    excused = (*method.own_state, *lacks)
    ours, report = table.read(theirs, [*own, *fixed], source, allow, excused)
    for name, wanted in fixed.items():
        if name in ours and not _alike(ours.pop(name), wanted):
            raise WeightsError(
                f"{source or 'the checkpoint'} has other positions in {name} than the sines and cosines that its config means; is it "
                "whole?"
            )
    kept = [name for name in own if name not in ours and (name.startswith(excused) or name in report.new)]
    assign(method, {**{name: own[name] for name in kept}, **ours}, source or "the checkpoint")
    method.started()
    return report


def renamed(table: Table, theirs: Mapping[str, Tensor], make: Callable[[], Method]) -> dict[str, Tensor]:
    """Their tensors under our names, for who has a model of theirs in memory.

    Args:
        table: the layout.
        theirs: by name.
        make: builds the method, of which the names alone are wanted; what theirs has no counterpart of is left out.

    Raises:
        WeightsError: naming tensors that are missing or left over.
    """
    with torch.device("meta"):
        method = make()
    own, fixed = method.state_dict(), _fixed(method)
    ours, _ = table.read(theirs, [name for name in [*own, *fixed] if table.has(name)])
    return {name: each for name, each in ours.items() if name not in fixed}


def state_of(method: torch.nn.Module) -> dict[str, Tensor]:
    """A part's tensors by name, fixed positions among them, which are made anew here and kept by others."""
    return {**method.state_dict(), **_fixed(method)}


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found.float() - wanted).abs().max() < _TOLERANCE)


def _fixed(method: torch.nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, part in method.named_modules():
        here = f"{name}." if name else ""
        places = part.positions if isinstance(part, VisionTransformer | MaeDecoder) else None
        if places is not None and not isinstance(places, torch.nn.Parameter):
            found[f"{here}positions"] = places
            if isinstance(part, MaeDecoder) and part.class_position is None:
                found[f"{here}class_position"] = torch.zeros_like(places[0])
    return found
