"""timm's networks without timm: from the names and shapes of its state dicts (`timm_keys.json`, timm 1.0.31; tests/peers computes)."""

import json
from pathlib import Path

import pytest
import torch
from hub.vit_peers import pictures, same_state
from safetensors.torch import save_file

from multiway.batch import ViewSpec
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.renaming import Table, state_of
from multiway.hub.timm_names import rules
from multiway.hub.timm_networks import network_of_shapes
from multiway.nn.convnext import ConvNextConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.vit import VisionConfig

KEYS = json.loads(Path(__file__).with_name("timm_keys.json").read_text())


def state_of_keys(name: str) -> dict[str, torch.Tensor]:
    """Weights of these shapes, every one at random."""
    make = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=make).abs() * 0.1 + 0.1 if shape else torch.tensor(3)
        for key, shape in KEYS[name].items()
    }


@pytest.mark.parametrize("name", KEYS)
def test_every_tensor_has_its_place_and_the_way_back_is_exact(name: str, tmp_path: Path) -> None:
    theirs = state_of_keys(name)
    save_file(theirs, str(tmp_path / "model.safetensors"))
    model = load(tmp_path / "model.safetensors")
    heads = [key for key in theirs if key.startswith(("head.fc.", "fc.", "head.", "head_dist."))]
    heads = [key for key in heads if not key.startswith("head.norm.")]
    assert sorted(key for names in model.report.aside.values() for key in names) == sorted(heads) and heads
    config = model.method.config.backbone
    back = Table("timm", rules(config, "backbone.", distilled=name == "deit")).write(state_of(model.method))
    kept = {key: each for key, each in theirs.items() if key not in heads}
    if name == "deit":  # the second token is kept with its position in it
        kept["dist_token"] = kept["dist_token"] + kept["pos_embed"][:, 1:2]
        kept["pos_embed"] = torch.cat([kept["pos_embed"][:, :1], torch.zeros(1, 1, 192), kept["pos_embed"][:, 2:]], 1)
    same_state(back, kept)
    assert torch.isfinite(
        model.method.encode_image(pictures(64 if name in ("convnext", "resnet18") else 32)).embedding
    ).all()


def test_sizes_are_read_off_the_shapes() -> None:
    swin, convnext, deit = (network_of_shapes(state_of_keys(name)) for name in ("swin", "convnext", "deit"))
    assert swin == SwinConfig(size=224, patch=4, base=32, depths=(2, 2, 2), head_width=32, window=7)
    assert convnext == ConvNextConfig(patch=4, base=8, depths=(1, 2, 1, 1), layer_scale=1e-6)
    assert isinstance(deit, VisionConfig) and (deit.size, deit.patch, deit.heads, deit.registers) == (32, 8, 3, 1)


def test_a_folder_says_how_its_pictures_are_drawn(tmp_path: Path) -> None:
    save_file(state_of_keys("resnet18"), str(tmp_path / "model.safetensors"))
    told = {
        "input_size": [3, 288, 288],
        "mean": [0.5] * 3,
        "std": [0.4] * 3,
        "crop_pct": 0.95,
        "interpolation": "bilinear",
    }
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": told}))
    view = load(f"hf:{tmp_path}").processor.view
    assert view == ViewSpec(288, "center", (0.5,) * 3, (0.4,) * 3, "bilinear", shortest=303)
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "pretrained_cfg": {"crop_mode": "squash"}})
    )
    assert load(f"hf:{tmp_path}").processor.view == ViewSpec(
        224, "squash", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="neither model"):
        load(f"hf:{tmp_path}")
    with pytest.raises(WeightsError, match="no weights of timm's vit, swin"):
        network_of_shapes({"blocks.0.conv.weight": torch.zeros(1)})
