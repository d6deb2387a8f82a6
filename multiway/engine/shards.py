"""Tensors as the safetensors files of a checkpoint, one set per writing rank, by `torch.distributed.checkpoint`.

Plain tensors that every rank has are written by rank 0; of a DTensor each rank writes its own part; a tensor under a
name that one rank alone has is written by that rank. Whatever number of ranks wrote them, any number can read them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from multiway.engine.manifest import FileRecord, TensorRecord, file_record
from multiway.engine.shard_writer import ShardWriter
from multiway.world import World

__all__ = [
    "bytes_of",
    "dense",
    "incomplete",
    "like",
    "read_shards",
    "record_of",
    "stage",
    "verified",
    "write_shards",
]

# What lies on a GPU is brought to main memory a file at a time, so its size bounds the extra memory of saving.
FILE_BYTES = 1 << 30


def record_of(tensor: Tensor) -> TensorRecord:
    """Shape (of the whole, for a DTensor) and dtype."""
    return TensorRecord(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def bytes_of(record: TensorRecord) -> int:
    """Size of the whole tensor in bytes."""
    return torch.Size(record.shape).numel() * getattr(torch, record.dtype).itemsize


def stage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached, contiguous, and no two in the same memory, which safetensors cannot express: tied weights are copied.

    Raises:
        TypeError: for a tensor without dense values in memory.
    """
    staged: dict[str, Tensor] = {}
    seen: set[tuple[torch.device, int]] = set()
    for name, tensor in tensors.items():
        own = dense(name, tensor)
        memory = (own.device, own.untyped_storage().data_ptr())
        if memory in seen and own.numel():
            own = own.clone(memory_format=torch.contiguous_format)
        own = own.contiguous()
        seen.add(memory)
        staged[name] = like(own, tensor)
    return staged


def dense(name: str, tensor: Tensor) -> Tensor:
    """What this rank has of a tensor, detached.

    Raises:
        TypeError: for a tensor without dense values in memory.
    """
    own = _local(tensor).detach()
    if own.layout != torch.strided or own.is_meta:
        raise TypeError(f"{name} is a {own.layout} tensor on {own.device}; expected a dense one, in memory")
    return own


def like(own: Tensor, tensor: Tensor) -> Tensor:
    """A rank's part as what it is a part of: a DTensor where `tensor` is one, on whatever device the part lies."""
    if not isinstance(tensor, DTensor):
        return own
    # Not `DTensor.from_local`, which moves the part to the mesh's device.
    return DTensor(own, tensor._spec, requires_grad=False)


def write_shards(folder: Path, staged: Mapping[str, Tensor], table: Mapping[str, TensorRecord], world: World) -> None:
    """Write what `stage` gave and bring it to the disk. Every rank calls it.

    Args:
        table: of the tensors of all ranks.

    Raises:
        CheckpointException: on every rank, with the errors of those that failed.
    """
    _be_quiet()
    dcp.save(
        dict(staged),
        storage_writer=ShardWriter(folder, _file_numbers(table)),
        planner=dcp.DefaultSavePlanner(
            flatten_state_dict=False, flatten_sharded_tensors=False, dedup_save_to_lowest_rank=True
        ),
        process_group=world.group,
        no_dist=world.size == 1,
    )


def verified(folder: Path, staged: Mapping[str, Tensor], rank: int) -> dict[str, FileRecord]:
    """Read the files of this rank back from the disk, compare them with memory bit for bit, and hash them.

    Raises:
        OSError: if the disk gives back something else.
    """
    records: dict[str, FileRecord] = {}
    for path in sorted(folder.glob(f"shard-{rank + 1:05d}-*.safetensors")):
        records[path.name] = file_record(path)
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (not a dict)
                if not _same_bits(stored.get_tensor(name), _local(staged[name])):
                    raise OSError(f"{path.name} reads back other values of {name} than were written; check the disk")
    return records


def incomplete(folder: Path, table: Mapping[str, TensorRecord]) -> list[str]:
    """Names of tensors of which the files lack a part."""
    stored = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata if table else {}
    lacking = []
    for name, record in table.items():
        entry = stored.get(name)
        there = sum(chunk.sizes.numel() for chunk in entry.chunks) if isinstance(entry, TensorStorageMetadata) else -1
        if there != torch.Size(record.shape).numel():
            lacking.append(name)
    return lacking


def read_shards(folder: Path, targets: Mapping[str, Tensor], world: World) -> None:
    """Fill tensors in place; each has to be in the files, with the same shape. Every rank calls it."""
    _be_quiet()
    dcp.load(
        dict(targets),
        storage_reader=dcp.HuggingFaceStorageReader(str(folder)),
        planner=dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
        process_group=world.group,
        no_dist=world.size == 1,
    )


def _file_numbers(table: Mapping[str, TensorRecord]) -> dict[str, int]:
    """Which file, from 1, a tensor goes to."""
    number, filled = 1, 0
    placed: dict[str, int] = {}
    for name, record in sorted(table.items()):
        if filled and filled + bytes_of(record) > FILE_BYTES:
            number, filled = number + 1, 0
        placed[name] = number
        filled += bytes_of(record)
    return placed


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal to the bit, so that NaN equals NaN and 0.0 differs from -0.0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.numel() == 0:
        return True
    return torch.equal(one.reshape(-1).view(torch.uint8), other.cpu().reshape(-1).view(torch.uint8))


def _be_quiet() -> None:
    """Without the warning that there is one process only, which is no news.

    A filter for good: `warnings.catch_warnings` exchanges those of the whole process, and a checkpoint may be written in a
    thread beside training.
    """
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
