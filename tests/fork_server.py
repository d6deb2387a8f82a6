"""A process that has imported everything and forks: each child is one `multiway` command, begun in milliseconds instead of seconds.

It has computed nothing, so that a child begins as a fresh interpreter does: no thread runs, no generator was drawn from, and autograd,
which does not survive a fork once it has been used, was not. Requests and replies are lines of JSON (`command_line.py`).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any

# What training, tuning and measuring import on their way.
LATER = (
    "multiway.cli.train",
    "multiway.cli.finetune",
    "multiway.cli.evaluate",
    "multiway.recipes.training",
    "multiway.recipes.finetune",
    "sklearn.linear_model",
    "torch.distributed.checkpoint",
    "torch.nn.parallel",
    "torch.utils.tensorboard",
)


def requested() -> dict[str, Any] | None:
    """In the server, forks and answers until its input ends, then None; in a child, what it has been asked to do."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            pid, status = os.waitpid(asked["wait"], os.WNOHANG)
            reply = os.waitstatus_to_exitcode(status) if pid else None
        else:
            reply = os.fork()
            if reply == 0:
                return asked
        print(json.dumps(reply), flush=True)
    return None


def carry_out(asked: dict[str, Any]) -> int:
    """The command, as if it had been started with this environment and these files for what it says."""
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY), (2, asked["err"], os.O_WRONLY)):
        file = os.open(path, flags)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["multiway", *asked["args"]]
    try:
        return import_module("multiway.cli.main").main(asked["args"])
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    for name in LATER:
        import_module(name)
    import_module("multiway.recipes.command").parse(["clip"])
    gc.collect()
    gc.freeze()
    order = requested()
    if order is not None:
        sys.exit(carry_out(order))
