"""SigLIP equals open_clip's with copied random weights, both ways, from pictures and strings. Runs in the peers' environment."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip(
        "torchvision, which open_clip needs, is not installed here; run `make test-peers`", allow_module_level=True
    )
open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed here; run `make test-peers`")
timm = pytest.importorskip("timm", reason="timm is not installed here; run `make test-peers`")

from dataclasses import replace  # noqa: E402

from multiway.batch import ViewSpec  # noqa: E402
from multiway.data.processor import Processor  # noqa: E402
from multiway.data.tokenizer import Tokenizer, TokenizerSpec  # noqa: E402
from multiway.hub import open_clip_siglip  # noqa: E402
from multiway.hub.file import WeightsError  # noqa: E402
from multiway.hub.layouts import to_open_clip  # noqa: E402
from multiway.hub.load import load  # noqa: E402
from multiway.hub.model import Model  # noqa: E402
from multiway.hub.open_clip_siglip import HEADS, TABLE, TOWERS, siglip_config  # noqa: E402
from multiway.hub.tokenizer_files import write_tokenizer  # noqa: E402
from multiway.hub.transformers_folder import write_json  # noqa: E402
from multiway.methods.siglip import Siglip  # noqa: E402

CAPTIONS = ["a red apple", "A Green pear, on a plate!", "seven_blue  cups"]
NAME = "vit_tiny_patch8_siglip_32"


def tower(pretrained: bool = False, **options: object) -> torch.nn.Module:
    """timm's SigLIP, small, under a name of the same form."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "class_token": False}
    return timm.models.vision_transformer.VisionTransformer(**{**sizes, **options, "act_layer": "gelu_tanh"})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOWERS, NAME, (32, 8, 48, 2, 192, "gelu_tanh"))
    monkeypatch.setitem(HEADS, 48, 3)
    create = timm.create_model

    def made(name: str, **options: object) -> torch.nn.Module:
        return tower(**options) if name == NAME else create(name, **options)

    monkeypatch.setattr(timm, "create_model", made)


def stated(tanh: bool, tokens: int) -> dict:
    text = {"context_length": 12, "vocab_size": tokens, "width": 40, "heads": 2, "layers": 2, "no_causal_mask": True, "proj_bias": True,
            "pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "tokenizer_kwargs": {"clean": "canonicalize"}}  # fmt: skip
    return {
        "embed_dim": 48, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": NAME, "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": text | ({"act_kwargs": {"approximate": "tanh"}} if tanh else {}),
    }  # fmt: skip


@torch.no_grad()
def peer(config: dict) -> torch.nn.Module:
    """Every tensor at random."""
    torch.manual_seed(0)
    theirs = open_clip.model.CustomTextCLIP(
        **{
            name: {k: v for k, v in each.items() if k != "tokenizer_kwargs"} if isinstance(each, dict) else each
            for name, each in config.items()
            if name != "custom_text"
        }
    )
    for each in theirs.state_dict().values():
        noise = torch.randn_like(each)
        each.copy_(1 + 0.2 * noise if each.ndim == 1 else 0.2 * noise)
    theirs.logit_scale.fill_(2.3)
    theirs.logit_bias.fill_(-4.5)
    return theirs.eval()


@pytest.mark.parametrize("tanh", [False, True])
@torch.no_grad()
def test_from_pictures_and_strings_both_ways(tanh: bool, tmp_path: Path) -> None:
    words = Tokenizer.train([each.lower() for each in CAPTIONS * 3], TokenizerSpec(300, 12))
    theirs = peer(stated(tanh, len(words)))
    folder = tmp_path / "in"
    folder.mkdir()
    from safetensors.torch import save_file

    save_file(theirs.state_dict(), folder / "open_clip_model.safetensors")
    drawn = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash", "size": 32}
    config = stated(tanh, len(words))
    config["text_cfg"]["hf_tokenizer_name"] = str(folder)
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": drawn})
    write_tokenizer(folder, Processor(ViewSpec(), words))

    ours = load(f"hf:{folder}")
    assert isinstance(ours.method, Siglip)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 71, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    for source in (folder, tmp_path / "out"):
        if source != folder:
            to_open_clip(ours, source)
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{source}")
        ids = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)  # cleaned, and filled up, by theirs
        seen = torch.stack([transform(each) for each in pictures])
        image, text = model.eval().encode_image(seen, normalize=True), model.encode_text(ids, normalize=True)
        assert (ours.processor.images(pictures) - seen).abs().max() < 1e-5
        found, read = ours.encode_image(pictures, tokens=True), ours.encode_text(CAPTIONS, tokens=True)
        assert (found.embedding - image).abs().max() < 1e-5 and image.std(0).max() > 0.01
        assert (read.embedding - text).abs().max() < 1e-5 and text.std(0).max() > 0.01
        logits, _ = model.get_logits(seen, ids)
        assert (ours.method.logits(found, read) - logits).abs().max() < 1e-5 * math.exp(2.3)
    back = load(f"hf:{tmp_path / 'out'}")
    assert back.method.config == ours.method.config and back.processor.view == ours.processor.view
    assert all(torch.equal(each, back.method.state_dict()[name]) for name, each in ours.method.state_dict().items())
    assert ours.report is not None and len(ours.report.renamed) + len(ours.report.matched) == len(theirs.state_dict())


@pytest.mark.parametrize("name", [*TOWERS])
def test_timms_towers_have_our_sizes(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0, global_pool="map")
    size, patch, width, layers, hidden, activation = TOWERS[name]
    block = theirs.blocks[0]
    assert (theirs.embed_dim, len(theirs.blocks), block.mlp.fc1.out_features, block.attn.num_heads) == (
        width,
        layers,
        hidden,
        HEADS[width],
    )
    assert theirs.patch_embed.patch_size == (patch, patch) and theirs.patch_embed.img_size == (size, size)
    assert block.mlp.act(torch.ones(1)) == torch.nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")(
        torch.ones(1)
    )
    assert block.norm1.eps == 1e-6 and theirs.attn_pool.num_heads == HEADS[width]


@pytest.mark.parametrize(
    "name", ["ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256", "ViT-L-16-SigLIP-384", "ViT-SO400M-14-SigLIP", "ViT-SO400M-14-SigLIP-384", "ViT-SO400M-16-SigLIP2-384"]
)  # fmt: skip
def test_their_configs_have_our_shapes(name: str) -> None:
    config = open_clip.get_model_config(name)
    config["text_cfg"].pop("tokenizer_kwargs", None)
    with torch.device("meta"):
        theirs = open_clip.model.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"}).state_dict()
        ours = Siglip(siglip_config(config, theirs))
    shapes = {key: tuple(each.shape) for key, each in TABLE.write(ours.state_dict()).items()}
    assert shapes == {key: tuple(each.shape) for key, each in theirs.items()}


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    config = stated(False, 60)
    tensors = peer(config).state_dict()
    for part, change, said in (
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_gap_224"}, "can be converted"),
        ("vision_cfg", {"timm_pool": "avg"}, "timm_pool is 'avg'"),
        ("vision_cfg", {"image_size": 48}, "pictures of 32 pixels.*48"),
        ("text_cfg", {"no_causal_mask": False}, "no_causal_mask is False"),
        ("text_cfg", {"act_kwargs": {"approximate": "sigmoid"}}, "expected GELU"),
    ):
        with pytest.raises(WeightsError, match=said):
            siglip_config(config | {part: config[part] | change}, tensors)
    with pytest.raises(WeightsError, match="init_logit_bias"):
        siglip_config(config | {"init_logit_bias": None}, tensors)
    made = siglip_config(config, tensors)
    exact = replace(made, image=replace(made.image, activation="gelu"))
    with pytest.raises(WeightsError, match=r"none is of .*\(32, 8, 48, 2, 192, 'gelu'\).*--layout transformers"):
        to_open_clip(Model(Siglip(exact), Processor(ViewSpec(32), None)), tmp_path / "x")
    words = Tokenizer.train(CAPTIONS, TokenizerSpec(300, 12))
    with pytest.raises(WeightsError, match="clean is 'other'"):
        open_clip_siglip._cleaned(words, "other")
