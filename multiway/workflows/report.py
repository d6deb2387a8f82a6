"""`report.html` of a run: curves beside their chance values, scores with intervals, what a search finds, what to try next.

One file without links to anywhere: pictures and plots are inside it, so it can be mailed. Everything in it is computed
from the run folder and the data; nothing is typed in.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multiway.data.open import ALL, open_source, parse, parts_of, splits_of, subsets_of
from multiway.data.source import BadRow, DataError, Source
from multiway.data.thumbnail import picture_uri
from multiway.engine.run import Run
from multiway.hub.layouts import COUNTERPARTS
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.tasks import TASKS, Result
from multiway.tasks.knn import Knn
from multiway.tasks.probe import LinearProbe
from multiway.tasks.retrieval import RetrievalDetails
from multiway.workflows.encoded_once import EncodedOnce
from multiway.workflows.explain import Asked, Explained, explain
from multiway.workflows.explain_kinds import caption_section
from multiway.workflows.explain_map import spread_rows
from multiway.workflows.fusion import Fused, fused_section, masked_words, spread
from multiway.workflows.run_page import write_page

__all__ = ["Query", "Shown", "held_out_splits", "layout_of", "queries", "query_of", "write_report"]


_MAPPED = 200  # pictures on the map of a model that reads texts, beside all else that its report has


@dataclass(frozen=True)
class Shown:
    """One picture of a gallery: its data URI, caption, cosine, and whether it is a right answer."""

    picture: str
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Query:
    """One search: the words, the rank of the right picture, the five best pictures and, if missed, the right one."""

    words: str
    rank: float
    of: int
    found: list[Shown]
    wanted: Shown | None = None


@dataclass
class Section:
    """One split: its scores and some of its searches."""

    title: str
    result: Result
    hits: list[Query] = field(default_factory=list)
    misses: list[Query] = field(default_factory=list)


def queries(source: Source, details: RetrievalDetails, count: int = 6) -> tuple[list[Query], list[Query]]:
    """Some searches that put the right picture first, and some that did not, chosen evenly over the split.

    They are not the best or the worst ones: every n-th hit and every n-th miss.
    """
    ranking = details.image_retrieval
    first = [query for query in range(len(ranking)) if ranking.rank[query] <= 1]
    later = [query for query in range(len(ranking)) if ranking.rank[query] > 1]
    pictures: dict[int, str] = {}

    def query(number: int) -> Query:
        return query_of(source, details, number, pictures)

    return [query(number) for number in spread(first, count)], [query(number) for number in spread(later, count)]


def query_of(source: Source, details: RetrievalDetails, number: int, pictures: dict[int, str]) -> Query:
    """One search by words, by its number among the gallery's texts.

    Args:
        pictures: data URIs by row, kept for the next query.
    """
    ranking, gallery = details.image_retrieval, details.gallery

    def shown(place: int, score: float, right: bool) -> Shown:
        row = gallery.rows[place]
        if row not in pictures:
            pictures[row] = picture_uri(source.image(row))
        return Shown(pictures[row], source.row(row).captions[0], score, right)

    answers = set(gallery.pictures_of[number].tolist())
    found = [
        shown(int(place), float(score), int(place) in answers)
        for place, score in zip(ranking.top[number], ranking.scores[number], strict=True)
    ]
    wanted = None if any(each.right for each in found) else shown(min(answers), float("nan"), True)
    return Query(gallery.texts[number], float(ranking.rank[number]), len(gallery.rows), found, wanted)


def data_of(config: dict[str, Any]) -> tuple[str, str]:
    """What a run was trained on: the data's name, and the split of it; where several were mixed, the first."""
    spec = parts_of(config["data"])[0]
    return str(replace(spec, split="")), spec.split or "train"


def held_out_splits(config: dict[str, Any]) -> list[str]:
    """The splits to report: every one of the run's data that is not trained on, and subsets that have a name."""
    found = []
    parts = parts_of(config["data"])
    for name in dict.fromkeys(str(replace(part, split="")) for part in parts):
        trained = {part.split or "train" for part in parts if str(replace(part, split="")) == name}
        if ALL not in trained:
            splits = [split for split in splits_of(name, **layout_of(config)) if split not in trained]
            found += [f"{name}@{split}" for split in (*splits, *subsets_of(name))]
    return found


def layout_of(config: dict[str, Any]) -> dict[str, Any]:
    """Where and under which names a caption file keeps its columns, for `open_source`."""
    columns = {column: config[column] or None for column in ("image_column", "caption_column")}
    return {"images": config["images"], **columns}


def write_report(folder: Path, model: Model | None = None) -> Path:
    """Evaluate the run on every held-out split of its data and write `report.html`.

    Args:
        folder: of the run.
        model: by default the run's own weights.

    Returns:
        The report's path.
    """
    run = Run.read(folder)
    model = model or load(folder)
    config = run.config
    sections: list[Section] = []
    fused: list[Fused] = []
    tables: list[Result] = []
    others: list[Result] = []
    looked = Explained()
    absent: list[str] = []
    frozen: EncodedOnce | None = None
    able = model.abilities()
    for spec in held_out_splits(config):
        source = open_source(spec, **layout_of(config))
        if len(source) == 0:
            continue
        alone = "encode_text" not in able
        once = EncodedOnce(model, source) if frozen is None else frozen.beside(source)
        if "encode_image" in able and not looked.sections:
            looked = _looked_into(model, once, alone)
        if "encode_image" in able and alone:
            frozen = once
            for task in (Knn(), LinearProbe()):
                try:
                    train = open_source(str(replace(parse(spec), split=task.train)), **layout_of(config))
                    others.append(frozen.run(frozen.taught(task, train)))
                except DataError as error:  # without labels, or with too few: the rest of the report is still wanted
                    absent.append(f"{task.name} on {spec}: {error}")
            continue
        if "caption_likelihood" in able:
            others.append(once.run(TASKS["captioning"]))
        if "compare" not in able:
            # Nothing is searched by what has no shared space; it matches, guesses or writes.
            others += [once.run(TASKS["matching"])] if "match" in able else []
            others += [guessed] if (guessed := masked_words(once)) is not None else []
            continue
        if "match" in able:
            fused.append(fused_section(once, picture_uri))
            result = fused[-1].retrieval
        else:
            result = once.run(TASKS["retrieval"])
        hits, misses = queries(source, result.details)
        sections.append(Section(f"{source.name}@{source.split}", result, hits, misses))
        # Accuracy over one class says nothing: the best constant answer is always right.
        if len({source.row(index).label for index in range(len(source))} - {-1}) > 1:
            tables.append(once.run(TASKS["zeroshot"]))
    commands = _commands(folder, config, model, sections, others, bool(tables))
    titled = [(_title(each), each) for each in others]
    shown = {"sections": sections, "zeroshot": tables, "fused": fused, "others": titled}
    shown |= {"explained": looked.sections, "absent": [*absent, *looked.absent] if frozen else []}
    return write_page(run, "report.html.j2", model, commands, **shown)


def _title(result: Result) -> str:
    """What people call the task: its `title` where it has one, or else its name in words."""
    return str(getattr(TASKS[result.task], "title", result.task.replace("-", " ").capitalize()))


def _looked_into(model: Model, once: EncodedOnce, alone: bool, count: int = 4) -> Explained:
    """What the network sees in a few pictures of a split, how pictures lie to one another, and where captions are seen."""
    source = once.source
    rows = spread_rows(source, count)
    try:
        pictures = [(source.row(row).key, source.image(row)) for row in rows]
        found = explain(model, pictures, Asked(rows=500 if alone else _MAPPED), source, rows, once)
        found.add(caption_section([(model.name, model)], source) or "")
        return found
    except (BadRow, DataError) as error:
        return Explained(absent=[f"what the network sees: {error}"])


def _commands(
    folder: Path, config: dict[str, Any], model: Model, sections: list[Section], others: list[Result], labelled: bool
) -> list[tuple[str, str]]:
    """What to try next, with this run's own names in it, quoted for the shell: captions and paths come from strangers."""
    fields = (("--images", "images"), ("--image-column", "image_column"), ("--caption-column", "caption_column"))
    own = "".join(f" {option} {shlex.quote(config[name])}" for option, name in fields if config[name])
    name, _ = data_of(config)
    data, run, able = shlex.quote(config["data"]), shlex.quote(str(folder)), model.abilities()
    mixed = f" --data {shlex.quote(name)}" if len(parts_of(config["data"])) > 1 else ""
    commands = []
    if "compare" in able:
        query = "red fruit" if name == "emoji" or not sections else sections[0].result.details.gallery.texts[0]
        commands += [(f"multiway search {run} {shlex.quote(query)}{mixed}", "search these pictures by words")]
    if "encode_image" in able:
        commands += [(f"multiway explain {run} --image PICTURE", "look into what it sees in a picture")]
    measures = [("retrieval", "measure it, also on other data")] if sections else []
    measures += [(task, "measure it, also on other data") for task in dict.fromkeys(each.task for each in others)]
    if sections and "match" in able:
        measures += [("rerank --top 32", "let the fused encoder look further down the list")]
        measures += [("rerank --mix 1 --tau 0.05", "weigh the cosine beside the match")]
    measures += [("zeroshot", "classify by words alone")] if labelled else []
    for held in [each.title for each in sections[-1:]] or [f"{each.data}@{each.split}" for each in others[-1:]]:
        commands += [
            (f"multiway eval {run} --task {task} --data {shlex.quote(held)}{own}", why) for task, why in measures
        ]
    commands += [
        (f"multiway doctor {run}", "what ails this run, if anything does"),
        (
            f"multiway train {config['recipe']} --data {data}{own} --steps {3 * config['settings']['steps']} --out runs/longer",
            "train longer",
        ),
        ("multiway data check captions.jsonl --images pictures/", "look at your own pairs"),
        (
            f"multiway train {config['recipe']} --data captions.jsonl --images pictures/ --out runs/mine",
            "and train on them",
        ),
    ]
    if model.name in COUNTERPARTS:  # what transformers has a layout for
        commands += [
            (f"multiway convert {run} clip-folder", "use it from transformers, if its form has a counterpart there")
        ]
    return commands
