"""Saving beside training: the loop stands still while its tensors are copied, and a thread does the rest.

    training   step 100 | copy | step 101 | step 102 | step 103 | ...
    thread                     | write, read back, hash, rename, retire |

The copies live in buffers of main memory that are made once and used by every save: as much memory again as a checkpoint takes, for
what this rank writes of it (page-locked where the tensors are on a GPU, for which PyTorch rounds each up to a power of two). At most
one save is under way; the next one waits for it. Ranks talk about it over a gloo group of their own, because the collectives of two threads
must not mix in one group.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from multiway.engine.agreement import on_all
from multiway.engine.checkpoint import CheckpointError
from multiway.engine.failure import is_out_of_memory
from multiway.engine.shards import dense, like
from multiway.world import World

__all__ = ["Background", "Copies"]

log = logging.getLogger(__name__)

Write = Callable[[Mapping[str, Tensor], World], object]


class Copies:
    """Tensors copied into main memory, into the same memory each time."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    @property
    def bytes(self) -> int:
        """What the buffers hold."""
        return sum(each.numel() * each.element_size() for each in self._kept.values())

    def take(self, tensors: Mapping[str, Tensor], elsewhere: Collection[str] = ()) -> dict[str, Tensor]:
        """Copy, and wait until it is done: whatever happens to the tensors afterwards, the copies are of now.

        Args:
            tensors: by name, on any device; of a DTensor this rank's part is copied. What shares memory is copied under each name.
            elsewhere: names that another rank writes: of these nothing but shape and type will be looked at, unless they are DTensors,
                of which every rank writes its own part.

        Returns:
            The copies, contiguous, on the CPU, valid until the next call; those of `elsewhere` as they were given.

        Raises:
            TypeError: for a tensor without dense values in memory.
        """
        own = {
            name: dense(name, tensor)
            for name, tensor in tensors.items()
            if isinstance(tensor, DTensor) or name not in elsewhere
        }
        self._kept = {name: self._buffer(name, each) for name, each in own.items()}
        for name, each in own.items():
            self._kept[name].copy_(each, non_blocking=each.is_cuda)
        for device in {each.device for each in own.values() if each.is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        return {name: like(self._kept[name], each) if name in own else each for name, each in tensors.items()}

    def _buffer(self, name: str, own: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is not None and (kept.shape, kept.dtype) == (own.shape, own.dtype):
            return kept
        return torch.empty(own.shape, dtype=own.dtype, pin_memory=own.is_cuda)


class Background:
    """The thread that writes, one save at a time. Every rank has one, and all make the same calls in the same order.

    Args:
        world: the ranks that save together.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.copies = Copies()
        self._apart: World | None = None
        self._elsewhere: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the save under way has failed on this rank; `wait` raises why. Ranks learn of it at different moments."""
        return self._error is not None

    def begin(self, tensors: Mapping[str, Tensor], write: Write) -> bool:
        """Copy the tensors, and let the thread call `write(copies, world)` with the world of its own group.

        Waits for the save before, and raises what became of it.

        Returns:
            False if the first copies found no memory on some rank: nothing has begun then, and nothing is kept.
        """
        self.wait()
        first = self._apart is None
        if first:
            # Of what several ranks have, the lowest one's is written: the others need no copy of it.
            names = on_all(self.world, lambda: list(tensors))
            self._elsewhere = frozenset().union(*names[: self.world.rank])
        trouble: Exception | None = None
        copied: dict[str, Tensor] = {}
        try:
            copied = self.copies.take(tensors, self._elsewhere)
        except Exception as error:  # the other ranks will be told by the thread, where they wait for this one
            trouble = error
        if first and not self.world.all_agree(trouble is None or not is_out_of_memory(trouble)):
            self.copies = Copies()
            return False
        apart = self._own_group()

        def check() -> None:
            if trouble is not None:
                raise trouble

        def work() -> None:
            try:
                if gpus:
                    torch.cuda.set_device(gpus[0])  # else this thread would open a context on the first GPU
                on_all(apart, check)
                write(copied, apart)
            except BaseException as error:  # `wait` raises it where somebody is there to catch it
                self._error = error

        gpus = [each.device for each in tensors.values() if each.is_cuda]
        # A daemon: whoever asks twice to stop does not want to wait for a slow disk.
        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def wait(self, patience: float | None = None) -> None:
        """Until nothing is under way.

        Args:
            patience: seconds after which the save is left to itself; None for as long as it takes.

        Raises:
            Exception: what the save raised, once.
        """
        if self._thread is None:
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            log.warning("a checkpoint is still being written and is left; the next start clears it away")
        self._thread, error = None, self._error
        self._error = None
        if error is not None:
            raise error

    def _own_group(self) -> World:
        """Made at the first save, by all ranks at once; it lasts until the ranks leave their process group."""
        if self._apart is None:
            group = None
            if self.world.size > 1:
                ranks = dist.get_process_group_ranks(self.world.group) if self.world.group else None
                try:
                    group = dist.new_group(ranks, backend="gloo")
                except RuntimeError as error:
                    raise CheckpointError(
                        f"the ranks cannot talk over gloo, as saving in the background has them do: {error}. Set "
                        "GLOO_SOCKET_IFNAME to the network interface that they share, or give --no-checkpoint-async."
                    ) from error
            self._apart = World(self.world.rank, self.world.size, group)
        return self._apart
