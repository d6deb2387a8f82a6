"""`multiway.explain` as it is called: what comes back, what it is kept as, and what is said where there is nothing to show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_picture

import multiway
from multiway.config import ConfigError
from multiway.data.source import BadRow
from multiway.explain.kinds import KINDS, named
from multiway.explain.look import Explanation, able_kinds, explain_pairs
from multiway.explain.pairs import CannotShow
from multiway.hub.model import Model

HAS = {
    "clip": ("attention", "rollout", "itc-cam", "occlusion"),
    "filip": ("attention", "rollout", "itc-cam", "wpa", "filip", "occlusion"),
    "albef": ("attention", "rollout", "cross-attention", "grad-cam", "itc-cam", "occlusion"),
    "vilt": ("rollout", "cross-attention", "grad-cam", "wpa", "occlusion"),
    "vlmo": ("attention", "rollout", "cross-attention", "grad-cam", "itc-cam", "wpa", "occlusion"),
    "beit3": ("rollout", "cross-attention", "wpa"),
}
JOINT = ("vilt", "vlmo", "beit3")  # words and patches in one sequence
PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]


@pytest.mark.parametrize("name", list(HAS))
def test_what_each_model_has(models, name: str) -> None:
    found = multiway.explain(models[name], PICTURES[0], TEXTS[0])
    assert isinstance(found, Explanation) and tuple(found.maps) == HAS[name]
    assert set(found.maps) | set(found.absent) == set(KINDS) and all(found.absent.values())
    for kind, own in found.maps.items():
        assert own.heat.ndim == 2 and own.heat.dtype == torch.float32 and torch.isfinite(own.heat).all(), kind
        if own.by_word is not None:
            assert [TEXTS[0][word.start : word.stop] for word, _ in own.each_word()] == ["red", "on", "the", "left"]
            assert own.by_word.shape == (4, *own.heat.shape)
            word, (row, column), value = own.best_patches()[2]
            assert word.text == "the" and value == own.by_word[2].max() == own.by_word[2, row, column]
    assert able_kinds(models[name], PICTURES[0], TEXTS[0]) == HAS[name]


def test_without_a_text_only_the_picture_is_looked_at(models) -> None:
    found = multiway.explain(models["albef"], PICTURES[0])
    assert tuple(found.maps) == ("attention", "rollout")
    assert "no text is given" in found.absent["grad-cam"] and found.text == ""


@pytest.mark.parametrize("name", list(HAS))
def test_pairs_at_once_are_as_one_by_one(models, name: str) -> None:
    both = explain_pairs(models[name], PICTURES, TEXTS)
    for row in range(2):
        alone = multiway.explain(models[name], PICTURES[row], TEXTS[row])
        for kind, own in alone.maps.items():
            torch.testing.assert_close(both[row][kind].heat, own.heat, atol=1e-5, rtol=1e-3)
            assert both[row][kind].score == pytest.approx(own.score, abs=1e-4)
            assert [word.text for word in both[row][kind].words] == [word.text for word in own.words]


@pytest.mark.parametrize("name", list(HAS))
def test_maps_are_drawn_in_full_precision_whatever_the_model_computes_in(models, name: str) -> None:
    """Rounded to bf16 several patches would be equally hot."""
    full = models[name]
    half = Model(full.method, full.processor, precision="bf16")
    one = multiway.explain(full, PICTURES[0], TEXTS[0])
    with torch.autocast("cpu", torch.bfloat16):
        other = multiway.explain(half, PICTURES[0], TEXTS[0])
    for kind in HAS[name]:
        assert torch.equal(one[kind].heat, other[kind].heat) and one[kind].score == other[kind].score, kind


def test_another_text_changes_the_kinds_that_ask_for_one(models) -> None:
    for name, kinds in HAS.items():
        one, other = (multiway.explain(models[name], PICTURES[0], text) for text in TEXTS)
        for kind in kinds:
            same = torch.equal(one[kind].heat, other[kind].heat)
            assert same != (KINDS[kind].asks or (name in JOINT and kind == "rollout")), (name, kind)


def test_what_a_model_has_not_is_named_with_what_it_has(models) -> None:
    with pytest.raises(
        CannotShow, match=r"albef cannot show `filip`: .*; it has: attention, rollout, cross-attention, grad"
    ):
        multiway.explain(models["albef"], PICTURES[0], TEXTS[0], kinds=["filip"])
    with pytest.raises(ConfigError, match="no kind of map 'saliency'; there are: attention"):
        multiway.explain(models["albef"], PICTURES[0], TEXTS[0], kinds=["saliency"])
    with pytest.raises(BadRow):
        multiway.explain(models["albef"], "nowhere.png", TEXTS[0])
    assert [kind.name for kind in named(["wpa", "attention", "wpa"])] == ["wpa", "attention"]


def test_arrays_are_kept_and_nothing_is_pickled(models, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    PICTURES[0].save(picture)
    found = multiway.explain(models["albef"], picture, TEXTS[0], kinds=["grad-cam", "attention"], heads=(1,))
    found.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as kept:
        assert set(kept.files) == {
            "text", "grad-cam/heat", "grad-cam/word_heat", "grad-cam/word_spans", "grad-cam/score", "attention/heat",
            "attention/head_heat",
        }  # fmt: skip
        assert np.array_equal(kept["grad-cam/heat"], found["grad-cam"].heat.numpy()) and str(kept["text"]) == TEXTS[0]
        assert kept["grad-cam/word_spans"].tolist() == [[0, 3], [4, 6], [7, 10], [11, 15]]
        assert kept["attention/head_heat"].shape == (2, 2, 4, 4)


def test_pixels_do_as_well_as_pictures(models) -> None:
    model = models["albef"]
    one = explain_pairs(model, PICTURES, TEXTS, ["grad-cam", "occlusion"])
    other = explain_pairs(model, model.processor.images(PICTURES), TEXTS, ["grad-cam", "occlusion"])
    for row in range(2):
        assert all(torch.equal(one[row][kind].heat, other[row][kind].heat) for kind in one[row].maps)
    with pytest.raises(CannotShow, match="it has: attention"):
        explain_pairs(model, model.processor.images(PICTURES), TEXTS, ["filip"])


def test_what_a_model_has_is_asked_without_covering_every_place(models, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    encode = models["clip"].method.encode_image
    monkeypatch.setattr(
        models["clip"].method, "encode_image", lambda images: (asked.append(len(images)), encode(images))[1]
    )
    able_kinds(models["clip"], PICTURES[0], TEXTS[0])
    assert sum(asked) < 10, "49 for occlusion alone"


def test_the_package_is_still_a_package() -> None:
    import multiway.explain.rollout as module

    assert module.rollout([torch.eye(5).expand(1, 5, 5)]).equal(torch.eye(5))
