"""What several ranks change: the memory of what is sharded, and what their links carry.

Traced is one rank that keeps everything. From that follows what it keeps where ranks share parameters, gradients and moments, by
the arithmetic of ZeRO (Rajbhandari et al., 2020, arXiv 1910.02054, sections 5 and 7) as PyTorch's `fully_shard` does it. A ring over N
ranks sends (N - 1) / N of the bytes for an all-gather or a reduce-scatter, and twice that for an all-reduce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multiway.workflows.plan_devices import Accelerator, PlanError
from multiway.workflows.plan_meter import BACKWARD, GRADIENTS, OPTIMISER, PARAMETERS, TWINS, WEIGHT_COPIES
from multiway.workflows.plan_step import Trace

__all__ = ["Hardware", "Shard", "communication", "sharded_memory"]

Shard = Literal["none", "full", "hybrid"]

GATHERED = 2
"""Blocks that are whole at once: the one that computes, and the next, which is on its way."""

LAST = 25 * 2**20
"""Bytes of the last message of gradients (DDP's bucket), which nothing is left to be hidden behind."""


@dataclass(frozen=True)
class Hardware:
    """What a run is planned on.

    Attributes:
        accelerator: each device.
        gpus: of a node.
        nodes: how many.
        network: bytes per second that one device sends to other nodes.
        headroom: share of a device's memory that is left free, for the driver's context, libraries and what lies in between.
        price: of a device for an hour; 0 where it is not known.

    Raises:
        PlanError: for numbers out of range.
    """

    accelerator: Accelerator
    gpus: int = 1
    nodes: int = 1
    network: float = 50e9
    headroom: float = 0.1
    price: float = 0.0

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.nodes < 1 or self.network <= 0 or not 0 <= self.headroom < 1 or self.price < 0:
            raise PlanError(
                f"gpus {self.gpus}, nodes {self.nodes}, network {self.network / 1e9:g} GB/s, headroom {self.headroom:g}, price "
                f"{self.price:g}; expected 1 or more, 1 or more, above 0, a share below 1, 0 or more"
            )

    @property
    def ranks(self) -> int:
        """One for each device."""
        return self.gpus * self.nodes

    @property
    def usable(self) -> float:
        """Bytes that a rank may take. Processes of one processor share its memory."""
        own = self.accelerator.memory if self.accelerator.gpu else self.accelerator.memory / self.gpus
        return (1.0 - self.headroom) * own

    @property
    def link(self) -> float:
        """Bytes per second of the slowest link of a ring over all ranks."""
        return self.accelerator.link if self.nodes == 1 else min(self.network, self.accelerator.link)

    def shards(self, shard: Shard) -> int:
        """Ranks that share one copy."""
        return {"none": 1, "full": self.ranks, "hybrid": self.gpus}[shard]


def sharded_memory(trace: Trace, hardware: Hardware, shard: Shard, persistent: bool = False) -> dict[str, float]:
    """Bytes at the peak by what they are for, with parameters, gradients and moments shared as `shard` says; or of that which stays
    from step to step."""
    found: dict[str, float] = dict(trace.persistent if persistent else trace.at_peak)
    count = hardware.shards(shard)
    if count == 1:
        return found
    for label in (PARAMETERS, GRADIENTS, OPTIMISER, TWINS):
        if label in found:
            found[label] /= count
    if persistent:
        return found
    *blocks, rest = trace.blocks
    half = WEIGHT_COPIES in found
    # Blocks come in the 16 bits that they are computed in, so that no copies of them are made; the rest comes in 32.
    found.pop(WEIGHT_COPIES, None)
    largest = max(blocks, default=0)
    found["gathered weights"] = rest + (rest / 2 if half else 0) + GATHERED * largest / (2 if half else 1)
    found[BACKWARD] = found.get(BACKWARD, 0) + GATHERED * largest / (2 if half else 1)  # gradients, until they are sent
    return found


def communication(
    trace: Trace, hardware: Hardware, shard: Shard, backward: float, forward: float, apart: bool
) -> dict[str, float]:
    """Seconds of a step in which a rank waits for its links, by what they carry.

    Args:
        backward, forward: seconds that these passes compute, behind which messages are hidden.
        apart: gradients are sent when all are computed (gradient caching), instead of meanwhile.
    """  # fmt: skip
    ranks = hardware.ranks
    if ranks == 1:
        return {}
    gradients = trace.learnt_bytes
    ring = (ranks - 1) / ranks / hardware.link
    waits = {"gathered features and statistics": trace.sent / hardware.link}
    if shard == "none":
        sending = 2 * gradients * ring
        hidden = 0.0 if apart else min(backward, sending)
        waits["gradients"] = max(sending - hidden, 2 * min(gradients, LAST) * ring)
        return waits
    count = hardware.shards(shard)
    within = hardware.link if shard == "full" else hardware.accelerator.link
    part = (count - 1) / count / within
    half = 0.5 if WEIGHT_COPIES in trace.at_peak else 1.0
    weights = sum(trace.blocks[:-1]) * half + trace.blocks[-1]
    gathering, reducing = weights * part, gradients * half * part
    if (
        shard == "hybrid" and hardware.nodes > 1
    ):  # what a node has summed up is summed over nodes, by one rank for each part
        reducing += 2 * gradients / count * (hardware.nodes - 1) / hardware.nodes / hardware.network
    waits["weights"] = max(0.0, gathering - forward) + max(0.0, gathering + reducing - backward)
    return waits
