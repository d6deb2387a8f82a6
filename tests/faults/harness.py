"""Runs that something happens to: the `multiway` command in a child, forked from a process that has imported everything already.

A fault is a function of `faults/inflicted.py` that the child calls before the command; it changes what the machine does to the run,
never what the run does. The child reports where it stands through a pipe, so that a parent can strike at a chosen instant.
"""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from command_line import QUICK, own_data
from safetensors import safe_open
from toy import ToySource

from multiway.engine.checkpoint import read
from multiway.engine.retention import finished

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["multiway.cli.train", "multiway.recipes.clip", "multiway.methods.clip", "multiway.tasks.retrieval", "torch.utils.tensorboard", "torch._dynamo",
     "torch.distributed.checkpoint"]
)  # fmt: skip
ROWS = 64
BROKEN = 11  # a picture that ends in the middle
PATIENCE = 120  # seconds; two other programs may be using the cores

# Dropout and augmentation, so that a resumed run has to draw the same random numbers.
TINY = [
    "--batch", "16", "--lr", "0.002", "--method.image.layers", "1", "--method.text.layers", "1",
    "--method.image.dropout", "0.1", "--view.augment", "affine", "--tokenizer.vocabulary", "300",
]  # fmt: skip


def write_data(folder: Path) -> Path:
    """captions.jsonl and pictures/: 64 rows, one of them a truncated picture, which every epoch has to replace and count."""
    (folder / "pictures").mkdir(parents=True)
    source = ToySource(ROWS)
    with (folder / "captions.jsonl").open("w") as file:
        for index in range(ROWS):
            place = folder / "pictures" / f"{index:03}.png"
            source.image(index).save(place)
            if index == BROKEN:
                place.write_bytes(place.read_bytes()[:150])
            file.write(json.dumps({"image": place.name, "caption": list(source.row(index).captions)}) + "\n")
    return folder


def command(data: Path, out: str, *more: str) -> list[str]:
    """`train clip` on the data of `write_data`, into a run folder beside them."""
    return ["train", "clip", *own_data(data, out), *QUICK, *TINY, *more]


def _child(args: list[str], log: str, environment: dict[str, str], faults: list[Callable], line: object) -> None:
    os.setsid()  # a group of its own, which signals can be sent to
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= environment
    # A child of a fork server would start its loader's workers by another one, which imports everything anew.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    for fault in faults:
        fault(line.send)  # type: ignore[attr-defined]
    from multiway.cli.main import main

    raise SystemExit(main(args))


class Child:
    """The command in a child.

    Args:
        args: of the command.
        faults: what is done to it; see `faults/inflicted.py`.
        environment: variables to set.
    """

    def __init__(self, args: list[str], *faults: Callable, **environment: str) -> None:
        out, data = (Path(args[args.index(name) + 1]) for name in ("--out", "--data"))
        self.log = data.with_name(f"{out.name}-{environment.get('RANK', '0')}.log")
        self.log.unlink(missing_ok=True)
        self._line, other = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=_child, args=(args, str(self.log), environment, list(faults), other))
        self.began = time.monotonic()
        self.process.start()
        other.close()

    def wait_for(self, word: str, number: int = 0) -> bool:
        """Until it reports `word` with at least `number`; False if it ended before."""
        try:
            while self._line.poll(PATIENCE):
                said, count = self._line.recv()
                if said == word and count >= number:
                    return True
        except (EOFError, ConnectionResetError):
            return False
        raise AssertionError(f"no {word} in {PATIENCE} s:\n{self.said}")

    def strike(self, number: signal.Signals = signal.SIGKILL, group: bool = False) -> None:
        """Send a signal, to the process or to all of its group."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self) -> int:
        """Wait for its exit code; negative for a signal."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.strike(group=True)
            raise AssertionError(f"still running after {PATIENCE} s:\n{self.said}")
        self._line.close()
        return self.process.exitcode

    @property
    def said(self) -> str:
        """What it printed, on one line, since the console breaks long ones."""
        return " ".join(self.log.read_text(errors="replace").split())


def finish(args: list[str], *faults: Callable, **environment: str) -> str:
    """Run the command to its end, which has to be a good one; what it said."""
    child = Child(args, *faults, **environment)
    assert child.end() == 0, child.log.read_text()
    return child.said


def newest(run: Path) -> Path:
    """The newest checkpoint."""
    return finished(run / "checkpoints")[0][1]


def same_run(one: Path, other: Path) -> bool:
    """Equal to the bit: every logged value, every skipped row, every tensor of model and optimiser, and the weights' file."""
    for name in ("metrics.jsonl", "skipped.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert newest(one).name == newest(other).name
    for (tensors, words), (twins, others) in (
        (read(newest(one)), read(newest(other))),
        (_weights(one / "model.safetensors"), _weights(other / "model.safetensors")),
    ):
        assert words == others and tensors.keys() == twins.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor.reshape(-1).view(torch.uint8), twins[name].reshape(-1).view(torch.uint8)), name
    hidden = [each.name for each in (other / "checkpoints").iterdir() if each.name.startswith(".")]
    assert not hidden, hidden
    return True


def _weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header; the library writes the entries of a header in any order."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)


__all__ = ["FORKS", "PATIENCE", "Child", "command", "finish", "newest", "same_run", "write_data"]
