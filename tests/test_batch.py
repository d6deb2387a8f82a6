import pytest
import torch

from multiway.batch import Batch, ViewSpec


def test_rows_keep_fields_together() -> None:
    batch = Batch(
        images=torch.arange(6.0).view(6, 1, 1, 1),
        text=torch.arange(12).view(6, 2),
        views=(torch.arange(6.0),),
        sample_index=torch.arange(6),
        captions=tuple("abcdef"),
        skipped=("row 3",),
    )
    part = batch.rows(2, 5)
    assert len(batch) == 6 and len(part) == 3
    assert part.sample_index.tolist() == [2, 3, 4] == part.images.flatten().tolist() == part.views[0].tolist()
    assert part.captions == ("c", "d", "e") and part.text.tolist() == [[4, 5], [6, 7], [8, 9]]
    # A skipped row is reported once, by the first micro-batch.
    assert batch.rows(0, 2).skipped == ("row 3",) and part.skipped == ()


def test_map_leaves_what_is_absent_absent() -> None:
    doubled = Batch(text=torch.ones(2, 3)).map(lambda tensor: 2 * tensor)
    assert doubled.images is None and doubled.text.tolist() == [[2.0] * 3] * 2
    assert len(Batch(captions=("a",))) == 1


def test_view_keeps_a_margin_only_to_crop_from() -> None:
    assert ViewSpec(size=64, augment="crop", margin=1.25).kept == 80
    assert ViewSpec(size=64, augment="none", margin=1.25).kept == 64
    with pytest.raises(ValueError, match="size"):
        ViewSpec(size=0)
