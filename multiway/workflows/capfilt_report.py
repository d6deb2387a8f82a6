"""`report.html` of a cleaning: counts, score histograms, what was kept and dropped with pictures, and how right that was."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiway.data.source import Source
from multiway.data.thumbnail import picture_uri
from multiway.workflows.capfilt_figures import BINS, Figures
from multiway.workflows.capfilt_scores import Caption, Scored
from multiway.workflows.run_page import environment

__all__ = ["Example", "examples", "histogram", "write_capfilt_report"]

_SHOWN = 12


@dataclass(frozen=True)
class Example:
    """A picture with one of its captions, as a data URI."""

    picture: str
    caption: Caption
    noise: str


@dataclass
class _Sample:
    """So many of a stream, spread over it, when nobody knows how long it will be: every `stride`-th, which doubles."""

    room: int
    stride: int = 1
    seen: int = 0
    items: list[tuple[Scored, Caption]] = field(default_factory=list)

    def offer(self, each: Scored, caption: Caption) -> None:
        if self.seen % self.stride == 0:
            self.items.append((each, caption))
            if len(self.items) > 2 * self.room:
                self.items = self.items[::2]
                self.stride *= 2
        self.seen += 1

    def drawn(self) -> list[tuple[Scored, Caption]]:
        count = min(self.room, len(self.items))
        return [self.items[(2 * place + 1) * len(self.items) // (2 * count)] for place in range(count)]


def examples(
    source: Source, scored: Iterable[Scored], keeps: Any, count: int = _SHOWN
) -> dict[tuple[str, bool], list[Example]]:
    """Pictures with a caption that was kept or dropped, by (origin, kept), evenly spread over the rows and not chosen.

    Args:
        source: of the pictures.
        scored: records, read once.
        keeps: whether a caption stays.
        count: of each.
    """
    samples = {(origin, kept): _Sample(count) for origin in ("web", "synthetic") for kept in (False, True)}
    for each in scored:
        told: set[tuple[str, bool]] = set()
        for caption in each.captions:
            key = (caption.origin, bool(keeps(caption)))
            if key not in told:  # one of a picture's paraphrases is enough
                samples[key].offer(each, caption)
                told.add(key)
    return {
        key: [Example(picture_uri(source.image(each.row)), caption, each.noise) for each, caption in sample.drawn()]
        for key, sample in samples.items()
    }


def histogram(counts: dict[str, list[int]], threshold: float) -> dict[str, Any]:
    """Bars for the template: heights in [0, 1] of each bin, stacked by truth, and where the threshold lies.

    Heights are roots of counts: a filter that is sure puts nearly all of them into two bins.
    """
    most = max(sum(column) for column in zip(*counts.values(), strict=True))
    bars = []
    for place in range(BINS):
        total = sum(column[place] for column in counts.values())
        height, base = math.sqrt(total / most) if most else 0.0, 0.0
        for truth, column in counts.items():
            part = height * column[place] / total if total else 0.0
            bars.append({"bin": place, "truth": truth, "base": base, "height": part, "count": column[place]})
            base += part
    return {"bars": bars, "threshold": threshold, "most": most}


def write_capfilt_report(
    path: Path, run: str, asked: Any, source: Source, scored: Iterable[Scored], rounds: Sequence[Any]
) -> Path:
    """Write the page of a cleaning; of several rounds the last is shown, beside the figures of all.

    Args:
        path: of the page.
        run: the pre-trained one.
        asked: a `CapFilt`.
        source: the noisy pairs.
        scored: records of the last round.
        rounds: `Cleaning`s.
    """
    figures: Figures = rounds[-1].figures
    folder = rounds[-1].folder
    names = list(dict.fromkeys(name for each in rounds for name in each.figures.metrics))
    clean = shlex.quote(str(folder / "shards"))
    page = (
        environment()
        .get_template("capfilt.html.j2")
        .render(
            run=run,
            asked=asked,
            rounds=rounds,
            figures=figures,
            names=names,
            histograms={origin: histogram(counts, asked.threshold) for origin, counts in figures.histograms.items()},
            bins=BINS,
            examples=examples(source, scored, asked.verdict.keeps),
            known=any(name.endswith("/wrong") for name in names),
            commands=[
                (f"multiway train blip --data {clean} --out runs/clean", "train on what is left"),
                (f"multiway data show {clean} --out sheet.png", "look at it"),
                (f"multiway data check {clean}", "count it"),
            ],
        )
    )
    path.write_text(page, encoding="utf-8")
    return path
