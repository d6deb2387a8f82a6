"""How folders of `transformers` draw pictures, held against their processors: every setting is followed, or refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as peers
from PIL import Image

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.transformers_view import read_view, write_view

MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
CUT = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
SQUEEZED = {"size": {"height": 32, "width": 32}}
PICTURES = [
    Image.fromarray(np.random.default_rng(row).integers(0, 256, (*shape, 3), dtype=np.uint8))
    for row, shape in enumerate([(50, 71), (83, 45), (33, 40)])
]
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "cut": ("CLIP", CUT),
    "cut out of more": ("CLIP", CUT | {"size": {"shortest_edge": 40}}),
    "a number for the shorter side": ("CLIP", {"size": 40, "crop_size": 32}),
    "squeezed": ("ViT", SQUEEZED),
    "a number for both sides": ("ViT", {"size": 32}),
    "squeezed, and nothing left to cut": ("Flava", CUT | SQUEEZED),
    "a share cut out": ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    "values from -1 to 1": ("ViT", SQUEEZED | {"rescale_factor": 1 / 127.5}),
    "bytes": ("CLIP", CUT | {"do_rescale": False, "image_mean": [90, 100, 110], "image_std": [50, 60, 70]}),
    "shares without a mean": ("Siglip", SQUEEZED | {"do_normalize": False}),
    "one number for all colours": ("ViT", SQUEEZED | {"image_mean": 0.4, "image_std": 0.3}),
    "bilinear": ("CLIP", CUT | {"resample": 2}),
    "lanczos": ("CLIP", CUT | {"resample": 1}),
}  # fmt: skip


def processor(form: str) -> Any:
    kind, stated = FORMS[form]
    return getattr(peers, f"{kind}ImageProcessorPil")(**{"image_mean": MEAN, "image_std": STD, "resample": 3, **stated})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_pictures_are_drawn_as_theirs(form: str, nested: bool, tmp_path: Path) -> None:
    """By `preprocessor_config.json`, and by `processor_config.json`, where transformers 5 writes a whole processor."""
    theirs = processor(form)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | FORMS[form][1])
    )  # numbers for sizes, as older versions wrote them
    if nested:
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(file.read_text())}))
        file.write_text(json.dumps({"image_mean": [0, 0, 0]}))  # which counts no longer
    view = read_view(tmp_path, ViewSpec(32))
    for picture in PICTURES:
        wanted = theirs(picture, return_tensors="pt")["pixel_values"]
        assert (Processor(view).images([picture]) - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))
    # Out again: another processor of theirs, which does the same.
    (tmp_path / "out").mkdir()
    write_view(tmp_path / "out", view)
    again = peers.AutoImageProcessor.from_pretrained(tmp_path / "out", backend="pil")
    for picture in PICTURES:
        wanted = theirs(picture, return_tensors="pt")["pixel_values"]
        found = again(picture, return_tensors="pt")["pixel_values"]
        assert (found - wanted).abs().max() < 2e-5 * max(1.0, float(wanted.abs().max()))
    assert read_view(tmp_path / "out", ViewSpec(32)) == view


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"do_resize": False}, r"do_resize=false.*32 for this model"),
        ({"resample": 5}, r"resample=5.*3 \(bicubic\)"),
        ({"image_std": [1.0, 0.0, 1.0]}, "deviations above 0"),
        ({"image_mean": [0.5]}, r"image_mean=\[0\.5\]; expected a number for each"),
        ({"size": {"height": 32, "width": 40}}, r"size=\{'height': 32, 'width': 40\}; expected pixels of a square"),
        ({"size": {"longest_edge": 40}}, "longest_edge"),
        ({"size": "large"}, "size='large'"),
        ({"size": {"shortest_edge": 64}, "crop_size": 48}, r"resizes to 64 and cuts 48 for a model of 32"),
        ({"image_mean": ["a", "b", "c"]}, "says no way to draw a picture"),
    ],
)
def test_what_no_view_has_is_refused(stated: dict[str, Any], said: str, tmp_path: Path) -> None:
    theirs = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": MEAN, "image_std": STD, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(theirs | stated))
    with pytest.raises(WeightsError, match=said):
        read_view(tmp_path, ViewSpec(32))


def test_what_is_taken_for_granted_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_view(tmp_path, ViewSpec(32)) == ViewSpec(32)  # no file, nothing said of pictures
    assert not caplog.text
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32, "image_mean": MEAN}))
    view = read_view(tmp_path, ViewSpec(32, std=(0.1, 0.1, 0.1)))
    assert view.std == (0.1, 0.1, 0.1) and "says nothing of image_std, resample: taken as" in caplog.text
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(
        {"size": {"height": 40, "width": 40}, "crop_size": 32, "do_center_crop": True, "image_mean": MEAN, "image_std": STD, "resample": 3}
    ))  # fmt: skip
    assert read_view(tmp_path, ViewSpec(32)).shortest == 40
    assert "squeezes pictures to 40 pixels and cuts out 32" in caplog.text


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{'size'")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json is not JSON"):
        read_view(tmp_path, ViewSpec(32))
    (tmp_path / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="holds a list; expected settings by name"):
        read_view(tmp_path, ViewSpec(32))
    torch.save({}, tmp_path / "preprocessor_config.json")
    with pytest.raises(WeightsError, match="is not JSON"):
        read_view(tmp_path, ViewSpec(32))
