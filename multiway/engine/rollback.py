"""What follows many steps in a row whose loss or gradient is not finite: back to weights from before them, on with data after them.

One such step is skipped: neither weights nor momentum twin, queue or optimiser take part in it. Many in a row mean that the weights
themselves are spoilt, and skipping repeats for ever. As in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1), training
then takes up an earlier checkpoint and goes on with the batches *after* the bad ones: the step number moves on, so the learning rate
and the order of data stay what they are, and a run that is killed and replayed does the same at the same step.

Which steps were bad, and where the run went back to, is read from the journal; nothing else has to be remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.engine.agreement import ALONE, on_main
from multiway.engine.checkpoint import CheckpointError, load_into
from multiway.engine.retention import finished
from multiway.world import World

__all__ = ["Diverged", "Rollback"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Times that one checkpoint is gone back to before the run is given up."""


class Diverged(RuntimeError):
    """Losses are not finite for good. Names the steps, what was tried, and what to change."""


class Rollback:
    """Looks for skipped steps in a row; at `limit` it loads a checkpoint from before the first of them.

    Args:
        limit: steps in a row; 0 never goes back.
        root: the run's folder `checkpoints/`.
        targets: the live tensors of method and optimiser (`state.tensors_of`).
        say: where the sentence about it goes.
        lines: of metrics.jsonl at the start; every skipped step has one.
        settle: waits for a checkpoint that is being written, so that it can be gone back to like any other.
    """

    def __init__(
        self,
        limit: int,
        root: Path,
        targets: Mapping[str, Tensor],
        say: Callable[[str], None],
        lines: Sequence[Mapping[str, Any]] = (),
        world: World = ALONE,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        if limit < 0:
            raise ValueError(f"rollback after {limit} bad steps in a row; expected at least 1, or 0 for never")
        self.limit, self.root, self.targets, self.say, self.world = limit, root, targets, say, world
        self._settle = settle
        self._skipped = {int(line["step"]) for line in lines if line.get("skipped")}
        self._went = [(int(line["step"]), int(line["rolled_back_to"])) for line in lines if "rolled_back_to" in line]

    def after(self, step: int, applied: bool) -> dict[str, int]:
        """Called with every step that was skipped, and with any others. Every rank calls it alike.

        Args:
            step: steps done, this one included.
            applied: False if it was skipped.

        Returns:
            What the step's line of the journal says besides: `{"rolled_back_to": step}`, or nothing.

        Raises:
            Diverged: if there is no checkpoint from before the bad steps, or going back to it has not helped.
        """
        if applied:
            return {}
        self._skipped.add(step)
        first, since = step, self._went[-1][0] if self._went else -1
        while first - 1 in self._skipped and first - 1 > since:
            first -= 1
        if not self.limit or step - first + 1 < self.limit:
            return {}
        back = self._go_back(first, step)
        self._went.append((step, back))
        return {"rolled_back_to": back}

    def spoilt(self, step: int) -> bool:
        """Whether a checkpoint after `step` would hold weights that have just failed.

        Such a one is better not written: it is no place to go back to, and would push out one that is.
        """
        return bool(self.limit) and step in self._skipped

    def _go_back(self, first: int, step: int) -> int:
        what = f"the loss or its gradient was not finite in steps {first:,} to {step:,}"
        remedy = (
            "lower --lr, lengthen the warm-up, clip more (--optimiser.clip), or look at the data of these steps "
            "(`multiway doctor`)"
        )
        self._settle()
        found = on_main(self.world, lambda: finished(self.root))
        for at, path in found:
            # What was saved at a skipped step are the weights that failed, or those gone back to already.
            if at >= first or at in self._skipped:
                continue
            if [back for _, back in self._went[-ATTEMPTS:]] == [at] * ATTEMPTS:
                raise Diverged(f"{what}, after going back to step {at:,} {ATTEMPTS} times; {remedy}")
            try:
                load_into(self.targets, path, self.world)
            except CheckpointError as error:
                log.warning("cannot go back to step %d: %s", at, error)
                continue
            self.say(f"{what}: back to the weights of step {at:,}, on with the data after step {step:,}")
            return at
        raise Diverged(
            f"{what}, and no checkpoint from before them can be used; {remedy}, and save more often (--checkpoint-every)"
        )
