"""`multiway caption`: captions written for every picture of a source.

    OUT/captions/000012.parquet     row, key, image_id, where, captions (written), given (that the source has)
    OUT/shards/train-000012.tar     the pictures with the captions that were written, as WebDataset shards

A shard's name states the split where the source's does; where rows of several splits lie in one shard, it states none, and opening
it holds the same pictures out as before. Draws depend on the seed and the first picture of their batch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiway.abilities import require
from multiway.config import to_json
from multiway.data.files import SPLIT_NAMES
from multiway.data.parquet import require_pyarrow
from multiway.data.rejected import Rejected
from multiway.data.shard_writer import write_facts, write_tar
from multiway.data.source import Row, Source, stable_id
from multiway.engine.agreement import on_main
from multiway.hub.model import Model
from multiway.methods import methods_with
from multiway.nn.generate import Generation
from multiway.tasks.written import without_prompt
from multiway.workflows.blocks import Block
from multiway.workflows.bulk import Asked, Bulk, Say, Totals
from multiway.workflows.bulk_pictures import Drawn, Picture, drawn_parts, pixels_of, skipped_of
from multiway.workflows.bulk_place import Part, Skipped, Writer, table
from multiway.world import World

__all__ = ["Caption", "caption", "shard_writer", "shards_of"]

STAGE = "captions"


@dataclass(frozen=True)
class Caption:
    """How captions are written.

    Attributes:
        generation: strategy, lengths and number of texts.
        prompt: that every caption begins with, cut off before it is kept.
        seed: of what is drawn.
        shards: write the pictures with their captions as well, not the table alone.
    """

    generation: Generation = Generation()
    prompt: str = ""
    seed: int = 0
    shards: bool = True


def caption(
    model: Model, source: Source, how: Caption, asked: Asked, world: World, say: Say = lambda text: None
) -> Totals:
    """Write what is not written yet.

    Raises:
        LacksAbility: if the model writes no captions.
        DataError: if too many pictures cannot be read, or pyarrow is missing.
        BulkError: if the folder holds another job, or cannot be written.
    """
    needs = ("encode_image", "generate")
    require(model, needs, "caption", methods_with(needs))
    require_pyarrow("multiway caption")
    with Bulk("caption", model, source, asked, to_json(how), world, say) as job:
        names = shards_of(job.blocks) if how.shards else {}
        found = job.run(job.place(STAGE), lambda blocks: _parts(model, source, how, asked, blocks, names))
        if how.shards:
            on_main(world, lambda: write_facts(asked.out / "shards", source))
        return found


def _parts(
    model: Model, source: Source, how: Caption, asked: Asked, blocks: Sequence[Block], names: Mapping[int, str]
) -> Iterator[Part]:
    for block, pictures, drawn in drawn_parts(source, blocks, model.processor.view, asked.batch, asked.workers):
        skipped: list[Skipped] = []
        written: list[tuple[Picture, list[str]]] = []
        for some in drawn:
            skipped += skipped_of(pictures, some)
            whole = [pictures[place] for place in some.places.tolist()]
            if whole:
                written += zip(whole, _write(model, some, whole, how), strict=True)
        yield _part(source, block, written, skipped, names.get(block.number, ""))


def _write(model: Model, drawn: Drawn, pictures: Sequence[Picture], how: Caption) -> list[list[str]]:
    encoded = model.encode_image(pixels_of(model, drawn), tokens=True)
    prompts = [how.prompt] * len(pictures) if how.prompt else None
    seed = stable_id(f"caption {how.seed} {pictures[0].key}")
    said = model.generate(encoded, how.generation, prompts, seed)
    # A captioner may end before it began, and draw the same twice.
    bare = [[without_prompt(text, how.prompt) for text in texts] for texts in said]
    return [list(dict.fromkeys(text for text in texts if text)) for texts in bare]


def _part(
    source: Source, block: Block, written: Sequence[tuple[Picture, list[str]]], skipped: list[Skipped], shard: str
) -> Part:
    columns: dict[str, Any] = {
        "row": [each.row for each, _ in written],
        "key": [each.key for each, _ in written],
        "image_id": [each.image_id for each, _ in written],
        "where": [each.where for each, _ in written],
        "captions": [texts for _, texts in written],
        "given": [list(each.captions) for each, _ in written],
    }
    files: dict[str, Writer] = {f"captions/{block.number:06d}.parquet": table(columns)} if written else {}
    if shard and written:
        rows = [
            (each.row, texts, {"origins": ["synthetic"] * len(texts), "given": list(each.captions)})
            for each, texts in written
            if texts
        ]
        files[f"shards/{shard}"] = shard_writer(source, rows, skipped)
    counts = {"pictures": len(written), "captions": sum(len(texts) for _, texts in written)}
    return Part(block.number, len(block.rows), files, counts, skipped)


def shards_of(blocks: Sequence[Block]) -> dict[int, str]:
    """The name of each block's shard: with the split if every block has one that is known everywhere, else without any."""
    stated = all(block.split in SPLIT_NAMES.values() for block in blocks)
    return {block.number: f"{block.split if stated else 'part'}-{block.number:06d}.tar" for block in blocks}


def shard_writer(
    source: Source, rows: Sequence[tuple[int, Sequence[str], Mapping[str, Any]]], skipped: list[Skipped]
) -> Callable[[Path], int]:
    """Writes pictures that have been decoded before as a shard.

    Args:
        source: of the pictures.
        rows: (row, captions in place of its own, further fields for the sample's JSON).
        skipped: receives the pictures that cannot be read any more.
    """

    def write(path: Path) -> int:
        lines = ((row, replace(source.row(row), captions=tuple(said)), more) for row, said, more in rows)
        done = write_tar(path, source, lines, decoded=True)
        skipped.extend(_lost(source, rows, done.skipped))
        return done.rows

    return write


def _lost(source: Source, rows: Sequence[tuple[int, Any, Any]], lost: Sequence[Rejected]) -> Iterator[Skipped]:
    """Records of what `write_tar` left out; it knows a row by where it stands."""
    why = {each.where: each.why for each in lost}
    for number, _, _ in rows if why else ():
        row: Row = source.row(number)
        if (row.where or row.key) in why:
            yield Skipped(number, row.key, row.where, why[row.where or row.key])
