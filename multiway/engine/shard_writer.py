"""What `torch.distributed.checkpoint` has planned, written as safetensors files without standing in the way of training.

PyTorch's own writer assembles a file in memory before it writes it, and holds Python's lock for as long: a training loop beside it
stands still for seconds per gigabyte. safetensors writes from the tensors' own memory and lets go of the lock meanwhile. What lies
on the disk is the same: names, header and order are those of `HuggingFaceStorageWriter`, whose reader reads it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

__all__ = ["ShardWriter"]

_OS_ERROR = re.compile(r"os error (\d+)")


class ShardWriter(dcp.HuggingFaceStorageWriter):
    """Writes a rank's part of each tensor, and brings it to the disk.

    Args:
        folder: that exists.
        file_numbers: which file, from 1, a tensor goes to, for the tensors of all ranks.
    """

    def __init__(self, folder: Path, file_numbers: Mapping[str, int]) -> None:
        super().__init__(str(folder), fqn_to_index_mapping=dict(file_numbers), save_distributed=True)
        self._folder, self._numbers = folder, file_numbers

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the items that the plan gives to this rank.

        Raises:
            OSError: if the disk does not take them.
        """
        files: dict[int, list[WriteItem]] = {}
        for item in plan.items:
            files.setdefault(self._numbers[item.index.fqn], []).append(item)
        count = max(self._numbers.values(), default=1)
        for number, items in files.items():
            name = f"shard-{plan.storage_data['shard_index']:05d}-model-{number:05d}-of-{count:05d}.safetensors"
            _write(self._folder / name, items, planner)
        # Where what lies is in the files themselves, so there is no list of it to hand on.
        done: Future[list[WriteResult]] = Future()
        done.set_result([])
        return done


def _write(path: Path, items: list[WriteItem], planner: SavePlanner) -> None:
    tensors: dict[str, Tensor] = {}
    offsets: dict[str, dict[str, list[int]]] = {}
    for item in items:
        data = planner.resolve_data(item)
        if not isinstance(data, Tensor) or item.tensor_data is None:
            raise TypeError(f"{item.index.fqn} is a {type(data).__name__}; expected a tensor")
        tensors[item.index.fqn] = data.detach().cpu().contiguous()
        offsets[item.index.fqn] = {"saved_offsets": list(item.tensor_data.chunk.offsets)}
    about = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
    try:
        save_file(tensors, str(path), metadata=about)
    except SafetensorError as error:
        code = _OS_ERROR.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
