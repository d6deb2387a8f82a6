"""State dicts and folders of timm are read as picture encoders that compute the same. Runs in the peers' environment."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip("torchvision, which timm needs, is not installed here; run `make test-peers`", allow_module_level=True)
timm = pytest.importorskip("timm", reason="timm is not installed here; run `make test-peers`")

from multiway.hub.load import load  # noqa: E402

NETWORKS = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}),
    "deit": ("deit_tiny_distilled_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}),
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 32, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}),
    "convnext": ("convnext_atto", {"conv_mlp": False, "depths": (1, 2, 1, 1), "dims": (8, 16, 32, 64)}),
}


@torch.no_grad()
def made(name: str, classes: int) -> torch.nn.Module:
    kind, more = NETWORKS[name]
    torch.manual_seed(0)
    theirs = timm.create_model(kind, num_classes=classes, **more)
    for key, each in theirs.state_dict().items():
        if each.is_floating_point():
            noise = torch.randn_like(each)
            each.copy_(
                0.5 + noise.abs() if "running_var" in key else 1 + 0.1 * noise if each.ndim == 1 else 0.1 * noise
            )
    return theirs.eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_folder_is_read(name: str, tmp_path: Path) -> None:
    """Weights with a classifier, and `config.json` as timm writes it for the hub."""
    theirs = made(name, 5)
    side = 32 if name in ("vit", "deit") else 224 if name == "swin" else 64
    save_file(theirs.state_dict(), str(tmp_path / "model.safetensors"))
    told = {
        "input_size": [3, side, side],
        "mean": [0.5] * 3,
        "std": [0.4] * 3,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
    }
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NETWORKS[name][0], "pretrained_cfg": told}))
    model = load(f"hf:{tmp_path}")
    images = torch.randn(2, 3, side, side)
    found, features = model.method.backbone(images), theirs.forward_features(images)
    wanted = theirs.forward_head(features, pre_logits=True)
    if name == "deit":  # its head averages two tokens; ours measures the class token
        wanted = features[:, 0]
    if name == "convnext":  # theirs norms before it flattens; the same vector
        wanted = wanted.flatten(1)
    assert (found.pooled - wanted).abs().max() < 2e-5 * wanted.abs().max() and wanted.std(
        0
    ).max() > 1e-4 * wanted.abs().max()
    view = model.processor.view
    assert (view.mean, view.std, view.resample, view.shortest) == ((0.5,) * 3, (0.4,) * 3, "bilinear", int(side / 0.9))
    assert "a classifier" in model.report.aside
