"""What `check` counts and finds, on data in which it is planted."""

import io
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multiway.data.check import check
from multiway.data.duplicates import close_pairs, difference_hash, pixel_hash
from multiway.data.rejected import Rejected
from multiway.data.source import BadRow, Row


class Planted:
    """A source from lists: (picture or None, image_id, captions)."""

    name, classes, templates, fingerprint = "planted", ("cat", "dog"), ("{}",), ""

    def __init__(self, split, rows, rejected=()):
        self.split, self.rows, self.rejected = split, rows, list(rejected)
        self.decoded = 0

    def __len__(self):
        return len(self.rows)

    def row(self, index):
        _, image_id, captions = self.rows[index]
        return Row(f"{self.split}-{index}", image_id, captions, index % 2, f"row {index}")

    def image(self, index):
        self.decoded += 1
        if self.rows[index][0] is None:
            raise BadRow(f"row {index}: truncated")
        return self.rows[index][0]


def scene(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A smooth random picture, unlike every other."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_counts():
    rows = [
        (scene(0), 1, ("a cat", "a cat on a mat")),
        (scene(0), 1, ("a cat",)),
        (scene(1, (10, 40)).convert("L"), 2, ("one two three",)),
        (None, 3, ("lost",)),
        (None, 3, ("lost too",)),
    ]
    source = Planted("train", rows, [Rejected("x, line 1", "empty")])
    report = check(source)
    split = report.splits["train"]
    assert (split.rows, split.pictures, split.captions, split.distinct_captions) == (5, 3, 6, 5)
    assert split.words == {1: 1, 2: 3, 3: 1, 5: 1}
    assert split.sizes == {"width": (10, 53, 96), "height": (40, 60, 80)} and split.modes == {"RGB": 1, "L": 1}
    assert split.labels == {"cat": 3, "dog": 2}
    assert split.unreadable == [Rejected("row 3", "row 3: truncated")] and split.unreadable_rows == 2
    assert [each.where for each in split.small] == ["row 2"]
    assert source.decoded == 3  # once per picture
    assert len(report.findings) == 3


def test_clean_data_have_no_findings():
    sources = [
        Planted(name, [(scene(base + n), base + n, (f"{name} {n}",)) for n in range(20)])
        for base, name in ((0, "train"), (99, "val"))
    ]
    assert check(sources).findings == []


def test_pictures_and_captions_that_leak_are_found():
    train = Planted("train", [(scene(n), n, (f"train {n}",)) for n in range(10)])
    glass = Image.new("RGBA", (96, 80))
    leaks = [
        (scene(3), 103, ("train 4",)),
        (recompressed(scene(5), 60), 105, ("val 5",)),
        (scene(7).resize((48, 40)), 107, ("val 7",)),
        (scene(50), 150, ("train 1",)),
        (glass, 151, ("flat",)),
    ]
    report = check([train, Planted("val", leaks)])
    [overlap] = report.overlaps
    assert overlap.picture_pairs == [("train-3", "val-0")] and overlap.pictures == 1
    assert (
        sorted(pair[:2] for pair in overlap.near_pairs) == [("train-5", "val-1"), ("train-7", "val-2")]
        and overlap.near == 2
    )
    assert overlap.shared_captions == ["train 1", "train 4"]
    assert report.splits["val"].flat == 1
    assert [line for line in report.findings if "of val are also in train" in line] == report.findings


def test_same_pixels_under_two_ids_are_found():
    report = check(Planted("train", [(scene(0), 1, ("a",)), (scene(0), 2, ("b",)), (scene(0), 1, ("c",))]))
    assert report.splits["train"].same_pixels == [("train-0", "train-1")]


def test_report_is_json():
    report = check(
        [Planted("train", [(scene(0), 0, ("a",)), (None, 1, ("b",))]), Planted("val", [(scene(0), 2, ("a",))])]
    )
    value = json.loads(json.dumps(report.to_dict()))
    assert value["task"] == "data check" and value["splits"]["train"]["words"] == {"1": 2}
    assert value["overlaps"][0]["picture_pairs"] == [["train-0", "val-0"]]
    assert value["splits"]["train"]["unreadable"] == [{"where": "row 1", "why": "row 1: truncated"}]


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(0, 2**64 - 1), max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=6)), max_size=12),
    near=st.integers(0, 8),
)
def test_close_pairs_equal_counting_bits(first, flips, near):
    second = [first[place % len(first)] ^ sum(1 << bit for bit in bits) for place, bits in flips] if first else []
    slow = [
        (i, j, (a ^ b).bit_count())
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if (a ^ b).bit_count() <= near
    ]
    found = close_pairs(np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64), near)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == slow


def test_close_pairs_across_blocks(monkeypatch):
    monkeypatch.setattr("multiway.data.duplicates._BLOCK", 280)
    hashes = np.random.default_rng(0).integers(0, 2**63, 40).astype(np.uint64)
    rows, columns, distances = close_pairs(hashes, hashes[::-1].copy())
    assert (rows + columns == 39).all() and len(rows) == 40 and not distances.any()


def test_pixel_hash_sees_pixels_not_files():
    image = scene(0).quantize(16)
    assert pixel_hash(image) == pixel_hash(image.convert("RGB")) == pixel_hash(image.convert("RGBA"))
    changed = image.convert("RGB")
    changed.putpixel((5, 5), (1, 2, 3))
    assert pixel_hash(changed) != pixel_hash(image)
    assert pixel_hash(Image.new("L", (2, 8))) != pixel_hash(Image.new("L", (8, 2)))
    unseen = [Image.new("RGBA", (4, 4), (colour, 0, 0, 0)) for colour in (0, 200)]
    assert pixel_hash(unseen[0]) == pixel_hash(unseen[1])


@pytest.mark.parametrize("seed", range(5))
def test_difference_hash_by_hand(seed):
    image = scene(seed, (90, 80)).convert("L")
    cells = np.asarray(image, dtype=float).reshape(8, 10, 9, 10).mean((1, 3)).round()
    bits = "".join("1" if cells[y, x + 1] > cells[y, x] else "0" for y in range(8) for x in range(8))
    # Box means may round half-way cases differently.
    assert (difference_hash(image) ^ int(bits, 2)).bit_count() <= 1
    assert difference_hash(Image.new("RGB", (30, 30), "green")) is None


def test_pairs_of_a_hundred_thousand_are_quick():
    draw = np.random.default_rng(0)
    train, test = (draw.integers(0, 2**64, count, dtype=np.uint64) for count in (20_000, 2_000))
    test[:5] = train[:5] ^ np.uint64(5)
    begin = time.perf_counter()
    rows, columns, distances = close_pairs(train, test)
    # A hundredth of what the name says is checked; a slow way (a Python loop) would take a minute.
    assert time.perf_counter() - begin < 10
    assert rows.tolist() == columns.tolist() == list(range(5)) and set(distances.tolist()) == {2}
