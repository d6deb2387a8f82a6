from pathlib import Path

import pytest
import torch
from by_tokens import by_tokens
from toy import ToySource

from multiway.hub.load import load
from multiway.hub.model import Model


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


def test_texts_keep_their_order_and_equal_ones_are_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the top is blue", "red on the left", "the top is blue", "black on the right, and a longer text"]
    one_by_one = torch.cat([model.encode_text([text]).embedding for text in texts])
    seen = []
    original = model.processor.texts
    monkeypatch.setattr(model.processor, "texts", lambda rows: seen.extend(rows) or original(rows))
    together = model.encode_text(texts).embedding
    assert torch.allclose(together, one_by_one, atol=1e-6) and sorted(seen) == sorted(set(texts))


def test_batches_do_not_matter(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [ToySource(10).image(i) for i in range(10)]
    whole = model.encode_image(pictures).embedding
    monkeypatch.setattr(model, "batch", 3)
    assert torch.allclose(model.encode_image(pictures).embedding, whole, atol=1e-6)
    assert torch.allclose(whole.norm(dim=1), torch.ones(10), atol=1e-5) and not model.method.training


def test_paths_pictures_and_pixels_agree(model: Model, tmp_path: Path) -> None:
    picture = ToySource(3).image(2)
    picture.save(tmp_path / "p.png")
    wanted = model.encode_image([picture]).embedding
    assert torch.equal(model.encode_image([tmp_path / "p.png"]).embedding, wanted)
    assert torch.equal(model.encode_image([str(tmp_path / "p.png")]).embedding, wanted)
    assert torch.allclose(model.encode_image(model.processor.images([picture])).embedding, wanted, atol=1e-6)


def test_misuse_is_explained(model: Model) -> None:
    with pytest.raises(TypeError, match=r"write \['red'\]"):
        model.encode_text("red")
    with pytest.raises(ValueError, match="nothing to encode"):
        model.encode_text([])
    with pytest.raises(ValueError, match="nothing to encode"):
        model.encode_image([])
    assert model.abilities() == ("encode_image", "encode_text", "compare") and model.describe()["size"] == 16


def test_compare_is_the_dot_product_where_there_is_a_space(model: Model) -> None:
    image = model.encode_image([ToySource(5).image(i) for i in range(5)])
    text = model.encode_text(["red on the left", "blue"])
    for query in ("image", "text"):
        assert torch.equal(model.compare(image, text, query), image.embedding @ text.embedding.T)  # type: ignore[arg-type]


def test_compare_by_tokens_in_batches_is_compare_in_one() -> None:
    model = by_tokens()
    image = model.encode_image([ToySource(7).image(i) for i in range(7)])
    text = model.encode_text(["red on the left", "blue", "the top is blue or green", "a", "black on the right"])
    assert image.tokens is not None and text.tokens is not None  # kept though nobody asked: they are all there is
    for query in ("image", "text"):
        whole = model.method.compare(image, text, query)  # type: ignore[operator]
        assert torch.allclose(model.compare(image, text, query), whole, atol=1e-6)  # type: ignore[arg-type]
        assert whole.std() > 1e-3


def test_pictures_and_strings_are_compared_as_they_are(model: Model) -> None:
    pictures, texts = [ToySource(5).image(i) for i in range(5)], ["red on the left", "blue"]
    wanted = model.compare(model.encode_image(pictures), model.encode_text(texts))
    assert torch.equal(model.compare(pictures, texts), wanted)
    assert torch.equal(model.compare(pictures, model.encode_text(texts)), wanted)
