"""What `multiway data check` found, for people: a table, the first of each list, and a sentence for whatever deserves attention."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.data.check_examples import ExamplesReport
from multiway.data.check_report import CheckReport

__all__ = ["print_examples", "print_sources"]

_SHOWN = 10  # entries of each list that are printed; --json has all


def print_examples(report: ExamplesReport, console: Console) -> None:
    """One split of a benchmark, then what was found."""
    table = Table("", escape(report.split), title=escape(report.data))
    table.add_row("examples", f"{report.examples:,} {report.kind}")
    table.add_row("without an answer", f"{report.withheld:,}")
    table.add_row("pictures", f"{report.pictures:,}")
    table.add_row("words of a text", "{} to {}".format(*report.words))
    for name, counts in (("classes", report.labels), ("groups", report.groups)):
        if counts:
            most = sorted(counts.items(), key=lambda each: -each[1])[:_SHOWN]
            more = f", and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
            table.add_row(name, escape(", ".join(f"{what} {n:,}" for what, n in most) + more))
    console.print(table)
    _listed(console, "left out on opening", report.rejected)
    _listed(console, "cannot be read", list(map(str, report.unreadable)))
    _findings(console, report.notes, report.findings)


def print_sources(report: CheckReport, console: Console) -> None:
    """Pictures with captions, a column for each split, then what was found."""
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
        _listed(console, title, lines)
    _findings(console, report.notes, report.findings)


def _listed(console: Console, title: str, lines: list[str]) -> None:
    for line in ([f"{title}:"] if lines else []) + [f"  {line}" for line in lines[:_SHOWN]]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(lines) > _SHOWN:
        console.print(f"  ... and more; --json lists {len(lines):,}", style="dim")


def _findings(console: Console, notes: list[str], findings: list[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(f"! {finding}", style="yellow", markup=False, highlight=False)
    if not findings:
        console.print("nothing to complain about", style="green")
