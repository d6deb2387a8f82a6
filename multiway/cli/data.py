"""`multiway data check|show|shard|index`: look at one's data before training on them, pack them, and index what is packed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from multiway.cli.data_index import Index, run_index
from multiway.cli.data_tables import print_examples, print_sources
from multiway.data.annotated.open import names_examples, open_examples
from multiway.data.check import check, notes_of
from multiway.data.check_examples import check_examples
from multiway.data.join import Joined
from multiway.data.open import ALL, open_splits
from multiway.data.scenes.sheet import annotated_sheet
from multiway.data.scenes.source import Scenes
from multiway.data.shard_writer import write_shards
from multiway.data.sheet import contact_sheet, spread_rows
from multiway.data.source import DataError, Source
from multiway.data.spec import is_mixed, parse

__all__ = ["Check", "Shard", "Show", "run"]

_SHOWN = 10  # rows left out that are printed for people; --json has all


@dataclass(frozen=True)
class Data:
    """Which data.

    Attributes:
        spec: `name[@split]`: a bundled set, a caption file, a folder, or a pattern of shards; to be checked also a benchmark,
            `vqa:FOLDER@val`, or several sources, `a.jsonl + b/`.
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
    | Annotated[Index, tyro.conf.subcommand("index", prefix_name=False)]
)


def run(args: list[str]) -> int:
    """Do what is asked; 1, with a message, where the data cannot be used.

    Raises:
        SystemExit: on bad usage, as argument parsers do.
    """
    asked: Check | Show | Shard | Index = tyro.cli(_Verb, args=args, prog="multiway data", description=__doc__)  # type: ignore[arg-type]
    try:
        if isinstance(asked, Check):
            return _check(asked)
        if isinstance(asked, Index):
            return run_index(asked)
        return _show(asked) if isinstance(asked, Show) else _shard(asked)
    except DataError as error:
        Console(stderr=True).print(
            f"multiway data: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1


def _splits(asked: Data, say: bool = True) -> list[Source]:
    """The splits that are asked for; what they say of themselves goes to the error stream, so that `--json` stays one object."""
    found = open_splits(asked.spec, asked.images, asked.image_column, asked.caption_column)
    for note in notes_of(found) if say else ():
        Console(stderr=True).print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    return found


def _emit(value: dict[str, Any]) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def _check(asked: Check) -> int:
    if names_examples(asked.spec):
        return _check_examples(asked)
    sources = _splits(asked, say=False)  # its report has them; of several data sets, what they share too
    with Progress(console=Console(stderr=True), transient=True, disable=asked.json) as bar:
        task = bar.add_task("reading", total=sum(len(source) for source in sources))
        report = check(sources, min_side=asked.min_side, progress=lambda rows: bar.advance(task, rows))
    report.data = asked.spec if is_mixed(asked.spec) else report.data
    if asked.json:
        _emit(report.to_dict())
    else:
        print_sources(report, Console())
    return 0


def _check_examples(asked: Check) -> int:
    examples = open_examples(asked.spec, images=asked.images)
    with Progress(console=Console(stderr=True), transient=True, disable=asked.json) as bar:
        task = bar.add_task("decoding", total=len(examples.pictures))
        report = check_examples(examples, lambda pictures: bar.advance(task, pictures))
    if asked.json:
        _emit(report.to_dict())
        return 0
    print_examples(report, Console())
    return 0


def _show(asked: Show) -> int:
    parse(asked.spec)  # a sheet is of one data set
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
    parse(asked.spec)  # mixed data are packed one by one, and keep their weights out of it
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
