"""A process that has imported everything and forks: each child is one `multiway` command, or a function of a test.

It has computed nothing, so that a child begins as a fresh interpreter does: no thread runs, no generator was drawn from, and autograd,
which does not survive a fork once it has been used, was not. Requests and replies are lines of JSON (`forked.py`).
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

# What training, tuning and measuring import on their way.
LATER = (
    "multiway.cli.train",
    "multiway.cli.finetune",
    "multiway.cli.evaluate",
    "multiway.recipes.training",
    "multiway.recipes.finetune",
    "sklearn.linear_model",
    "torch._dynamo",  # every optimiser asks for it
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
    """What it has been asked to do, as if it had been started here, with this environment and these files for what it says."""
    descriptors = ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY), (2, asked["err"], os.O_WRONLY))
    for descriptor, path, flags in descriptors:
        file = os.open(path, flags | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    try:
        if "call" in asked:
            call = asked["call"]
            sys.path[:] = call["path"]
            work, args = pickle.loads(Path(call["of"]).read_bytes())
            work(call["rank"], *args)
            return 0
        sys.argv = ["multiway", *asked["args"]]
        return int(import_module("multiway.cli.main").main(asked["args"]))
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    for name in LATER:
        import_module(name)
    import_module("multiway.recipes.command").parse(["clip"])
    import_module("PIL.Image").init()
    gc.collect()
    gc.freeze()
    order = requested()
    if order is not None:
        sys.exit(carry_out(order))
