"""`multiway data check|show|shard`: look at one's data before training on them, and pack them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from multiway.data.check import CheckReport, check
from multiway.data.join import Joined
from multiway.data.open import ALL, open_splits
from multiway.data.scenes.sheet import annotated_sheet
from multiway.data.scenes.source import Scenes
from multiway.data.shard_writer import write_shards
from multiway.data.sheet import contact_sheet, spread_rows
from multiway.data.source import DataError, Source

__all__ = ["Check", "Shard", "Show", "run"]

_SHOWN = 10  # entries of each list that are printed for people; --json has all


@dataclass(frozen=True)
class Data:
    """Which data.

    Attributes:
        spec: `name[@split]`: a bundled set, a caption file, a folder, or a pattern of shards.
        images: folder that a caption file's paths are relative to.
        image_column: the caption file's column of paths, if unusual.
        caption_column: its column of captions, if unusual.
        json: print one JSON object instead of text.
    """

    spec: Annotated[str, tyro.conf.Positional]
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    json: bool = False


@dataclass(frozen=True)
class Check(Data):
    """Read everything; count, and list what cannot be read, repeats or leaks between splits.

    Attributes:
        min_side: pixels of the shorter side below which a picture is called small.
    """

    min_side: int = 16


@dataclass(frozen=True, kw_only=True)
class Show(Data):
    """Draw a contact sheet: pictures with their captions; of scenes with everything that is known of them.

    Attributes:
        out: PNG to write.
        rows: how many, spread over all splits or the one named; 0 is 24, and 6 of scenes.
        columns: pictures side by side.
    """

    out: str
    rows: int = 0
    columns: int = 6


@dataclass(frozen=True, kw_only=True)
class Shard(Data):
    """Write WebDataset shards, each split under its own name.

    Attributes:
        out: folder to write to.
        rows_per_shard: samples in each tar.
    """

    out: str
    rows_per_shard: int = 1000


_Verb = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[Shard, tyro.conf.subcommand("shard", prefix_name=False)]
)


def run(args: list[str]) -> int:
    """Do what is asked; 1, with a message, where the data cannot be used.

    Raises:
        SystemExit: on bad usage, as argument parsers do.
    """
    asked: Check | Show | Shard = tyro.cli(_Verb, args=args, prog="multiway data", description=__doc__)  # type: ignore[arg-type]
    try:
        if isinstance(asked, Check):
            return _check(asked)
        return _show(asked) if isinstance(asked, Show) else _shard(asked)
    except DataError as error:
        Console(stderr=True).print(
            f"multiway data: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1


def _splits(asked: Data) -> list[Source]:
    return open_splits(asked.spec, asked.images, asked.image_column, asked.caption_column)


def _emit(value: dict[str, Any]) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def _check(asked: Check) -> int:
    sources = _splits(asked)
    with Progress(console=Console(stderr=True), transient=True, disable=asked.json) as bar:
        task = bar.add_task("reading", total=sum(len(source) for source in sources))
        report = check(sources, min_side=asked.min_side, progress=lambda rows: bar.advance(task, rows))
    if asked.json:
        _emit(report.to_dict())
    else:
        _print_report(report, Console())
    return 0


def _print_report(report: CheckReport, console: Console) -> None:
    table = Table("", *map(escape, report.splits), title=escape(report.data))
    splits = report.splits.values()
    table.add_row("rows", *(f"{split.rows:,}" for split in splits))
    table.add_row("pictures", *(f"{split.pictures:,}" for split in splits))
    table.add_row("captions", *(f"{split.captions:,}" for split in splits))
    table.add_row("distinct captions", *(f"{split.distinct_captions:,}" for split in splits))
    table.add_row("words of a caption", *(f"{min(s.words)} to {max(s.words)}" if s.words else "" for s in splits))
    for side in ("width", "height"):
        spans = (split.sizes.get(side) for split in splits)
        table.add_row(f"{side}, pixels", *("{0} to {2}, median {1}".format(*span) if span else "" for span in spans))
    table.add_row("modes", *(", ".join(f"{mode} {n:,}" for mode, n in split.modes.items()) for split in splits))
    if any(split.labels for split in splits):
        table.add_row("classes", *(f"{len(split.labels):,}" for split in splits))
    console.print(table)
    listed: list[tuple[str, list[str]]] = [("left out on opening", [str(each) for each in report.rejected])]
    for name, split in report.splits.items():
        listed.append((f"{name}: cannot be read", [each.why for each in split.unreadable]))
        listed.append((f"{name}: small", [str(each) for each in split.small]))
        listed.append((f"{name}: same pixels, other image_id", [" = ".join(pair) for pair in split.same_pixels]))
    for each in report.overlaps:
        both = f"{each.first} and {each.second}"
        listed.append((f"{both}: same picture", [" = ".join(pair) for pair in each.picture_pairs]))
        listed.append((f"{both}: nearly the same", [f"{a} ~ {b} ({bits} bits)" for a, b, bits in each.near_pairs]))
        listed.append((f"{both}: same caption", each.shared_captions))
    for title, lines in listed:
        for line in ([f"{title}:"] if lines else []) + [f"  {line}" for line in lines[:_SHOWN]]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(lines) > _SHOWN:
            console.print(f"  ... and more; --json lists {len(lines):,}", style="dim")
    for finding in report.findings:
        console.print(f"! {finding}", style="yellow", markup=False, highlight=False)
    if not report.findings:
        console.print("nothing to complain about", style="green")


def _show(asked: Show) -> int:
    sources = _splits(asked)
    scenes = sources[0]
    if isinstance(scenes, Scenes):
        # Of an endless world any split shows what there is; the row beside each is drawn as well.
        source: Source = scenes
        rows = spread_rows(len(source), asked.rows or 6)
        sheet = annotated_sheet(scenes, rows)
    else:
        source = sources[0] if len(sources) == 1 else Joined(sources[0].name, ALL, sources)
        rows = spread_rows(len(source), asked.rows or 24)
        sheet = contact_sheet(source, rows, asked.columns)
    try:
        Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(asked.out, "PNG")
    except OSError as error:
        raise DataError(f"{asked.out} cannot be written ({error.strerror or error}); choose another --out") from error
    if asked.json:
        _emit({"task": "data show", "data": source.name, "split": source.split, "out": asked.out, "rows": rows})
    else:
        Console().print(
            f"{len(rows)} of {len(source):,} rows of {source.name}: {asked.out}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _shard(asked: Shard) -> int:
    written = write_shards(_splits(asked), asked.out, asked.rows_per_shard)
    if asked.json:
        skipped = [asdict(each) for each in written.skipped]
        _emit(
            {
                "task": "data shard",
                "data": asked.spec,
                "shards": list(map(str, written.tars)),
                "rows": written.rows,
                "skipped": skipped,
            }
        )
        return 0
    console = Console()
    console.print(
        f"{written.rows:,} rows in {len(written.tars):,} shards: {asked.out}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for each in written.skipped[:_SHOWN]:
        console.print(f"  left out: {each.why}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(written.skipped) > _SHOWN:
        console.print(f"  ... and {len(written.skipped) - _SHOWN:,} more", style="yellow")
    return 0
