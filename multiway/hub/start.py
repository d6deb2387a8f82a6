"""Starting one run from another's weights: `--init`.

Every tensor of both sides is accounted for: taken, taken after its positions were interpolated to another grid, kept at its
random start, or left in the file. The last two happen only to tensors that were named (`--init-except`), so that nothing is
lost because a part was renamed. What training makes for itself, twins and queues, is neither asked for nor taken: the twin
of the new method starts as its student does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.hub.file import WeightsError
from multiway.methods.method import Method
from multiway.nn.patch import resize_positions

__all__ = ["Started", "start_from", "weights_hash"]

# A trained copy beside a momentum twin stands one level deeper than the same part of a method without one.
_STUDENT = "student."
_SHOWN = 8


@dataclass(frozen=True)
class Started:
    """Where the tensors of a method came from, by name.

    Attributes:
        taken: equal names (but for `student.`) and shapes.
        resized: positions that were interpolated.
        new: kept at their random start, as was allowed.
        left: tensors of the file that have no use here, as was allowed.
        numbers: how many numbers were taken or resized, and how many the method has without its own state.
    """

    taken: tuple[str, ...]
    resized: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    numbers: tuple[int, int]

    def __str__(self) -> str:
        said = [f"{len(self.taken)} tensors taken"]
        for names, what in ((self.resized, "resized"), (self.new, "new"), (self.left, "left out")):
            if names:
                said.append(f"{len(names)} {what} ({_some(names, 3)})")
        return ", ".join(said) + f"; {self.numbers[0] / max(1, self.numbers[1]):.1%} of the method's numbers"


def start_from(
    method: Method, tensors: Mapping[str, Tensor], source: str, excepted: Sequence[str] = (), own: Sequence[str] = ()
) -> Started:
    """Copy another model's tensors into a method.

    Args:
        method: freshly built; changed in place.
        tensors: the other model's state.
        source: what messages call it.
        excepted: regular expressions; a tensor of either side in whose name one is found is not copied.
        own: beginnings of names of the other model's own state (`Method.own_state`).

    Raises:
        WeightsError: if a tensor is left over on either side, or has another shape, and no expression allows it; if an
            expression is none, or fits nothing.
    """
    patterns = _compiled(excepted, [*method.state_dict(), *tensors])
    wanted = {name: each for name, each in method.state_dict().items() if not name.startswith(method.own_state)}
    offered = {_bare(name): (name, each) for name, each in tensors.items() if not name.startswith(tuple(own))}
    taken, resized, new, shapes = [], [], [], []
    for name, mine in wanted.items():
        theirs = None if any(p.search(name) for p in patterns) else offered.pop(_bare(name), None)
        if theirs is None:
            new.append(name)
        elif theirs[1].shape == mine.shape:
            mine.copy_(theirs[1])
            taken.append(name)
        elif (positions := _positions(name, theirs[1], mine)) is not None:
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
        lines = "; ".join(f"{what}: {_some(names, _SHOWN)}" for what, names in wrong.items() if names)
        raise WeightsError(
            f"{source} does not fit {type(method).__name__}; {lines}. If they may start at random, or stay unused, name "
            "them: --init-except 'PATTERN' ..."
        )
    method.started()
    copied = sum(wanted[name].numel() for name in (*taken, *resized))
    everything = sum(each.numel() for each in wanted.values())
    return Started(tuple(taken), tuple(resized), tuple(new), tuple(left), (copied, everything))


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits over names, shapes and values: which weights a run began from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _bare(name: str) -> str:
    return name.removeprefix(_STUDENT)


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")


def _compiled(patterns: Sequence[str], names: Sequence[str]) -> list[re.Pattern[str]]:
    compiled = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise WeightsError(f"--init-except {pattern!r} is no regular expression: {error}") from error
        if not any(expression.search(name) for name in names):
            raise WeightsError(
                f"--init-except {pattern!r} fits no tensor of either side; they are named like {_some(names, 4)}"
            )
        compiled.append(expression)
    return compiled


def _positions(name: str, theirs: Tensor, mine: Tensor) -> Tensor | None:
    """Another grid's positions for this one; None where the tensors are no positions of square grids."""
    grids = [math.isqrt(len(each)) for each in (theirs, mine)] if theirs.ndim == mine.ndim == 2 else [0, 0]
    square = all(side and side**2 == len(each) for side, each in zip(grids, (theirs, mine), strict=True))
    if (
        not (name == "positions" or name.endswith(("image.positions", "pictures.positions")))
        or not square
        or theirs.shape[1] != mine.shape[1]
    ):
        return None
    return resize_positions(theirs, (grids[0],) * 2, (grids[1],) * 2)
