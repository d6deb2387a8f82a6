"""Some rows of a source, under its name."""

from multiway.data.open import open_source
from multiway.data.source import DrawsBatches, KnowsTruth, KnowsWords, Source
from multiway.data.subset import Subset


def test_rows_are_spread_evenly_and_keep_what_they_are() -> None:
    whole = open_source("scenes:easy,gallery=50@test")
    some = Subset(whole, 10)
    assert isinstance(some, Source) and isinstance(some, KnowsWords) and len(some) == 10
    assert [some.row(i).key for i in range(10)] == [whole.row(5 * i).key for i in range(10)]
    assert some.image(3).tobytes() == whole.image(15).tobytes()
    assert (some.name, some.split, some.classes) == (whole.name, whole.split, whole.classes)
    # Whole batches are drawn by the source's own numbers, which are not these.
    assert isinstance(whole, DrawsBatches) and not isinstance(some, DrawsBatches)
    assert len(Subset(whole, 500)) == len(whole)


def test_what_is_asked_of_a_row_is_answered_of_that_row() -> None:
    """A subset once passed its numbers on as they were, and so told the truth about other pictures."""
    whole = open_source("scenes:easy,gallery=50@test")
    some = Subset(whole, 10)
    assert isinstance(some, KnowsTruth)
    for row in range(10):
        assert some.holds(row, some.row(row).captions[0]) and some.scene(row) == whole.scene(5 * row)
    emoji = open_source("emoji@random")
    few = Subset(emoji, 7)
    assert [few.encoded(i) for i in range(7)] == [emoji.encoded(i * len(emoji) // 7) for i in range(7)]
