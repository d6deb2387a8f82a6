"""How a source is cut: every row once, tars whole, pictures whole, whatever the size of the blocks."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToySource

from multiway.config import ConfigError
from multiway.data.join import Joined
from multiway.data.open import open_source
from multiway.data.shard_writer import write_shards
from multiway.workflows.blocks import blocks_of, whole_blocks_of


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 50))
def test_every_row_is_in_one_block_of_one_split(sizes: list[int], count: int) -> None:
    parts = []
    for number, size in enumerate(sizes):
        parts.append(ToySource(size))
        parts[-1].split = f"split{number}"
    blocks = whole_blocks_of(Joined("toy", "all", parts), count)
    assert [row for block in blocks for row in block.rows] == list(range(sum(sizes)))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert all(0 < len(block.rows) <= count and block.split.startswith("split") for block in blocks)


def test_joined_shards_are_cut_by_tar(tmp_path: Path) -> None:
    """Their splits lie in the same tars; a tar is read by one rank, from its beginning to its end."""
    source = ToySource(90)
    source.split = "web"  # states no split, so that rows are held out by their picture
    write_shards(source, tmp_path, rows_per_shard=40)
    joined = open_source(str(tmp_path), default_split="all")
    assert isinstance(joined, Joined) and len(joined.parts) == 3
    blocks = whole_blocks_of(joined, 7)
    # Pictures 0 to 4 are held out for testing, 5 to 9 for validation.
    assert [(len(block.rows), block.split) for block in blocks] == [(40, ""), (40, "train"), (10, "train")]
    keys = [joined.row(row).key for block in blocks for row in block.rows]
    assert keys == sorted(keys) and len(set(keys)) == 90
    train = open_source(f"{tmp_path}@train")
    assert [block.rows for block in whole_blocks_of(train, 7)] == [block.rows for block in blocks_of(train, 7)]
    assert {block.split for block in whole_blocks_of(train, 7)} == {"train"}


def test_captions_of_one_picture_stand_together(caption_folder: Path) -> None:
    lines = [json.dumps({"image": f"{n % 10:03}.png", "caption": f"{n}", "split": "train"}) for n in range(30)]
    (caption_folder / "many.jsonl").write_text("\n".join(lines))
    source = open_source(str(caption_folder / "many.jsonl"), caption_folder / "pictures", "all")
    blocks = whole_blocks_of(source, 4)
    in_blocks = Counter(
        source.row(row).image_id for block in blocks for row in {source.row(r).image_id: r for r in block.rows}.values()
    )
    assert len(in_blocks) == 10 and set(in_blocks.values()) == {1}
    assert sorted(row for block in blocks for row in block.rows) == list(range(30))
    assert blocks[0].rows == [0, 10, 20, 1, 11, 21] and blocks[0].split == "train"


def test_no_blocks_of_nothing() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        whole_blocks_of(ToySource(3), 0)
