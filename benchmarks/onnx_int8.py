"""Ways to 8 bits of an exported model, beside each other: bytes, milliseconds and what they cost on the run's own evaluation.

    python benchmarks/onnx_int8.py RUN [--parts image text] [--calibrate 256] [--batches 1 16] [--length 16] [--rounds 9] [--threads 1]
                             [--rows 0] [--json]

RUN is anything that `multiway export` takes. It is exported once, in fp32 and with dynamic 8 bits, which is what `--int8` writes:
weights are rounded once, per output channel; what they are multiplied with is rounded while it runs, by its own range. Beside that,
static 8 bits (onnxruntime's quantiser, QDQ): the same weights; the range of every activation is fixed beforehand, by rows of the split
that the run was trained on,

    minmax       from the least number seen to the greatest
    percentile   that 99.99 % of the numbers lie in
    entropy      whose rounded histogram is nearest to the whole one, in Kullback-Leibler divergence (as TensorRT does)

Products of two activations (attention) and convolutions keep their floats in all of them.

Contenders take turns within each round, in an order that changes; times are medians over the rounds, ratios to fp32 medians of the
rounds' ratios. The cost is that of the graphs themselves, as `multiway export` measures it, on the same rows for all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from onnx_speed import Call, calls, race, summary

from multiway.data.subset import Subset
from multiway.hub.exported import open_exported
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.onnx_runtime import Exported
from multiway.workflows.export import Asked, export
from multiway.workflows.export_measure import Origin

METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
AT_ONCE = 16  # rows of a calibration batch


class Shown:
    """Inputs of a graph from real rows, as onnxruntime's calibration reads them."""

    def __init__(self, inputs: Sequence[dict[str, Any]]) -> None:
        self._rest: Iterator[dict[str, Any]] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        return next(self._rest, None)


def calibration(ran: Exported, origin: Origin, part: str, rows: int) -> list[dict[str, Any]]:
    """What a graph is shown: pictures or captions of rows that are evenly spread over the training split, in batches of one shape, which
    histograms are taken of; texts are padded to the longest therefore."""
    source = Subset(origin.open("train"), max(AT_ONCE, rows - rows % AT_ONCE))
    starts = range(0, len(source) - AT_ONCE + 1, AT_ONCE)
    if part == "image":
        return [{"pixels": ran.pixels([source.image(start + n) for n in range(AT_ONCE)])} for start in starts]
    words = ran.tokens([source.row(row).captions[0] for row in range(len(source))])
    return [{name: each[start : start + AT_ONCE] for name, each in words.items()} for start in starts]


def quantise(source: Path, target: Path, inputs: Sequence[dict[str, Any]], method: str) -> None:
    """Write a graph with static 8 bits."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                source,
                target,
                Shown(inputs),  # type: ignore[arg-type]
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=getattr(CalibrationMethod, METHODS[method]),
                extra_options={
                    "CalibPercentile": 99.99,
                    "MatMulConstBOnly": True,
                    # Sums leave in floats, as they do of the dynamic form: what follows them adds, normalises or bends.
                    "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", "Gather"],
                },
            )
        finally:
            logging.disable(logging.NOTSET)


def write_variants(
    model: Model, folder: Path, origin: Origin, parts: Sequence[str], rows: int, source: str
) -> list[str]:
    """A folder of `multiway export --int8` with the static forms as further variants; their names."""
    export(
        model,
        Asked(folder, source, parts=tuple(parts), int8=True),
        None,
        None,
        lambda said: print(said, file=sys.stderr),
    )
    about = json.loads((folder / "export.json").read_text())
    ran = Exported(folder)
    shown = {part: calibration(ran, origin, part, rows) for part in parts}
    for method in METHODS:
        (folder / method).mkdir()
        for part in parts:
            quantise(folder / f"{part}.onnx", folder / method / f"{part}.onnx", shown[part], method)
        about["variants"][f"static, {method}"] = method
    about["variants"]["dynamic"] = about["variants"].pop("int8")
    (folder / "export.json").write_text(json.dumps(about))
    return list(about["variants"])


def costs(model: Model, folder: Path, variants: Sequence[str], origin: Origin) -> dict[str, dict[str, float]]:
    """Each metric of the run's own evaluation, of PyTorch and of every variant."""
    found: dict[str, dict[str, float]] = {}
    opened = {name: open_exported(folder, name) for name in variants}
    for each in origin.evaluations(opened["fp32"]):
        for name, one in {"PyTorch": model, **opened}.items():
            for metric, value in each.task.run(one, each.source).metrics.items():
                key = f"{each.task.name} on {each.source.name}@{each.source.split}: {metric}"
                found.setdefault(key, {})[name] = value.value
    return found


def main() -> None:
    """Measure, and print a line for each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--parts", nargs="+", default=["image", "text"], choices=["image", "text"])
    parser.add_argument("--calibrate", type=int, default=256, help="rows of the training split")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--length", type=int, default=16, help="tokens of a text")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=0, help="of the data that the cost is measured on; 0 for all")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load(asked.run)
    origin = Origin.of(asked.run, "", (), asked.rows)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "onnx"
        variants = write_variants(model, folder, origin, asked.parts, asked.calibrate, asked.run)
        about = json.loads((folder / "export.json").read_text())
        sizes = {
            name: sum(file.stat().st_size for file in (folder / of).glob("*.onnx"))
            for name, of in about["variants"].items()
        }
        for part in asked.parts:
            for batch in asked.batches:
                contenders: dict[str, Call] = calls(
                    model, folder, part, batch, asked.length, 0, asked.threads, variants
                )
                times = race(contenders, asked.rounds)
                rows += summary(part, batch, times, "onnxruntime fp32")
        found = costs(model, folder, variants, origin)
    if asked.json:
        print(json.dumps({"bytes": sizes, "rows": rows, "metrics": found}))
        return
    print(f"{model.name}: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()))
    for row in rows:
        print(
            f"{row['part']:6} batch {row['batch']:<4} {row['by']:26} {row['ms']:9.2f} ms  {row['faster']:5.2f}x [{row['from']:.2f}, {row['to']:.2f}]"
        )
    for metric, values in found.items():
        print(f"{metric}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))


if __name__ == "__main__":
    main()
