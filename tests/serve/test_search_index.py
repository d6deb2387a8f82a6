from pathlib import Path

import pytest
import torch
from by_tokens import by_tokens
from toy import ToySource

from multiway.abilities import LacksAbility
from multiway.data.source import BadRow
from multiway.data.subset import Subset
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.serve.search import PictureIndex


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


def test_hits_are_those_of_a_slow_twin(model: Model) -> None:
    source = ToySource(24)
    queries = ["red on the left", "the top is blue"]
    hits = PictureIndex.build(model, source).search(queries, 5)
    for query, found in zip(queries, hits, strict=True):
        text = model.encode_text([query]).embedding[0]
        scores = [float(model.encode_image([source.image(i)]).embedding[0] @ text) for i in range(24)]
        best = sorted(range(24), key=lambda i: -scores[i])[:5]
        assert [hit.index for hit in found] == best and [hit.rank for hit in found] == [1, 2, 3, 4, 5]
        assert found[0].score == pytest.approx(scores[best[0]], abs=1e-5)
        assert found[0].caption == source.row(best[0]).captions[0]
    assert len(PictureIndex.build(model, ToySource(3)).search(["x"], 10)[0]) == 3


class Counting(ToySource):
    read = 0

    def image(self, index: int):
        self.read += 1
        return super().image(index)


def test_embeddings_are_kept_until_weights_or_data_change(model: Model, tiny_run: Path, tmp_path: Path) -> None:
    source = Counting(8)
    first = PictureIndex.build(model, source, tmp_path)
    second = PictureIndex.build(model, source, tmp_path)
    assert source.read == 8 and torch.equal(first.pictures.embedding, second.pictures.embedding)
    other = load(tiny_run)
    with torch.no_grad():
        other.method.image_projection.weight.mul_(1.5)
    PictureIndex.build(other, source, tmp_path)
    assert source.read == 16
    source.fingerprint = "changed"
    PictureIndex.build(model, source, tmp_path)
    assert source.read == 24


def test_what_is_kept_of_a_part_is_not_taken_for_the_whole(model: Model, tmp_path: Path) -> None:
    source = Counting(8)
    sizes = [len(PictureIndex.build(model, Subset(source, rows), tmp_path)) for rows in (3, 5, 3, 8)]
    assert sizes == [3, 5, 3, 8] and source.read == 3 + 5 + 8
    assert len(PictureIndex.build(model, source, tmp_path)) == 8


class Holes(ToySource):
    def image(self, index: int):
        if index % 2:
            raise BadRow(f"toy, row {index}: truncated")
        return super().image(index)


def test_unreadable_pictures_are_left_out(model: Model) -> None:
    index = PictureIndex.build(model, Holes(10))
    assert index.rows.tolist() == [0, 2, 4, 6, 8]
    assert {hit.index for hit in index.search(["red"], 10)[0]} == {0, 2, 4, 6, 8}


def test_a_model_without_embeddings_is_searched_by_tokens(tmp_path: Path) -> None:
    model, source = by_tokens(), ToySource(10)
    index = PictureIndex.build(model, source, tmp_path)
    text = model.encode_text(["red on the left"])
    scores = model.compare(model.encode_image([source.image(i) for i in range(10)]), text, "text")[:, 0]
    found = index.search(["red on the left"], 4)[0]
    assert [hit.index for hit in found] == scores.topk(4).indices.tolist()
    kept = PictureIndex.build(model, source, tmp_path)
    assert torch.equal(kept.pictures.tokens, index.pictures.tokens) and kept.search(["red"], 3) == index.search(
        ["red"], 3
    )


def test_a_model_that_only_matches_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "abilities", lambda self: ("encode_image", "encode_text", "match"))
    with pytest.raises(LacksAbility, match=r"search.*compare"):
        PictureIndex.build(model, ToySource(4))
