"""Cells of a table, computed several at a time: each as soon as those that it needs are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

__all__ = ["Cell", "side_by_side"]

Cell = dict[str, Any]
"""What was measured, as JSON; `{"failed": why}` where nothing could be."""


def side_by_side(
    order: Sequence[str],
    needs: Mapping[str, Sequence[str]],
    begin: Callable[[Executor, str], Future[Cell]],
    jobs: int = 1,
) -> Iterator[tuple[str, Cell]]:
    """Compute cells; what needs a failed one fails with it.

    Args:
        order: names, each after those that it needs; it is kept to as far as the needs allow.
        needs: name -> names.
        begin: submits a cell to a pool. What it submits must be known by name to another process (a function of a module).
        jobs: cells at once.

    Yields:
        (name, cell), as they are finished.
    """
    waiting, done, running = list(order), dict[str, Cell](), dict[Future[Cell], str]()
    # Cells side by side are processes: torch counts FLOPs by hooks that every thread of a process would run into.
    pool: Executor = ThreadPoolExecutor(1) if jobs == 1 else ProcessPoolExecutor(jobs, get_context("spawn"))
    with pool:
        while waiting or running:
            for name in list(waiting):
                if any(need not in done for need in needs.get(name, ())):
                    continue
                failed = [need for need in needs.get(name, ()) if "failed" in done[need]]
                if failed:
                    waiting.remove(name)
                    done[name] = {"failed": f"it needs {failed[0]}, which failed"}
                    yield name, done[name]
                elif len(running) < jobs:
                    waiting.remove(name)
                    running[begin(pool, name)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                name = running.pop(future)
                done[name] = future.result()
                yield name, done[name]
