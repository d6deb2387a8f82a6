"""Embeddings on disk: the same figures, nothing encoded twice, nothing old read for something new."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy import ToySource, toy_picture

from multiway.abilities import Encoded
from multiway.data.open import open_source
from multiway.data.scenes.source import Scenes
from multiway.hub.model import Model
from multiway.tasks import TASKS
from multiway.tasks.knn import Knn
from multiway.tasks.rerank import Rerank
from multiway.tasks.retrieval import Retrieval
from multiway.tasks.video_retrieval import VideoRetrieval
from multiway.workflows.feature_cache import CacheError, FeatureCache


class Drawn(Scenes):
    """Scenes that count how often a picture is drawn."""

    drawn = 0

    def image(self, index: int) -> Image.Image:
        self.drawn += 1
        return super().image(index)


@pytest.fixture
def counted(model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model, which counts what it encodes."""
    fresh = Model(model.method, model.processor)
    fresh.pictures = fresh.strings = 0
    image, text = fresh.encode_image, fresh.encode_text

    def encode_image(images, tokens=False):
        fresh.pictures += len(images)
        return image(images, tokens)

    def encode_text(texts, tokens=False):
        fresh.strings += len(texts)
        return text(texts, tokens)

    monkeypatch.setattr(fresh, "encode_image", encode_image)
    monkeypatch.setattr(fresh, "encode_text", encode_text)
    return fresh


def test_a_second_evaluation_encodes_nothing(counted: Model, tmp_path: Path) -> None:
    plain = Retrieval(resamples=50).run(counted, Drawn.open("val", "easy,gallery=24"))
    before = counted.pictures, counted.strings
    source = Drawn.open("val", "easy,gallery=24")
    with FeatureCache(tmp_path / "features", counted) as cache:
        first = Retrieval(resamples=50).run(cache.model, cache.source(source))
    assert (counted.pictures, counted.strings) == (2 * before[0], 2 * before[1]) and source.drawn == 24
    assert (cache.read, cache.encoded) == (0, sum(before))
    again = Drawn.open("val", "easy,gallery=24")
    with FeatureCache(tmp_path / "features", counted) as cache:
        second = Retrieval(resamples=50).run(cache.model, cache.source(again))
    assert (counted.pictures, counted.strings) == (2 * before[0], 2 * before[1]) and again.drawn == 0
    assert (cache.read, cache.encoded) == (sum(before), 0)
    assert plain.metrics == first.metrics == second.metrics
    assert torch.equal(
        torch.from_numpy(first.details.text_retrieval.scores), torch.from_numpy(second.details.text_retrieval.scores)
    )


def test_other_weights_views_precision_and_splits_are_other_files(counted: Model, tmp_path: Path) -> None:
    from dataclasses import replace

    def run(model: Model, split: str = "val") -> int:
        with FeatureCache(tmp_path, model) as cache:
            Retrieval(resamples=50).run(cache.model, cache.source(Scenes.open(split, "easy,gallery=8")))
        return cache.encoded

    assert run(counted) and not run(counted)
    assert run(counted, "test") and not run(counted, "test")
    view = replace(counted.processor.view, crop="center")
    assert run(Model(counted.method, replace(counted.processor, view=view)))
    assert run(Model(counted.method, counted.processor, precision="bf16"))
    parameter = next(counted.method.parameters())
    with torch.no_grad():
        parameter.add_(1e-3)
    assert run(counted)
    with torch.no_grad():
        parameter.sub_(1e-3)


def test_a_picture_that_was_replaced_is_encoded_anew(counted: Model, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for index in range(6):
        toy_picture(*ToySource(8).pairs[index]).save(tmp_path / "own" / f"{index}.png")
        (tmp_path / "own" / f"{index}.txt").write_text(f"caption {index}")

    def encoded() -> int:
        with FeatureCache(tmp_path / "features", counted) as cache:
            Retrieval(resamples=50).run(cache.model, cache.source(open_source(f"{tmp_path}/own@all")))
        return cache.encoded

    assert encoded() == 12 and encoded() == 0
    toy_picture("red", "top", 99).save(tmp_path / "own" / "3.png")
    os.utime(tmp_path / "own" / "3.png", ns=(1, 1))
    assert encoded() == 6  # pictures; the texts are the same


def test_two_splits_and_frames_are_kept_too(counted: Model, tmp_path: Path) -> None:
    class Labelled(ToySource):
        def __init__(self, split: str, first: int) -> None:
            super().__init__(24)
            self.split, self.first, self.fingerprint = split, first, split

        def row(self, index: int):
            from dataclasses import replace

            return replace(super().row(index), image_id=self.first + index)

    videos = open_source("scenes-video:easy,gallery=4@val")
    results = []
    for _ in range(2):
        with FeatureCache(tmp_path, counted) as cache:
            knn = Knn(ks=(3,), resamples=50).taught(cache.source(Labelled("train", 0)))
            moving = VideoRetrieval(frames=3, resamples=50).run(cache.model, cache.source(videos))
            results.append(
                (knn.run(cache.model, cache.source(Labelled("test", 500))).metrics, moving.metrics, cache.encoded)
            )
    assert results[0][:2] == results[1][:2] and results[0][2] >= 48 and results[1][2] == 0
    plain = VideoRetrieval(frames=3, resamples=50).run(counted, videos)
    assert plain.metrics == results[0][1]


def test_tokens_are_encoded_each_time_and_the_same(counted: Model, tmp_path: Path) -> None:
    source = Scenes.open("val", "easy,gallery=8")
    plain = Rerank(top=4, resamples=50).run(counted, source)
    for _ in range(2):
        with FeatureCache(tmp_path, counted) as cache:
            assert Rerank(top=4, resamples=50).run(cache.model, cache.source(source)).metrics == plain.metrics
    assert not list(tmp_path.iterdir())
    assert (
        TASKS["matching"].run(cache.model, cache.source(source)).metrics
        == TASKS["matching"].run(counted, source).metrics
    )


def test_a_model_without_embeddings_leaves_nothing(counted: Model, tmp_path: Path, monkeypatch) -> None:
    tokens = Encoded(torch.zeros(5, 0), torch.randn(5, 2, 3))
    monkeypatch.setattr(counted, "encode_text", lambda texts, tokens_=False: tokens.rows(torch.arange(len(texts))))
    with FeatureCache(tmp_path, counted) as cache:
        assert len(cache.model.encode_text(["a", "b", "a"]).tokens) == 3
    assert cache.encoded == 3 and not list(tmp_path.iterdir())


def test_what_was_encoded_before_an_interruption_is_kept(counted: Model, tmp_path: Path) -> None:
    source = Scenes.open("val", "easy,gallery=8")
    with pytest.raises(KeyboardInterrupt), FeatureCache(tmp_path, counted) as cache:
        rows = cache.source(source)
        cache.model.encode_image([rows.image(0), rows.image(1)])
        raise KeyboardInterrupt
    with FeatureCache(tmp_path, counted) as cache:
        rows = cache.source(source)
        cache.model.encode_image([rows.image(number) for number in range(3)])
        assert (cache.read, cache.encoded) == (2, 1)


def test_a_damaged_file_is_named(counted: Model, tmp_path: Path) -> None:
    with FeatureCache(tmp_path, counted) as cache:
        cache.model.encode_text(["a", "b"])
    (file,) = tmp_path.iterdir()
    whole, tensors = file.read_bytes(), load_file(file)
    file.write_bytes(whole[:-9])
    with pytest.raises(CacheError, match=f"{file.name} cannot be read.*delete it"):
        FeatureCache(tmp_path, counted)
    for bad in (tensors["embedding"] * torch.nan, tensors["embedding"][:1]):
        save_file({**tensors, "embedding": bad}, file)
        with pytest.raises(CacheError, match=f"{file.name} does not hold.*delete it"):
            FeatureCache(tmp_path, counted)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="--cache"):
        FeatureCache(tmp_path / "file", counted)
