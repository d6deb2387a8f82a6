"""`multiway filter`: every caption scored with its picture, and the pairs that are good enough written as clean shards.

    OUT/scores/000012.parquet       row, key, image_id, where, caption, score: of every pair
    OUT/shards/train-000012.tar     what is kept: pictures with those of their captions that are

By `itm` the score is the probability, by the fused encoder, that the two belong together (Li et al., BLIP, 2022, arXiv 2201.12086,
section 3.3); by `itc` it is the cosine of their embeddings (Schuhmann et al., LAION-400M, 2021, arXiv 2111.02114, keep those above
0.3 of CLIP's), or what `compare` says where a method has no such vectors. Scores are kept: another threshold on the same folder
only writes the shards anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of, require
from multiway.config import ConfigError
from multiway.data.parquet import read_columns, require_pyarrow
from multiway.data.shard_writer import write_facts
from multiway.data.source import Source
from multiway.engine.agreement import on_main
from multiway.hub.model import Model
from multiway.tasks.embed import checked, encode_texts
from multiway.workflows.blocks import Block
from multiway.workflows.bulk import Asked, Bulk, Say, Totals
from multiway.workflows.bulk_caption import shard_writer, shards_of
from multiway.workflows.bulk_pictures import Picture, drawn_parts, pixels_of, skipped_of
from multiway.workflows.bulk_place import Part, Place, Skipped, Writer, table
from multiway.world import World

__all__ = ["By", "Filter", "Filtered", "filter_pairs", "way_of"]

By = Literal["itm", "itc"]

_TILE = 16  # pairs compared at once token by token, all with all, of which the diagonal is wanted


@dataclass(frozen=True)
class Filter:
    """What is kept.

    Attributes:
        by: `itm`, read together, or `itc`, each by itself.
        threshold: least score that stays.
        keep: share of the pairs that stays, those with the highest scores; in place of a threshold.
    """

    by: By = "itm"
    threshold: float | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.keep is None):
            given = "both" if self.keep is not None else "neither"
            raise ConfigError(f"filter wants a --threshold or a share to --keep; given {given}")
        if self.keep is not None and not 0.0 < self.keep <= 1.0:
            raise ConfigError(f"--keep is {self.keep}; expected a share of the pairs, above 0 and at most 1")


@dataclass(frozen=True)
class Filtered:
    """What a filter did.

    Attributes:
        scored: totals of the scoring: `pictures` and `pairs`.
        kept: totals of what was written: `pictures` and `pairs`.
        threshold: least score that stayed.
        quantiles: scores below which 1, 10, 25, 50, 75, 90 and 99 % of the pairs lie.
    """

    scored: Totals
    kept: Totals
    threshold: float
    quantiles: dict[str, float]


def way_of(model: Model, by: By | None) -> By:
    """How pairs are scored: as asked, else by matching where the model is able to."""
    if by is not None:
        return by
    return "itm" if "match" in abilities_of(model) else "itc"


def filter_pairs(
    model: Model, source: Source, how: Filter, asked: Asked, world: World, say: Say = lambda text: None
) -> Filtered:
    """Score what is not scored yet, decide, and write what stays.

    Raises:
        LacksAbility: if the model cannot score in this way.
        DataError: if too many pictures cannot be read, or pyarrow is missing.
        BulkError: if the folder holds another job, or cannot be written.
    """
    needs = ("match",) if how.by == "itm" else ("compare",)
    able = ("albef", "blip", "vilt", "vlmo") if how.by == "itm" else ("clip", "siglip", "albef", "blip")
    require(model, ("encode_image", "encode_text", *needs), f"filter --by {how.by}", able)
    require_pyarrow("multiway filter")
    with Bulk("filter", model, source, asked, {"by": how.by}, world, say) as job:
        scores = job.place("scores")
        scored = job.run(scores, lambda blocks: _scored(model, source, how.by, asked, blocks))
        threshold, quantiles = on_main(world, lambda: _decide(scores, job.blocks, how))
        kept = job.place("kept", {"threshold": threshold})
        on_main(world, lambda: _renew(kept))
        names = shards_of(job.blocks)
        written = job.run(kept, lambda blocks: _kept(source, scores, threshold, blocks, names), "pairs")
        on_main(world, lambda: write_facts(asked.out / "shards", source) if written.counts.get("pairs") else None)
        return Filtered(scored, written, threshold, quantiles)


def _scored(model: Model, source: Source, by: By, asked: Asked, blocks: Sequence[Block]) -> Iterator[Part]:
    for block, pictures, drawn in drawn_parts(source, blocks, model.processor.view, asked.batch, asked.workers):
        skipped: list[Skipped] = []
        whole: list[Picture] = []
        scores: list[float] = []
        for some in drawn:
            skipped += skipped_of(pictures, some)
            shown = [pictures[place] for place in some.places.tolist()]
            if shown:
                encoded = model.encode_image(pixels_of(model, some), tokens="only" if by == "itm" else False)
                scores += _scores(model, checked(encoded, len(shown), "encode_image", 0), shown, by).tolist()
                whole += shown
        yield _score_part(block, whole, scores, skipped)


def _scores(model: Model, encoded: Encoded, pictures: Sequence[Picture], by: By) -> Tensor:
    """(P,) score of every caption of these pictures, picture by picture."""
    of = torch.tensor([place for place, picture in enumerate(pictures) for _ in picture.captions])
    texts = [caption for picture in pictures for caption in picture.captions]
    words = encode_texts(model, texts, tokens="only" if by == "itm" else False)
    if by == "itc" and encoded.has_embedding:
        return (encoded.embedding[of] * words.embedding).sum(1)
    # Pairs of like length together: nothing is computed for padding.
    lengths = words.mask.sum(1) if words.mask is not None else torch.zeros(len(texts))
    order = lengths.argsort(stable=True)
    scores = torch.empty(len(texts))
    for some in order.split(max(1, model.batch // 4) if by == "itm" else _TILE):
        shown, said = encoded.rows(of[some]), words.rows(some)
        scores[some] = model.match(shown, said).sigmoid() if by == "itm" else model.compare(shown, said).diagonal()
    if not scores.isfinite().all():
        raise ValueError(
            f"{model.name} scored {int((~scores.isfinite()).sum())} of {len(scores)} pairs with nan or inf"
        )
    return scores


def _score_part(block: Block, pictures: Sequence[Picture], scores: Sequence[float], skipped: list[Skipped]) -> Part:
    pairs = [(picture, caption) for picture in pictures for caption in picture.captions]
    columns: dict[str, Any] = {
        "row": [picture.row for picture, _ in pairs],
        "key": [picture.key for picture, _ in pairs],
        "image_id": [picture.image_id for picture, _ in pairs],
        "where": [picture.where for picture, _ in pairs],
        "caption": [caption for _, caption in pairs],
        "score": scores,
    }
    files: dict[str, Writer] = {_score_file(block): table(columns)} if pairs else {}
    return Part(block.number, len(block.rows), files, {"pictures": len(pictures), "pairs": len(pairs)}, skipped)


def _score_file(block: Block) -> str:
    return f"scores/{block.number:06d}.parquet"


def _decide(place: Place, blocks: Sequence[Block], how: Filter) -> tuple[float, dict[str, float]]:
    """The least score that stays, and how scores are spread."""
    there = [place.folder / _score_file(block) for block in blocks]
    found = [read_columns(path, ["score"]).column(0).to_numpy() for path in there if path.exists()]
    scores = np.sort(np.concatenate(found)) if found else np.zeros(0, np.float32)
    quantiles = (
        {f"{q}": float(np.quantile(scores, q / 100)) for q in (1, 10, 25, 50, 75, 90, 99)} if len(scores) else {}
    )
    if how.threshold is not None:
        return how.threshold, quantiles
    assert how.keep is not None
    stay = max(1, round(how.keep * len(scores)))
    return (float(scores[-stay]) if len(scores) else 0.0), quantiles


def _renew(place: Place) -> None:
    """Shards of another threshold are written anew; no model is asked for that."""
    decided = place.folder / "threshold.json"
    if not decided.exists() or decided.read_text() != repr(place.identity["threshold"]):
        place.clear(["shards"])
        decided.write_text(repr(place.identity["threshold"]))


def _kept(
    source: Source, scores: Place, threshold: float, blocks: Sequence[Block], names: dict[int, str]
) -> Iterator[Part]:
    field = {"itm": "match", "itc": "cosine"}[scores.identity["settings"]["by"]]
    for block in blocks:
        path = scores.folder / _score_file(block)
        rows = []
        if path.exists():
            lines = read_columns(path, ["row", "caption", "score"]).to_pylist()
            for row, pairs in groupby(lines, key=lambda line: line["row"]):
                stay = [pair for pair in pairs if pair["score"] >= threshold]
                if stay:
                    rows.append((row, [pair["caption"] for pair in stay], {field: [_short(p["score"]) for p in stay]}))
        skipped: list[Skipped] = []
        counts = {"pictures": len(rows), "pairs": sum(len(said) for _, said, _ in rows)}
        files: dict[str, Writer] = (
            {f"shards/{names[block.number]}": shard_writer(source, rows, skipped)} if rows else {}
        )
        yield Part(block.number, len(block.rows), files, counts, skipped)


def _short(score: float) -> float:
    return round(score, 6)
