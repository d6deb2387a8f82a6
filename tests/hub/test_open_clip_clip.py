"""CLIP under open_clip's names, held against stand-ins built of torch's own parts; the library itself is in tests/peers."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hub.stand_ins import random_everywhere
from hub.vit_peers import nothing_unaccounted, pictures, same_state
from torch import Tensor, nn

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.layouts import to_open_clip
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.open_clip_clip import clip_config, table
from multiway.hub.open_clip_folder import CONFIG_FILE
from multiway.methods.clip import Clip, ClipConfig

CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 60, "width": 64, "heads": 1, "layers": 2},
}
RESNET = CONFIG | {"vision_cfg": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "head_width": 64}}


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Resblock(nn.Module):
    def __init__(self, width: int, heads: int, quick: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGelu() if quick else nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, quick: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Resblock(width, heads, quick) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, cfg: dict, out: int, quick: bool) -> None:
        super().__init__()
        width, places = cfg["width"], (cfg["image_size"] // cfg["patch_size"]) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(places, width))
        self.conv1 = nn.Conv2d(3, width, cfg["patch_size"], cfg["patch_size"], bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, cfg["layers"], width // 64, quick)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = ((inside, width, 1), (width, width, 3), (width, 4 * width, 1))
        for number, (a, b, kernel) in enumerate(sizes, 1):
            setattr(self, f"conv{number}", nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(b))
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or inside != 4 * width:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))
            self.downsample.add_module("0", nn.Conv2d(inside, 4 * width, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(self.pool(y))) + (x if self.downsample is None else self.downsample(x)))


class VisionResNet(nn.Module):
    def __init__(self, cfg: dict, out: int) -> None:
        super().__init__()
        base = cfg["width"]
        for number, (a, b, stride) in enumerate(
            ((3, base // 2, 2), (base // 2, base // 2, 1), (base // 2, base, 1)), 1
        ):
            setattr(self, f"conv{number}", nn.Conv2d(a, b, 3, stride, 1, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(b))
        inside = base
        for stage, depth in enumerate(cfg["layers"]):
            parts = []
            for index in range(depth):
                parts.append(Bottleneck(inside, base * 2**stage, 2 if stage and not index else 1))
                inside = 4 * base * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        self.attnpool = nn.Module()
        self.attnpool.positional_embedding = nn.Parameter(torch.zeros((cfg["image_size"] // 32) ** 2 + 1, inside))
        for name in "qkv":
            setattr(self.attnpool, f"{name}_proj", nn.Linear(inside, inside))
        self.attnpool.c_proj = nn.Linear(inside, out)
        self.heads = base * 32 // 64

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for number in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        x = F.avg_pool2d(x, 2)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.attnpool.positional_embedding[:, None]
        pool = self.attnpool
        return F.multi_head_attention_forward(
            x[:1], x, x, x.shape[2], self.heads, None,
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias,
            use_separate_proj_weight=True, training=False, need_weights=False, q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        )[0][0]  # fmt: skip


class StandIn(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        quick, vision, text = config.get("quick_gelu", False), config["vision_cfg"], config["text_cfg"]
        ours = isinstance(vision["layers"], list)
        self.visual = VisionResNet(vision, config["embed_dim"]) if ours else Vision(vision, config["embed_dim"], quick)
        width = text["width"]
        self.token_embedding = nn.Embedding(text["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.zeros(text["context_length"], width))
        self.transformer = Transformer(width, text["layers"], text["heads"], quick)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, config["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.tensor(2.3))
        self.end = text.get("eos_id") if text.get("pool_type") == "eos" else None

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, -math.inf).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        at = ids.argmax(1) if self.end is None else (ids == self.end).int().argmax(1)
        return x[torch.arange(len(ids)), at] @ self.text_projection


def made(config: dict) -> StandIn:
    return random_everywhere(StandIn(config))


def ids_with_end(end: int = 59) -> Tensor:
    """Texts of different lengths, each ended and filled up to the context with 0."""
    ids = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    for row in range(3):
        ids[row, 4 + row] = end
        ids[row, 5 + row :] = 0
    return ids


@torch.no_grad()
def same(ours: Clip, theirs: StandIn, ids: Tensor | None = None) -> None:
    ids = ids_with_end() if ids is None else ids
    mask = ids != 0
    image, text = F.normalize(theirs.visual(pictures()), dim=1), F.normalize(theirs.encode_text(ids), dim=1)
    assert (ours.encode_image(pictures()).embedding - image).abs().max() < 1e-5 and image.std(0).max() > 5e-4
    assert (ours.encode_text(ids, mask).embedding - text).abs().max() < 1e-5 and text.std(0).max() > 0.05
    assert float(ours.log_scale) == float(theirs.logit_scale)


def folder_of(config: dict, theirs: StandIn, folder: Path, **drawn: object) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(theirs.state_dict(), str(folder / "open_clip_model.safetensors"))
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": drawn}))
    return folder


@pytest.mark.parametrize("config", [CONFIG, CONFIG | {"quick_gelu": False}, RESNET], ids=["quick", "gelu", "resnet"])
def test_folders_are_read_and_written_to_the_bit(config: dict, tmp_path: Path) -> None:
    theirs = made(config)
    folder = folder_of(
        config, theirs, tmp_path / "in", mean=[0.5] * 3, std=[0.25] * 3, interpolation="bilinear", resize_mode="squash"
    )
    model = load(f"hf:{folder}")
    same(model.method, theirs)
    assert model.processor.view == ViewSpec(32, "squash", (0.5,) * 3, (0.25,) * 3, "bilinear")
    to_open_clip(model, tmp_path / "out")
    back = load(f"hf:{tmp_path / 'out'}")
    same_state(back.method.state_dict(), model.method.state_dict())
    assert back.processor.view == model.processor.view and back.method.config == model.method.config
    same_state(table(model.method.config).write(model.method.state_dict()), theirs.state_dict())


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    for config in (CONFIG, RESNET):
        nothing_unaccounted(table(clip_config(config)), Clip(clip_config(config)), made(config).state_dict())


@pytest.mark.parametrize("openai", [True, False])
def test_a_bare_state_dict_shows_its_sizes(openai: bool, tmp_path: Path) -> None:
    """OpenAI's own keeps three sizes among its weights, which tells its activation; open_clip's newer ones put texts in a part."""
    config = CONFIG | {"quick_gelu": openai}
    theirs = made(config)
    state = dict(theirs.state_dict())
    if openai:
        state |= {
            "input_resolution": torch.tensor(32),
            "context_length": torch.tensor(12),
            "vocab_size": torch.tensor(60),
        }
    else:
        state = {
            name if name.startswith(("visual.", "logit_scale")) else f"text.{name}": each
            for name, each in state.items()
        }
    torch.save({"state_dict": {f"module.{name}": each for name, each in state.items()}}, tmp_path / "epoch_1.pt")
    model = load(tmp_path / "epoch_1.pt")
    same(model.method, theirs)
    assert model.method.config.image.size == 32 and model.method.config.text.context == 12


@torch.no_grad()
def test_what_was_trained_here_is_theirs_at_its_own_end_token(tmp_path: Path) -> None:
    captions = ["a red apple", "a green pear on a plate", "seven blue cups"]
    tokenizer = Tokenizer.train(captions * 3, TokenizerSpec(300, 12))
    method = Clip(ClipConfig().resolve(DataInfo(vocabulary=len(tokenizer), context=12, special=tokenizer.special)))
    model = Model(random_everywhere(method), Processor(ViewSpec(64), tokenizer))
    to_open_clip(model, tmp_path / "out")
    stated = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    assert stated["model_cfg"]["text_cfg"]["eos_id"] == tokenizer.special["eos"]
    theirs = StandIn(stated["model_cfg"]).eval()
    from safetensors.torch import load_file

    theirs.load_state_dict(load_file(tmp_path / "out" / "open_clip_model.safetensors"))
    words = tokenizer(captions)
    found = F.normalize(theirs.encode_text(words.ids), dim=1)
    assert (model.encode_text(captions).embedding - found).abs().max() < 1e-5


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    for part, field, value in (
        ("vision_cfg", "timm_model_name", "vit_base"), ("vision_cfg", "pool_type", "avg"), ("text_cfg", "hf_model_name", "roberta"),
        ("text_cfg", "no_causal_mask", True),
    ):  # fmt: skip
        with pytest.raises(WeightsError, match=f"{field} is {value!r}"):
            clip_config({**CONFIG, part: {**CONFIG[part], field: value}})
    with pytest.raises(WeightsError, match="init_logit_bias"):
        clip_config(CONFIG | {"init_logit_bias": -10.0})
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_cfg": CONFIG}))
    with pytest.raises(WeightsError, match=r"neither open_clip_model\.safetensors"):
        load(f"hf:{tmp_path}")
