"""The `multiway` command: a small file per verb, imported when it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

# Threads that spin while they wait take the core from the one that works; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["VERBS", "main"]

# verb -> (where its `run(args) -> exit code` is, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "train": ("multiway.cli.train", "train a method: multiway train clip --data emoji --out runs/a"),
    "plan": ("multiway.cli.plan", "memory, time and price of a run: multiway plan clip --preset vit-l-14 --gpu h200"),
    "finetune": ("multiway.cli.finetune", "tune a run for a task: multiway finetune runs/a --task vqa"),
    "eval": (
        "multiway.cli.evaluate",
        "measure a model: multiway eval runs/a --task retrieval --data emoji@composition",
    ),
    "search": ("multiway.cli.search", 'find pictures by words: multiway search runs/demo "red fruit"'),
    "serve": ("multiway.cli.serve", "the HTTP API: multiway serve runs/a --index index"),
    "doctor": ("multiway.cli.doctor", "say what ails a run: multiway doctor runs/a"),
    "explain": ("multiway.cli.explain", "look into what it sees: multiway explain runs/a --image cat.png"),
    "page": ("multiway.cli.page", "try a model in the browser: multiway page runs/demo"),
    "track": ("multiway.cli.track", "send a run's numbers to W&B or MLflow: multiway track runs/a --to wandb"),
    "report": ("multiway.cli.report", "write report.html of a run: multiway report runs/a"),
    "compare": ("multiway.cli.compare", "train every method on equal data: multiway compare --samples 25600"),
    "matrix": ("multiway.cli.matrix", "tune runs for tasks on equal data: multiway matrix runs/a runs/b"),
    "score": ("multiway.cli.score", "score every row for a curriculum: multiway score runs/a --out scores.jsonl"),
    "capfilt": ("multiway.cli.capfilt", "clean noisy captions: multiway capfilt runs/blip --data web.tar --out clean"),
    "data": (
        "multiway.cli.data",
        "check, show, shard or index data: multiway data check captions.jsonl --images pictures/",
    ),
    "embed": ("multiway.cli.embed", "embed millions of pictures: multiway embed RUN --data 'web/*.tar' --out vectors"),
    "caption": ("multiway.cli.caption", "caption them: multiway caption RUN --data 'web/*.tar' --out captions"),
    "filter": ("multiway.cli.filter", "keep the pairs that fit: multiway filter RUN --data 'web/*.tar' --out clean"),
    "index": ("multiway.cli.index", "an index of what was embedded: multiway index vectors --out index"),
    "convert": ("multiway.cli.convert", "between ours and other libraries' weights: multiway convert SRC DST"),
    "export": ("multiway.cli.export", "as ONNX or torch.export graphs, checked: multiway export runs/a runs/a-onnx"),
    "consolidate": ("multiway.cli.consolidate", "a checkpoint as one file: multiway consolidate runs/a --step 400"),
    "average": ("multiway.cli.average", "weights between two runs (WiSE-FT): multiway average runs/a runs/a-vqa"),
    "list": ("multiway.cli.listing", "what there is: multiway list methods|recipes|data|tasks|layouts"),
}


def _help() -> str:
    lines = ["usage: multiway VERB ...", ""]
    lines += [f"  {verb:<11} {text}" for verb, (_, text) in VERBS.items()]
    lines += ["", "`multiway VERB --help` says more."]
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if args[0] in ("-V", "--version"):
        from multiway.version import __version__

        print(f"multiway {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        print(f"multiway: there is no verb `{verb}`\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        return int(import_module(VERBS[verb][0]).run(rest))
    except KeyboardInterrupt:
        print("multiway: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `multiway ... | head`
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that the interpreter's own flush is quiet
        return 0
    except Exception as error:
        if not _is_ours(error) or os.environ.get("MULTIWAY_TRACEBACK"):
            raise
        print(f"multiway: {error}", file=sys.stderr)
        return 1


def _is_ours(error: Exception) -> bool:
    """True for errors whose message is for the person at the keyboard; a traceback adds nothing to it.

    They are our own kinds; the operating system's, which name the file: no permission, no space left; and a ValueError that a
    `raise` of ours threw, whose message says what was given and what was expected. A ValueError of anybody else's is a bug.
    """
    if type(error).__module__.startswith("multiway.") or isinstance(error, OSError):
        return True
    thrown = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(thrown.filename).is_relative_to(Path(__file__).parents[1])
    return isinstance(error, ValueError) and ours and (thrown.line or "").startswith("raise ")


if __name__ == "__main__":
    raise SystemExit(main())
