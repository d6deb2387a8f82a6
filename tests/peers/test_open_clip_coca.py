"""CoCa equals open_clip's with copied random weights, both ways. Runs in the peers' environment: `make test-peers`."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip(
        "torchvision, which open_clip needs, is not installed here; run `make test-peers`", allow_module_level=True
    )
open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed here; run `make test-peers`")

from multiway.hub.file import WeightsError  # noqa: E402
from multiway.hub.load import load  # noqa: E402
from multiway.hub.open_clip_coca import coca_config, table, to_open_clip  # noqa: E402
from multiway.hub.renaming import fill  # noqa: E402
from multiway.methods.coca import Coca  # noqa: E402
from multiway.nn.generate import Generation  # noqa: E402

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 48, "patch_size": 8, "head_width": 16, "attentional_pool": True,
        "attn_pooler_queries": 6, "attn_pooler_heads": 4, "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 12, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2, "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 12, "vocab_size": 60, "width": 32, "heads": 4, "layers": 3},
}  # fmt: skip
# The pooler's projections are merged where both towers are equally wide.
EQUAL = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "width": 32}}
QUICK = {**CONFIG, "quick_gelu": True}


def peer(config: dict = CONFIG) -> torch.nn.Module:
    """A small CoCa of theirs whose every tensor is random; they leave one uninitialised."""
    model = open_clip.coca_model.CoCa(**config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
            if ".ln_" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.logit_scale.fill_(2.3)
    return model.eval()


def words() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids as their tokeniser gives them: filled up to the context with 0; one text fills it."""
    lengths = torch.tensor([12, 9, 3, 5, 11])
    mask = torch.arange(12) < lengths[:, None]
    return torch.randint(1, 60, (5, 12), generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 0), mask


@torch.no_grad()
@pytest.mark.parametrize("config", [CONFIG, EQUAL, QUICK], ids=["wider", "equal", "quick_gelu"])
def test_embeddings_and_logits_equal(config: dict) -> None:
    theirs, mine = peer(config), coca_config(config)
    ours = Coca(mine).eval()
    fill(ours, table(mine), theirs.state_dict())
    ids, mask = words()
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    out = theirs(images, ids)
    image, text = ours.encode_image(images), ours.encode_text(ids, mask)
    assert (image.embedding - out["image_features"]).abs().max() < 1e-5
    assert (text.embedding - out["text_features"]).abs().max() < 1e-5
    _, tokens = theirs._encode_image(images)
    assert (image.tokens - tokens).abs().max() < 1e-5
    scored = mask[:, 1:]
    logits = ours._guess(text.tokens, mask, image.tokens)
    assert (logits - out["logits"][scored]).abs().max() < 1e-5 * out["logits"].abs().max()
    assert out["text_features"].std(0).max() > 0.05 and out["logits"].std() > 0.3
    # Ours pads to the longest of a batch, theirs to the context: a short text alone is the same point.
    alone = ours.encode_text(ids[2:3, :3], mask[2:3, :3])
    assert (alone.embedding - out["text_features"][2]).abs().max() < 1e-5


@torch.no_grad()
def test_the_losses_are_theirs() -> None:
    """Of pairs that share nothing. Their caption loss leaves out id 0, as ours leaves out padding."""
    from multiway.batch import Batch
    from multiway.methods.method import Step
    from multiway.world import World

    theirs, mine = peer(), coca_config(CONFIG)
    ours = Coca(mine).eval()
    fill(ours, table(mine), theirs.state_dict())
    ids, mask = words()
    images = torch.randn(5, 3, 32, 32)
    contrast, caption = open_clip.CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0)(**theirs(images, ids))
    losses = ours(Batch(images=images, text=ids, text_mask=mask), World(), Step())
    torch.testing.assert_close(losses.terms["itc"].value, contrast, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses.total, contrast + caption, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_greedy_captions_are_theirs() -> None:
    """By their forward pass, a word at a time: their `generate` asks for a class that transformers 5 has no more."""
    theirs, mine = peer(), replace(coca_config(CONFIG), start=58, end=59)
    ours = Coca(mine).eval()
    fill(ours, table(mine), theirs.state_dict())
    images = torch.randn(4, 3, 32, 32)
    texts = ours.generate(ours.encode_image(images), Generation(max_length=12))
    ids = torch.full((4, 1), 58)
    while ids.shape[1] < texts.ids.shape[1]:
        ids = torch.cat([ids, theirs(images, ids, output_labels=False)["logits"][:, -1:].argmax(-1)], 1)
    assert torch.equal(texts.ids[texts.mask], ids[texts.mask])
    assert len(set(texts.ids[texts.mask].tolist())) > 4


def test_round_trip_is_exact_to_the_bit_and_nothing_is_left_over() -> None:
    for config in (CONFIG, EQUAL):
        theirs, mine = peer(config), coca_config(config)
        ours, state = Coca(mine), dict(theirs.state_dict())
        fill(ours, table(mine), state)
        back = table(mine).write(ours.state_dict())
        assert set(back) == set(state)
        for name, tensor in state.items():
            assert torch.equal(back[name], tensor), name
        with pytest.raises(WeightsError, match=r"does not: visual\.surprise"):
            fill(ours, table(mine), {**state, "visual.surprise": torch.zeros(1)})
        del state["text.cls_emb"]
        with pytest.raises(WeightsError, match=r"lacks the tensor text\.cls_emb"):
            fill(ours, table(mine), state)


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "coca_ViT-L-14"])
def test_the_released_configs_have_our_shapes(name: str) -> None:
    config = open_clip.get_model_config(name)
    config.pop("custom_text", None)
    with torch.device("meta"):
        theirs = open_clip.coca_model.CoCa(**config)
        ours = Coca(coca_config(config))
    shapes = {key: tuple(t.shape) for key, t in table(ours.config).write(ours.state_dict()).items()}
    assert shapes == {key: tuple(t.shape) for key, t in theirs.state_dict().items()}


def test_what_has_no_counterpart_is_refused() -> None:
    for part, field, value in (
        ("vision_cfg", "attentional_pool", "cascade"),
        ("text_cfg", "embed_cls", False),
        ("multimodal_cfg", "heads", 8),
    ):
        with pytest.raises(WeightsError, match=rf"{part}\.{field} is {value!r}"):
            coca_config({**CONFIG, part: {**CONFIG[part], field: value}})


@torch.no_grad()
def test_a_folder_is_read_by_either(tmp_path: Path) -> None:
    theirs, mine = peer(), coca_config(CONFIG)
    from multiway.batch import ViewSpec
    from multiway.data.processor import Processor
    from multiway.hub.model import Model

    ours = Coca(mine)
    fill(ours, table(mine), theirs.state_dict())
    to_open_clip(Model(ours, Processor(ViewSpec(size=32), None)), tmp_path)
    again = load(f"hf:{tmp_path}")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.method.state_dict()[name], tensor), name
    read = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(read.encode_image(images), theirs.encode_image(images))
