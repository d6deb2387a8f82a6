"""BEiT-3 equals torchscale's, and its vision side timm's, with copied random weights, both ways. Runs in the peers'
environment: `make test-peers`.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from with_torchscale import ensure_torchscale
from with_torchvision import ensure_torchvision

if not ensure_torchvision():
    pytest.skip("torchvision, which timm needs, is not installed here; run `make test-peers`", allow_module_level=True)
if not ensure_torchscale():
    pytest.skip("torchscale is not installed here; run `make test-peers`", allow_module_level=True)
import timm
from peer_weights import randomise
from torchscale.architecture.config import EncoderConfig
from torchscale.model.BEiT3 import BEiT3

from multiway.hub import timm_beit3 as vision
from multiway.hub.file import WeightsError
from multiway.hub.torchscale_beit3 import beit3_config, ours_to_theirs, theirs_to_ours
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.nn.generate import Generation

MASK, START, END = 39, 0, 2
PATCHES = 1 + 16


class Released(nn.Module):
    """torchscale's encoder and the heads that the release puts beside it, under the release's names."""

    def __init__(self, objective: str, **sizes: object) -> None:
        super().__init__()
        given = dict(img_size=16, patch_size=4, vocab_size=40, encoder_embed_dim=32, encoder_attention_heads=2,
                     encoder_ffn_embed_dim=96, encoder_layers=3, max_source_positions=14)  # fmt: skip
        config = EncoderConfig(multiway=True, no_output_layer=True, **{**given, **sizes})
        width = config.encoder_embed_dim
        self.beit3 = BEiT3(config)
        if objective == "itc":
            self.vision_head = nn.Linear(width, width, bias=False)
            self.language_head = nn.Linear(width, width, bias=False)
            self.logit_scale = nn.Parameter(torch.tensor(2.5))
        else:
            self.mlm_head = nn.Linear(width, config.vocab_size)

    def tokens(
        self, images: Tensor | None = None, ids: Tensor | None = None, mask: Tensor | None = None, **more
    ) -> Tensor:
        """Hidden states behind the last norm."""
        away = None if mask is None else ~mask
        return self.beit3(textual_tokens=ids, visual_tokens=images, text_padding_position=away, **more)["encoder_out"]


def pair(objective: str) -> tuple[Released, Beit3]:
    """Theirs with random tensors, and ours with the same."""
    torch.manual_seed(0)
    theirs = randomise(Released(objective))
    config = replace(
        beit3_config(theirs.state_dict(), head_width=16), mask_id=MASK, start_id=START, end_id=END
    )  # fmt: skip
    ours = Beit3(config).eval()
    ours.load_state_dict(theirs_to_ours(theirs.state_dict(), config)[0])
    return theirs, ours


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, and texts of which one fills the context."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(12) < torch.tensor([12, 7, 2, 9])[:, None]
    ids = torch.randint(3, 39, (4, 12), generator=generator).masked_fill(~mask, 1)
    return torch.randn(4, 3, 16, 16, generator=generator), ids, mask


def close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() < 1e-5
    assert theirs.std(0).max() > 0.05  # rows differ, so that the comparison can fail


@torch.no_grad()
def test_pictures_alone() -> None:
    theirs, ours = pair("itc")
    images, _, _ = inputs()
    wanted = theirs.tokens(images)
    close(ours._image(ours.pictures(images)), wanted)
    close(ours._image(ours.pictures(images), first=True), wanted[:, :1])
    embedding = nn.functional.normalize(theirs.vision_head(wanted[:, 0]), dim=-1)
    close(ours.encode_image(images).embedding, embedding)
    hidden = torch.rand(4, 16, generator=torch.Generator().manual_seed(2)) < 0.4
    masked = theirs.tokens(images, vision_masked_position=hidden)
    close(ours._image(ours.pictures(images, hidden)), masked)
    assert (masked - wanted).abs().max() > 0.1


@torch.no_grad()
def test_texts_alone() -> None:
    theirs, ours = pair("itc")
    _, ids, mask = inputs()
    wanted = theirs.tokens(ids=ids, mask=mask)
    close(ours._text(ids, mask)[mask], wanted[mask])
    embedding = nn.functional.normalize(theirs.language_head(wanted[:, 0]), dim=-1)
    close(ours.encode_text(ids, mask).embedding, embedding)
    # Theirs pads to a length, ours to the longest of a batch: a short text alone is the same point.
    close(ours.encode_text(ids[1:3, :7], mask[1:3, :7]).embedding, embedding[1:3])
    assert ours.log_scale == theirs.logit_scale


@torch.no_grad()
def test_pairs() -> None:
    theirs, ours = pair("itc")
    images, ids, mask = inputs()
    wanted = theirs.tokens(images, ids, mask)
    image, text = ours._both_ways(ours.pictures(images), ids, mask)
    close(image, wanted[:, :PATCHES])
    close(text[mask], wanted[:, PATCHES:][mask])
    assert (image - theirs.tokens(images)).abs().max() > 0.05  # the words were seen


def seq2seq(length: int) -> Tensor:
    """Their mask, 1 where nothing is seen: patches see patches, words the patches and the words up to themselves."""
    seen = torch.zeros(PATCHES + length, PATCHES + length)
    seen[:, :PATCHES] = 1
    seen[PATCHES:, PATCHES:] = torch.ones(length, length).tril()
    return 1 - seen


@torch.no_grad()
def test_captions_are_read_and_scored() -> None:
    theirs, ours = pair("caption")
    images, ids, mask = inputs()
    wanted = theirs.tokens(images, ids, mask, attn_mask=seq2seq(12))[:, PATCHES:]
    close(ours._read(ours.pictures(images), ids)[mask], wanted[mask])
    close(ours._guess(ours._read(ours.pictures(images), ids)[mask]), theirs.mlm_head(wanted[mask]))
    # Every word at once, by probes, against [MASK] behind each beginning of a text.
    scores = ours.caption_likelihood(ours.encode_image(images), ids, mask)
    for place in range(1, 12):
        asked = nn.functional.pad(ids[:, :place], (0, 1), value=MASK)
        logits = theirs.mlm_head(theirs.tokens(images, asked, attn_mask=seq2seq(place + 1))[:, -1])
        own = logits.log_softmax(-1).gather(1, ids[:, place : place + 1])[:, 0]
        real = mask[:, place]
        assert (scores.logp[real, place] - own[real]).abs().max() < 1e-5
        assert torch.equal(scores.best[real, place], logits[real].argmax(-1))


@torch.no_grad()
def test_texts_are_written_alike() -> None:
    theirs, ours = pair("caption")
    images = inputs()[0]
    image = ours.encode_image(images)
    texts = ours.generate(image, Generation(strategy="greedy", max_length=8))
    written = torch.full((4, 1), START)
    while written.shape[1] < texts.ids.shape[1]:
        asked = nn.functional.pad(written, (0, 1), value=MASK)
        logits = theirs.mlm_head(theirs.tokens(images, asked, attn_mask=seq2seq(asked.shape[1]))[:, -1])
        written = torch.cat([written, logits.argmax(-1)[:, None]], 1)
    assert torch.equal(texts.ids[texts.mask], written[texts.mask]) and len(set(written.flatten().tolist())) > 3


@pytest.mark.parametrize("objective", ["itc", "caption"])
def test_weights_go_both_ways_and_nothing_is_left_over(objective: str) -> None:
    theirs, ours = pair(objective)
    state, config = dict(theirs.state_dict()), ours.config
    back = ours_to_theirs(ours.state_dict(), config)
    assert set(back) == set(state)
    for name, tensor in state.items():
        if "embed_positions" in name:  # rows 0 and 1 are never read
            assert torch.equal(back[name][2:], tensor[2:]) and not back[name][:2].any(), name
        else:
            assert torch.equal(back[name], tensor), name
    again = randomise(Released(objective), seed=3)
    again.load_state_dict(back)
    images, ids, mask = inputs()
    assert torch.equal(again.tokens(images, ids, mask), theirs.tokens(images, ids, mask))
    extra = Released(objective).beit3.encoder.build_output_projection(
        EncoderConfig(vocab_size=40, encoder_embed_dim=32)
    )
    with pytest.raises(WeightsError, match=r"does not: beit3\.encoder\.output_projection\.weight"):
        theirs_to_ours({**state, "beit3.encoder.output_projection.weight": extra.weight}, config)


@pytest.mark.parametrize("name", ["base", "large"])
def test_the_presets_have_their_shapes(name: str) -> None:
    """As microsoft/unilm's `modeling_utils.py` sizes them."""
    width, layers = {"base": (768, 12), "large": (1024, 24)}[name]
    sizes = dict(img_size=224, patch_size=16, vocab_size=64_010, encoder_embed_dim=width, encoder_attention_heads=width // 64,
                 encoder_ffn_embed_dim=4 * width, encoder_layers=layers, max_source_positions=1024)  # fmt: skip
    with torch.device("meta"):
        theirs = Released("caption", **sizes)
        ours = Beit3(replace(Beit3Config.preset(name), objective="caption"))
    shapes = {key: each.shape for key, each in ours_to_theirs(ours.state_dict(), ours.config).items()}
    assert shapes == {key: each.shape for key, each in theirs.state_dict().items()}


def their_vision(**more: object) -> nn.Module:
    """timm's BEiT-3, small, with random tensors."""
    torch.manual_seed(4)
    sizes = dict(img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2, mlp_ratio=3)
    return randomise(timm.create_model("beit3_base_patch16_224", **{**sizes, "num_classes": 0, **more}))


@torch.no_grad()
def test_the_vision_side_is_timms() -> None:
    _, ours = pair("itc")
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    theirs = their_vision(global_pool="token")
    kept = vision.read_vision(ours, theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[name], before[name]) for name in kept) and "words.positions" in kept
    images = inputs()[0]
    close(ours._image(ours.pictures(images)), theirs.forward_features(images))
    close(ours._image(ours.pictures(images), first=True)[:, 0], theirs(images))
    back = vision.ours_to_theirs(ours.state_dict(), ours.config)
    assert set(back) == set(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


@torch.no_grad()
def test_their_classifiers_give_all_but_the_final_norm() -> None:
    """They pool the patches before it: an identity in its place makes ours their tokens."""
    _, ours = pair("itc")
    theirs = their_vision(num_classes=5)
    with pytest.raises(WeightsError, match=r"fc_norm\.bias, fc_norm\.weight, head\.bias, head\.weight"):
        vision.read_vision(ours, theirs.state_dict())
    kept = vision.read_vision(ours, theirs.state_dict(), leave=("fc_norm.", "head."))
    assert {name for name in kept if "vision" in name} == {
        f"blocks.norm.experts.vision.{t}" for t in ("weight", "bias")
    }
    ours.blocks.norm = nn.Identity()
    ours.blocks.norm.forward = lambda tokens, segments: tokens
    images = inputs()[0]
    tokens = ours._image(ours.pictures(images))
    close(tokens, theirs.forward_features(images))
    close(theirs.head(theirs.fc_norm(tokens[:, 1:].mean(1))), theirs(images))


@torch.no_grad()
def test_timm_reads_the_released_names_as_we_do() -> None:
    """Their own reader of microsoft/unilm's checkpoints, given what we write: a third account of which tensor is which."""
    _, ours = pair("itc")
    from timm.models.vision_transformer import checkpoint_filter_fn

    model = their_vision(global_pool="token", final_norm=False)
    released = ours_to_theirs(ours.state_dict(), ours.config)
    named = {
        name: tensor for name, tensor in released.items() if name.startswith("beit3.") and ".layer_norm." not in name
    }
    model.load_state_dict(checkpoint_filter_fn(named, model))
    wanted = vision.ours_to_theirs(ours.state_dict(), ours.config, normed=False)
    assert set(wanted) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("name", ["base_patch16", "large_patch16"])
def test_timms_sizes_are_the_presets(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(f"beit3_{name}_224", num_classes=0, global_pool="token")
        ours = Beit3(replace(Beit3Config.preset(name.split("_")[0]), objective="itc"))
    shapes = {key: each.shape for key, each in vision.ours_to_theirs(ours.state_dict(), ours.config).items()}
    assert shapes == {key: each.shape for key, each in theirs.state_dict().items()}
