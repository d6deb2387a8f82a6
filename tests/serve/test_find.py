"""Queries of words, of pictures and of both; matching again; and that an index is asked by the model it was made by."""

from pathlib import Path

import numpy as np
import pytest
import torch
from by_tokens import by_tokens
from multiway_batches import INFO, WORDS
from PIL import Image
from toy import ToySource
from tuning import METHODS, VIEW

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.data.processor import Processor
from multiway.data.source import BadRow
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.serve.faiss_index import FaissIndex
from multiway.serve.find import Finder, query_vector, rerank
from multiway.serve.index import Hit, IndexFault, entries
from multiway.serve.page import write_hits
from multiway.serve.search import PictureIndex

SOURCE = ToySource(20)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    method = method_class("albef")(METHODS["albef"].resolve(INFO))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Model(method, Processor(VIEW, WORDS))


@pytest.fixture
def finder(model: Model, caption_folder: Path, tmp_path: Path) -> Finder:
    """An index of pictures that are files."""
    from multiway.data.open import open_source

    data = {"data": str(caption_folder / "captions.jsonl"), "images": str(caption_folder / "pictures")}
    source = open_source(spec=data["data"], images=data["images"], default_split="all")
    rows = [source.row(row) for row in range(20)]
    index = FaissIndex(tmp_path / "index", about={
        "model": model_identity(model), "sources": [{**data, "fingerprint": source.fingerprint}],
    })  # fmt: skip
    vectors = model.encode_image([source.image(row) for row in range(20)]).embedding.numpy()
    names = {"captions": [list(row.captions) for row in rows], "row": list(range(20)), "source": [0] * 20}
    index.add(vectors, entries([row.key for row in rows], **names))
    return Finder(index, model)


def test_words_and_picture_are_weighed(model: Model, finder: Finder) -> None:
    picture, words = SOURCE.image(3), "red on the left"
    text = model.encode_text([words]).embedding[0]
    image = model.encode_image([picture]).embedding[0]
    assert torch.allclose(query_vector(model, words, None), text, atol=1e-6)
    assert torch.allclose(query_vector(model, "", picture), image, atol=1e-6)
    for weight in (0.0, 0.3, 1.0):
        mixed = weight * text + (1 - weight) * image
        assert torch.allclose(query_vector(model, words, picture, weight), mixed / mixed.norm(), atol=1e-6)
    gallery = PictureIndex.build(model, SOURCE)
    scores = model.encode_image([SOURCE.image(row) for row in range(20)]).embedding @ query_vector(
        model, words, picture, 0.3
    )
    hits = gallery.find(words, picture, 0.3, 5)
    assert [hit.index for hit in hits] == scores.topk(5).indices.tolist()
    assert np.allclose([hit.score for hit in hits], scores.topk(5).values, atol=1e-5)
    assert gallery.find(words, top=5) == gallery.search([words], 5)[0]
    assert gallery.find("", SOURCE.image(7), top=1)[0].index == 7 and gallery.picture(hits[0]).size == (16, 16)
    own = finder.find("", finder.picture(Hit(1, 0.0, 11, "", "")), top=1)[0]
    assert own.index == 11 and own.score == pytest.approx(1.0, abs=1e-5)


def test_reranking_is_matching_one_by_one(model: Model, finder: Finder) -> None:
    words = "the top is blue"
    hits = finder.find(words, top=8)

    def picture(hit: Hit) -> Image.Image:
        if hit.rank in (2, 5):
            raise BadRow("cut off")
        return finder.picture(hit)

    found = rerank(model, words, hits, picture)
    text = model.encode_text([words], tokens=True)
    odds = {hit.index: float(model.match(model.encode_image([finder.picture(hit)], tokens=True), text)) for hit in hits}
    readable = [hit for hit in hits if hit.rank not in (2, 5)]
    wanted = sorted(readable, key=lambda hit: -odds[hit.index])
    assert [hit.index for hit in found[:6]] == [hit.index for hit in wanted]
    assert np.allclose([hit.score for hit in found[:6]], [odds[hit.index] for hit in wanted], atol=1e-4)
    assert [hit.index for hit in found[6:]] == [hits[1].index, hits[4].index]
    assert [hit.rank for hit in found] == list(range(1, 9))
    assert [hit.index for hit in found] != [hit.index for hit in hits]


def test_what_makes_no_query_is_refused(model: Model, finder: Finder) -> None:
    with pytest.raises(ConfigError, match="query is empty"):
        query_vector(model, " ", None)
    with pytest.raises(ConfigError, match="weight"):
        query_vector(model, "red", SOURCE.image(0), 1.5)
    with pytest.raises(ConfigError, match="no embedding"):
        query_vector(by_tokens(), "", SOURCE.image(0))
    with pytest.raises(ConfigError, match="there are none"):
        rerank(model, "", finder.find("red", top=2), finder.picture)
    with pytest.raises(LacksAbility, match=r"match.*albef"):
        rerank(by_tokens(), "red", [], finder.picture)


def test_another_model_is_refused(model: Model, finder: Finder) -> None:
    half = Model(model.method, model.processor, precision="bf16")
    assert Finder(finder.index, half).find("red", top=1)
    torch.manual_seed(1)
    other = Model(method_class("albef")(METHODS["albef"].resolve(INFO)), model.processor)
    with pytest.raises(IndexFault, match=r"another model \(weights: .* -> "):
        Finder(finder.index, other)


def test_pictures_that_moved_are_not_shown(model: Model, finder: Finder, caption_folder: Path, tmp_path: Path) -> None:
    hits = finder.find("red", top=3)
    (caption_folder / "captions.jsonl").write_text('{"image": "000.png", "caption": "<b>another</b>"}\n')
    with pytest.raises(IndexFault, match="has been changed"):
        finder.picture(hits[0])
    shown = [Hit(1, 0.5, 0, "<i>key</i>", "<script>alert(1)</script>")]
    why = write_hits(tmp_path / "page.html", "a & b", SOURCE.image(0), shown, finder.picture, "toys", 20, "cosine")
    page = (tmp_path / "page.html").read_text()
    assert "has been changed" in why and "no picture" in page and "a &amp; b" in page
    assert "<script>" not in page and "<i>key" not in page and page.count("data:image/png") == 1
    with pytest.raises(IndexFault, match="does not say where"):
        finder.picture(Hit(1, 0.0, 0, "", "", source=5))
