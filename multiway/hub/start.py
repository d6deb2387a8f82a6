"""Starting one run from another's weights: `--init`.

Every tensor of both sides is accounted for: taken, taken after its positions were interpolated to another grid, kept at its
random start, or left in the file. The last two happen only to tensors that were named (`--init-except`), so that nothing is
lost because a part was renamed. What training makes for itself, twins and queues, is neither asked for nor taken: the twin
of the new method starts as its student does.

Several models may give a part each (`start_parts`): the same holds within these parts, and the others start at random.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multiway.hub.accounting import compiled, some
from multiway.hub.file import WeightsError
from multiway.hub.resize import positions_for
from multiway.methods.method import Method
from multiway.methods.parts import bare, part_of, parts_of

__all__ = ["Offer", "Started", "start_from", "start_parts", "weights_hash"]

_SHOWN = 8


@dataclass(frozen=True)
class Offer:
    """A model's tensors.

    Attributes:
        source: what messages call it.
        tensors: its state.
        own: beginnings of names of its own state (`Method.own_state`).
    """

    source: str
    tensors: Mapping[str, Tensor]
    own: Sequence[str] = ()


@dataclass(frozen=True)
class Started:
    """Where the tensors of a method came from, by name.

    Attributes:
        taken: equal names (but for `student.`) and shapes.
        resized: positions that were interpolated.
        new: kept at their random start, as was allowed.
        left: tensors of the file that have no use here, as was allowed.
        numbers: how many numbers were taken or resized, and how many the method has without its own state.
        random: parts that no model was named for; all of them is at its random start.
    """

    taken: tuple[str, ...]
    resized: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    numbers: tuple[int, int]
    random: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{len(self.taken)} tensors taken"]
        for names, what in ((self.resized, "resized"), (self.new, "new"), (self.left, "left out")):
            if names:
                said.append(f"{len(names)} {what} ({some(names, 3)})")
        told = ", ".join(said) + f"; {self.numbers[0] / max(1, self.numbers[1]):.1%} of the method's numbers"
        return told + (f"; not named, so at random: {', '.join(self.random)}" if self.random else "")


def start_from(
    method: Method,
    tensors: Mapping[str, Tensor],
    source: str,
    excepted: Sequence[str] = (),
    own: Sequence[str] = (),
    *,
    texts: bool = False,
) -> Started:
    """Copy another model's tensors into a method.

    Args:
        method: freshly built; changed in place.
        tensors, source, own: see `Offer`.
        excepted: regular expressions; a tensor of either side in whose name one is found is not copied.
        texts: whether positions of texts of another length are interpolated (`nn.text.resize_text_positions`); they mean the n-th
            token, so that this is only right where training goes on with them.

    Raises:
        WeightsError: if a tensor is left over on either side, or has another shape, and no expression allows it; if an
            expression is none, or fits nothing.
    """
    patterns = compiled(excepted, [*method.state_dict(), *tensors], "--init-except")
    found = _copied(method, _wanted(method), Offer(source, tensors, own), patterns, texts)
    return _started(method, [found], ())


def start_parts(
    method: Method, offers: Mapping[str, Offer], excepted: Sequence[str] = (), *, texts: bool = False
) -> Started:
    """Copy a part each of several models into a method (`methods/parts.py` says what a part is).

    Args:
        method: freshly built; changed in place.
        offers: by name of the part, which the model calls the same; a network of pictures may be `image` in one and `backbone` in
            the other.
        excepted, texts: see `start_from`.

    Raises:
        WeightsError: for a part that the method or its model lacks, naming those that there are; and within the parts as of
            `start_from`.
    """
    names = [*method.state_dict(), *(name for each in offers.values() for name in each.tensors)]
    patterns = compiled(excepted, names, "--init-except")
    wanted = _wanted(method)
    here = parts_of(wanted)
    chosen = []
    for part, offer in offers.items():
        there = parts_of(offer.tensors, offer.own)
        if part not in there and _TOWERS.get(part) in there:
            offer = replace(offer, tensors={_as(part, name): each for name, each in offer.tensors.items()})
            there = parts_of(offer.tensors, offer.own)
        for whose, parts in ((type(method).__name__, here), (offer.source, there)):
            if part not in parts:
                raise WeightsError(
                    f"--init {part}={offer.source}: {whose} has no part {part!r}; there are: {', '.join(parts)}"
                )
        own = {name: each for name, each in offer.tensors.items() if part_of(name) == part}
        mine = {name: each for name, each in wanted.items() if part_of(name) == part}
        chosen.append((mine, Offer(f"{part} of {offer.source}", own, offer.own)))
    found = [_copied(method, mine, offer, patterns, texts) for mine, offer in chosen]
    return _started(method, found, [part for part in here if part not in offers])


# The network that reads pictures: what methods with texts call it, and those of pictures alone.
_TOWERS = {"image": "backbone", "backbone": "image"}


def _as(part: str, name: str) -> str:
    """A tensor's name where the tower is called `part`."""
    return part + bare(name).removeprefix(_TOWERS[part]) if part_of(name) == _TOWERS[part] else name


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits over names, shapes and values: which weights a run began from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


_Copied = tuple[list[str], list[str], list[str], list[str]]


def _wanted(method: Method) -> dict[str, Tensor]:
    return {name: each for name, each in method.state_dict().items() if not name.startswith(method.own_state)}


def _copied(
    method: Method, wanted: Mapping[str, Tensor], offer: Offer, patterns: Sequence[re.Pattern[str]], texts: bool
) -> _Copied:
    """Copy what fits: names that were taken, resized, and left on either side."""
    offered = {
        bare(name): (name, each) for name, each in offer.tensors.items() if not name.startswith(tuple(offer.own))
    }
    taken, resized, new, shapes = [], [], [], []
    for name, mine in wanted.items():
        theirs = None if any(p.search(name) for p in patterns) else offered.pop(bare(name), None)
        if theirs is None:
            new.append(name)
        elif theirs[1].shape == mine.shape:
            mine.copy_(theirs[1])
            taken.append(name)
        elif (positions := positions_for(method, name, theirs[1], mine, texts)) is not None:
            mine.copy_(positions)
            resized.append(name)
        else:
            shapes.append(f"{name} {tuple(theirs[1].shape)} instead of {tuple(mine.shape)}")
    left = [name for name, _ in offered.values()]
    wrong = {
        "missing": [name for name in new if not any(p.search(name) for p in patterns)],
        "left over": [name for name in left if not any(p.search(name) for p in patterns)],
        "of other shapes": shapes,
    }
    if any(wrong.values()):
        lines = "; ".join(f"{what}: {some(names, _SHOWN)}" for what, names in wrong.items() if names)
        raise WeightsError(
            f"{offer.source} does not fit {type(method).__name__}; {lines}. If they may start at random, or stay unused, name "
            "them: --init-except 'PATTERN' ..."
        )
    return taken, resized, new, left


def _started(method: Method, found: Iterable[_Copied], random: Sequence[str]) -> Started:
    taken, resized, new, left = (tuple(name for names in each for name in names) for each in zip(*found, strict=True))
    method.started()
    wanted = _wanted(method)
    copied = sum(wanted[name].numel() for name in (*taken, *resized))
    everything = sum(each.numel() for each in wanted.values())
    return Started(taken, resized, new, left, (copied, everything), tuple(random))
