"""What happens to a run, as functions that a child calls before its command; `tell` reports to the parent (word, number)."""

import os
import resource
import signal
import time
from collections.abc import Callable

import torch

Tell = Callable[[tuple[str, int]], None]


def steps(tell: Tell) -> None:
    """Report every step that was logged."""
    from multiway.engine.recorder import Recorder

    log = Recorder.log

    def reporting(self, record, *rest):
        log(self, record, *rest)
        tell(("step", record.step))

    Recorder.log = reporting


def hang_in_save(tell: Tell, calls: int, saves: int = 1) -> None:
    """Stand still within the `saves`-th save, at its `calls`-th change of the disk (or in a later save, if it has fewer)."""
    from multiway.engine import checkpoint

    save, state = checkpoint.save, {"saves": 0, "inside": False, "calls": 0}

    def watched(*rest, **named):
        state["saves"] += 1
        state["inside"] = state["saves"] >= saves
        try:
            return save(*rest, **named)
        finally:
            state["inside"] = False

    def counted(function):
        def call(*rest, **named):
            state["calls"] += state["inside"]
            if state["inside"] and state["calls"] == calls:
                tell(("saving", calls))
                time.sleep(600)
            return function(*rest, **named)

        return call

    checkpoint.save = watched
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))


def clocks_going_back(tell: Tell) -> None:
    """All clocks show an hour less each time."""
    shown = [time.time()]

    def backwards() -> float:
        shown[0] -= 3600
        return shown[0]

    time.time, time.monotonic, time.perf_counter = backwards, backwards, backwards


def small_files(tell: Tell, limit: int) -> None:
    """No file may grow beyond `limit` bytes, as under a quota."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def hungry(tell: Tell, at: int, kind: str) -> None:
    """A step that asks for more memory than there is: really, of the CPU; or as a GPU says it."""
    from multiway.methods.clip import Clip

    encode = Clip.encode

    def greedy(self, batch, step):
        if step.index == at:
            if kind == "cpu":
                torch.empty(1 << 50)
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB."
            )
        return encode(self, batch, step)

    Clip.encode = greedy


def poisoned(tell: Tell, first: int, last: int) -> None:
    """The loss is NaN in steps first + 1 to last, whatever the weights."""
    from dataclasses import replace

    from multiway.methods.clip import Clip

    losses = Clip.losses

    def bad(self, reps, pairs, batch, world, step):
        found = losses(self, reps, pairs, batch, world, step)
        if first <= step.index < last:
            for name, term in found.terms.items():
                found.terms[name] = replace(term, value=term.value * float("nan"))
        return found

    Clip.losses = bad


def slow_steps(tell: Tell) -> None:
    """Every step takes at least ten seconds from step 4 on, so that a second request finds the first still open."""
    from multiway.methods.clip import Clip

    encode = Clip.encode

    def slow(self, batch, step):
        if step.index >= 3:
            time.sleep(10)
        return encode(self, batch, step)

    Clip.encode = slow


def hungry_on_rank_one(tell: Tell) -> None:
    """Rank 1 finds no memory for step 6."""
    if os.environ["RANK"] == "1":
        hungry(tell, 5, "cpu")
