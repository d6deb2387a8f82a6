"""CLIP equals open_clip's with copied random weights, both ways, from pixels. Runs in the peers' environment: `make test-peers`."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip(
        "torchvision, which open_clip needs, is not installed here; run `make test-peers`", allow_module_level=True
    )
open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed here; run `make test-peers`")

from multiway.batch import DataInfo, ViewSpec  # noqa: E402
from multiway.data.processor import Processor  # noqa: E402
from multiway.data.tokenizer import Tokenizer, TokenizerSpec  # noqa: E402
from multiway.hub.layouts import to_open_clip  # noqa: E402
from multiway.hub.load import load  # noqa: E402
from multiway.hub.model import Model  # noqa: E402
from multiway.hub.open_clip_clip import clip_config, table  # noqa: E402
from multiway.hub.renaming import fill  # noqa: E402
from multiway.methods.clip import Clip, ClipConfig  # noqa: E402

TEXT = {"context_length": 12, "vocab_size": 60, "width": 64, "heads": 1, "layers": 2}
VIT = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}, "text_cfg": TEXT}
FORMS = {
    "vit": VIT,
    "quick": VIT | {"quick_gelu": True},
    "eos": VIT | {"text_cfg": TEXT | {"pool_type": "eos", "eos_id": 7}},
    "resnet": VIT | {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16}},
}


@torch.no_grad()
def peer(config: dict) -> torch.nn.Module:
    """Every tensor at random, statistics too."""
    torch.manual_seed(0)
    theirs = open_clip.model.CLIP(**config)
    for name, each in theirs.state_dict().items():
        if each.is_floating_point():
            noise = torch.randn_like(each)
            each.copy_(
                0.5 + noise.abs() if "running_var" in name else 1 + 0.2 * noise if each.ndim == 1 else 0.15 * noise
            )
    theirs.logit_scale.fill_(2.3)
    return theirs.eval()


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_both_ways(form: str, tmp_path: Path) -> None:
    config = FORMS[form]
    theirs, ours = peer(config), Clip(clip_config(config)).eval()
    report = fill(ours, table(ours.config), theirs.state_dict())
    assert len(report.renamed) + len(report.matched) == len(theirs.state_dict())
    size = config["vision_cfg"]["image_size"]
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(8, 60, (4, 12), generator=torch.Generator().manual_seed(2))
    for row in range(4):  # ended by the greatest id, or by theirs
        ids[row, 5 + row], ids[row, 6 + row :] = (7 if form == "eos" else 59), 0
        ids[row, : 5 + row].clamp_(8, 58)
    mask = ids != 0
    for model in (theirs, None):
        if model is None:
            to_open_clip(Model(ours, Processor(ViewSpec(size), None)), tmp_path / "out")
            model = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
        image, text = (F.normalize(each, dim=1) for each in (model.encode_image(images), model.encode_text(ids)))
        assert (ours.encode_image(images).embedding - image).abs().max() < 1e-5 and image.std(0).max() > 5e-4
        assert (ours.encode_text(ids, mask).embedding - text).abs().max() < 1e-5 and text.std(0).max() > 0.01
    back = load(f"hf:{tmp_path / 'out'}")
    assert all(torch.equal(back.method.state_dict()[name], each) for name, each in ours.state_dict().items())


@torch.no_grad()
def test_from_pixels_and_strings(tmp_path: Path) -> None:
    """What was trained here, by their own transform, and by the tokeniser in the folder filled up to the context."""
    captions = ["a red apple", "a green pear on a plate", "seven blue cups"]
    tokenizer = Tokenizer.train(captions * 3, TokenizerSpec(300, 12))
    method = Clip(ClipConfig().resolve(DataInfo(vocabulary=len(tokenizer), context=12, special=tokenizer.special)))
    model = Model(method, Processor(ViewSpec(64), tokenizer))
    to_open_clip(model, tmp_path / "out")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 101, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    drawn = torch.stack([transform(each) for each in pictures])
    assert (model.processor.images(pictures) - drawn).abs().max() < 1e-5
    image = F.normalize(theirs.eval().encode_image(drawn), dim=1)
    assert (model.encode_image(pictures).embedding - image).abs().max() < 1e-5
    words = tokenizer(captions).ids
    text = F.normalize(theirs.encode_text(F.pad(words, (0, method.config.text.context - words.shape[1]))), dim=1)
    assert (model.encode_text(captions).embedding - text).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-H-14", "RN50", "RN50x4", "ViT-B-32-quickgelu"])
def test_their_configs_have_our_shapes(name: str) -> None:
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        theirs, ours = open_clip.model.CLIP(**config), Clip(clip_config(config))
    shapes = {key: tuple(each.shape) for key, each in table(ours.config).write(ours.state_dict()).items()}
    assert shapes == {key: tuple(each.shape) for key, each in theirs.state_dict().items()}
    assert isinstance(ours.config, ClipConfig)
