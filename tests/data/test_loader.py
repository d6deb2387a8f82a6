from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySource

from multiway.batch import Batch, ViewSpec
from multiway.data import view_presets
from multiway.data.augment import DRAWS, finish
from multiway.data.loader import Loader, Order, PixelCache
from multiway.data.scenes.source import Scenes
from multiway.data.source import BadRow, DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec

VIEW = ViewSpec(size=16, augment="affine")


def tokenizer(source: ToySource) -> Tokenizer:
    captions = [caption for i in range(len(source)) for caption in source.row(i).captions]
    return Tokenizer.train(captions, TokenizerSpec(vocabulary=300, context=16))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 4))
@settings(deadline=None)
def test_every_row_once_per_epoch_whatever_the_batch_and_the_ranks(rows: int, batch: int, world: int) -> None:
    order = Order(rows, batch * world, seed=3)
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(2 + 3 * rows // (batch * world)):
        for rank in range(world):
            epochs, chosen = order.at(step, rank, world)
            seen.update(zip(epochs.tolist(), chosen.tolist(), strict=True))
    complete = (2 + 3 * rows // (batch * world)) * batch * world // rows
    assert complete >= 3
    assert all(seen[epoch, row] == 1 for epoch in range(complete) for row in range(rows))
    assert max(seen.values()) == 1


def same(one: Batch, other: Batch) -> bool:
    fields = ("images", "draws", "text", "text_mask", "word_starts", "labels", "image_id", "text_id", "sample_index")
    return one.captions == other.captions and all(torch.equal(getattr(one, f), getattr(other, f)) for f in fields)


def test_workers_change_nothing(toy_source: ToySource) -> None:
    words = tokenizer(toy_source)
    plain = Loader(toy_source, VIEW, words, batch=24, seed=5)
    forked = Loader(toy_source, VIEW, words, batch=24, seed=5, workers=2)
    pairs = list(zip(plain.batches(1, 6), forked.batches(1, 6), strict=True))
    assert len(pairs) == 5 and all(same(one, other) for one, other in pairs)
    assert same(plain.batch(3), pairs[2][0])  # any step can be drawn alone


def test_ranks_share_out_the_same_global_batch(toy_source: ToySource) -> None:
    whole = Loader(toy_source, VIEW, None, batch=12, seed=1).batch(4)
    parts = [Loader(toy_source, VIEW, None, batch=12, seed=1, rank=rank, world=3).batch(4) for rank in range(3)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.sample_index, whole.sample_index[rank::3])
        assert torch.equal(part.images, whole.images[rank::3]) and torch.equal(part.draws, whole.draws[rank::3])


def test_captions_of_a_picture_take_turns_over_epochs(toy_source: ToySource) -> None:
    loader = Loader(toy_source, VIEW, None, batch=64)
    chosen = {loader.batch(step).captions[list(loader.batch(step).sample_index).index(0)] for step in range(12)}
    assert chosen == set(toy_source.row(0).captions)


def test_ids_join_equal_captions() -> None:
    batch = Loader(ToySource(64), VIEW, None, batch=64).batch(0)
    captions = np.array(batch.captions)
    for row in range(64):
        assert ((batch.text_id == batch.text_id[row]).numpy() == (captions == captions[row])).all()
    assert len(set(batch.image_id.tolist())) == 64


class Broken(ToySource):
    """Every fourth picture cannot be read."""

    def image(self, index: int):
        if index % 4 == 0:
            raise BadRow(f"toy, row {index}: truncated")
        return super().image(index)


def test_unreadable_rows_are_replaced_counted_and_replayed() -> None:
    loader = Loader(Broken(64), VIEW, None, batch=32)
    batch = loader.batch(0)
    assert len(batch) == 32 and not any(index % 4 == 0 for index in batch.sample_index.tolist())
    assert len(batch.skipped) >= 7 and "truncated" in batch.skipped[0]
    assert same_without_text(batch, Loader(Broken(64), VIEW, None, batch=32).batch(0))


def same_without_text(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.sample_index, other.sample_index)


class Hopeless(ToySource):
    def image(self, index: int):
        raise BadRow(f"toy, row {index}: truncated")


def test_hopeless_data_stops_with_a_remedy() -> None:
    with pytest.raises(DataError, match="multiway data check"):
        Loader(Hopeless(8), VIEW, None, batch=4).batch(0)


@pytest.mark.parametrize(("rows", "batch", "world", "complaint"), [(0, 4, 1, "no rows"), (8, 5, 2, "multiple of 2")])
def test_what_cannot_work_is_refused(rows: int, batch: int, world: int, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Loader(ToySource(rows), VIEW, None, batch=batch, world=world)


class Counting(ToySource):
    decoded = 0

    def image(self, index: int):
        self.decoded += 1
        return super().image(index)


def test_no_picture_is_decoded_twice() -> None:
    source = Counting(16)
    loader = Loader(source, VIEW, None, batch=16)
    first = loader.batch(0)
    loader.batch(1)
    assert source.decoded == 16
    place = int((first.sample_index == 3).nonzero())
    again = loader.batch(1)
    assert torch.equal(first.images[place], again.images[int((again.sample_index == 3).nonzero())])


def test_a_cache_that_would_be_too_large_keeps_nothing() -> None:
    source = Counting(16)
    cache = PixelCache(16, 16, limit=1000)
    first, second = (cache.get(source, 2, VIEW) for _ in range(2))
    assert source.decoded == 2 and torch.equal(first, second)


VIEWS = view_presets.simclr(16)


def views_of(loader: Loader, step: int, view: ViewSpec = VIEW) -> tuple[torch.Tensor, ...]:
    return finish(loader.batch(step), view, VIEWS).views


def test_views_are_the_same_on_any_rank_with_any_workers_and_after_resuming() -> None:
    source = ToySource(40)
    whole = Loader(source, VIEW, None, batch=12, seed=1, views=VIEWS)
    parts = [Loader(source, VIEW, None, batch=12, seed=1, rank=rank, world=3, views=VIEWS) for rank in range(3)]
    expected = views_of(whole, 4)
    for rank, part in enumerate(parts):
        assert all(torch.equal(own, all_[rank::3]) for own, all_ in zip(views_of(part, 4), expected, strict=True))
    forked = Loader(source, VIEW, None, batch=12, seed=1, workers=2, views=VIEWS)
    resumed = finish(next(forked.batches(4, 5)), VIEW, VIEWS).views
    assert all(torch.equal(one, other) for one, other in zip(resumed, expected, strict=True))


def test_a_picture_is_seen_otherwise_in_each_epoch() -> None:
    loader = Loader(ToySource(16), VIEW, None, batch=16, seed=2, views=VIEWS)
    first, second = (loader.batch(step) for step in (0, 1))
    places = [int((batch.sample_index == 3).nonzero()) for batch in (first, second)]
    assert torch.equal(first.images[places[0]], second.images[places[1]])
    assert not torch.equal(first.draws[places[0]], second.draws[places[1]])


def test_views_change_nothing_else_of_a_batch(toy_source: ToySource) -> None:
    words = tokenizer(toy_source)
    bare = Loader(toy_source, VIEW, words, batch=24, seed=5).batch(3)
    loader = Loader(toy_source, VIEW, words, batch=24, seed=5, views=view_presets.identity(16))
    with_views = loader.batch(3)
    assert torch.equal(bare.text, with_views.text) and torch.equal(bare.images, with_views.images)
    assert with_views.draws.shape == (24, 15)  # nothing is drawn for images that nobody asked for
    plain = Loader(
        toy_source, VIEW, words, batch=24, seed=5, views=view_presets.ViewsSpec(VIEWS.views, plain=True)
    ).batch(3)
    assert torch.equal(plain.draws[:, : DRAWS["affine"]], bare.draws) and plain.draws.shape[1] == DRAWS["affine"] + 30


def test_a_source_that_draws_batches_is_drawn_as_large_as_the_margin_says() -> None:
    source, view = Scenes.open("train", "easy"), ViewSpec(size=16, margin=1.5)
    loader = Loader(source, view, None, batch=4, views=VIEWS)
    assert loader.batch(0).images.shape == (4, 3, 24, 24)
    assert [tuple(each.shape) for each in views_of(loader, 0, view)] == [(4, 3, 16, 16)] * 2
    rows = finish(loader.batch(0), view, VIEWS).rows(1, 3)  # a micro-batch
    assert len(rows) == 2 and all(
        torch.equal(a, b[1:3]) for a, b in zip(rows.views, views_of(loader, 0, view), strict=True)
    )
