"""Contests of methods that read pictures and texts, beside `transformers` and `open_clip`; each gives both sides the same weights."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from peer_entry import END, PAD, Entry, Size, installed, loaded, our_loss, texts
from torch import Tensor, nn

from multiway.hub.renaming import renamed

__all__ = ["blip", "coca", "open_clip", "siglip", "vilt"]

LEFT_OUT = "open_clip is not installed; `make peers` makes an environment that has it"


def siglip(size: Size) -> Entry:
    """Two towers and a question per pair; texts are filled up to the context, as SigLIP is used."""
    from transformers import SiglipConfig, SiglipModel

    from multiway.hub.transformers_siglip import TABLE, siglip_config
    from multiway.methods.siglip import Siglip

    blocks = {"hidden_size": size.width, "intermediate_size": 4 * size.width, "num_hidden_layers": size.layers,
              "num_attention_heads": size.heads}  # fmt: skip
    text = {"vocab_size": size.vocabulary, "max_position_embeddings": size.length, "projection_size": size.width,
            "pad_token_id": PAD, **blocks}  # fmt: skip
    their_config = SiglipConfig(
        text_config=text, vision_config={"image_size": size.pixels, "patch_size": size.patch, **blocks}
    )
    source = SiglipModel(their_config)
    with torch.no_grad():  # the paper's beginning, section 3.2
        source.logit_scale.fill_(2.3)
        source.logit_bias.fill_(-10.0)
    config = siglip_config(json.loads(their_config.to_json_string(use_diff=False)))
    weights = renamed(TABLE, source.state_dict(), lambda: Siglip(config))
    batch = texts(size)
    return Entry(
        lambda: loaded(lambda: SiglipModel(their_config), source.state_dict()),
        lambda: loaded(lambda: Siglip(config), weights),
        lambda model: model(input_ids=batch.text, pixel_values=batch.images, return_loss=True).loss,
        our_loss(batch),
    )


def open_clip(size: Size) -> Entry | str:
    """CLIP's two towers and its contrast. A reason, where it cannot be held."""
    if not installed("open_clip"):
        return LEFT_OUT
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    from multiway.hub.open_clip_clip import names, table
    from multiway.methods.clip import Clip, ClipConfig
    from multiway.nn.text import TextConfig
    from multiway.nn.vit import VisionConfig

    layout = {
        "embed_dim": size.width,
        "vision_cfg": {"image_size": size.pixels, "patch_size": size.patch, "layers": size.layers, "width": size.width,
                       "head_width": size.width // size.heads},
        "text_cfg": {"context_length": size.length, "vocab_size": size.vocabulary, "layers": size.layers, "width": size.width,
                     "heads": size.heads},
    }  # fmt: skip
    source = CLIP(**layout)
    image = VisionConfig(size.pixels, size.patch, size.width, size.layers, size.heads, pre_norm=True, patch_bias=False,
                         epsilon=1e-5)  # fmt: skip
    # Both sides read a text at its greatest id.
    words = TextConfig(size.vocabulary, size.length, size.width, size.layers, size.heads, pool="eos", eos_id=None)
    config = ClipConfig(image=image, text=words, embedding=size.width)
    weights = renamed(table(config), names(source.state_dict()), lambda: Clip(config))
    batch = texts(size)
    assert batch.text is not None
    batch = replace(batch, text=batch.text.masked_fill(batch.text == END, size.vocabulary - 1))
    score = ClipLoss()
    return Entry(
        lambda: loaded(lambda: CLIP(**layout), source.state_dict()),
        lambda: loaded(lambda: Clip(config), weights),
        lambda model: score(*model(batch.images, batch.text)),
        our_loss(batch),
    )


def vilt(size: Size) -> Entry:
    """One pass over words and patches; the vocabulary is scored at masked words."""
    from transformers import ViltConfig, ViltForMaskedLM

    from multiway.hub.transformers_vilt import theirs_to_ours, vilt_config
    from multiway.methods.vilt import Vilt

    their_config = ViltConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=4 * size.width, image_size=size.pixels, patch_size=size.patch, vocab_size=size.vocabulary,
        max_position_embeddings=40,
    )  # fmt: skip
    source = ViltForMaskedLM(their_config)
    config = replace(vilt_config(their_config.to_dict(), "ViltForMaskedLM"), wpa=0.0)
    weights = theirs_to_ours(source.state_dict(), config, "ViltForMaskedLM")
    batch = texts(size)
    assert batch.text is not None and batch.masked is not None and batch.text_mask is not None
    seen = {"input_ids": batch.masked_text, "attention_mask": batch.text_mask.long(), "pixel_values": batch.images}
    labels = batch.text.masked_fill(~batch.masked, -100)
    return Entry(
        lambda: loaded(lambda: ViltForMaskedLM(their_config), source.state_dict()),
        lambda: loaded(lambda: Vilt(config), weights),
        lambda model: model(**seen, labels=labels).loss,
        our_loss(batch),
    )


def blip(size: Size) -> Entry:
    """The picture once, then a causal decoder that looks at it; the vocabulary is scored where a word follows."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    from multiway.hub.transformers_blip import blip_config, theirs_to_ours
    from multiway.methods.blip import Blip

    kind = "BlipForConditionalGeneration"
    blocks = {"hidden_size": size.width, "intermediate_size": 4 * size.width, "num_hidden_layers": size.layers,
              "num_attention_heads": size.heads}  # fmt: skip
    start = size.vocabulary - 2
    text = {"vocab_size": size.vocabulary, "max_position_embeddings": 40, "encoder_hidden_size": size.width,
            "bos_token_id": start, "sep_token_id": END, "eos_token_id": END, "pad_token_id": PAD,
            "label_smoothing": 0.1, **blocks}  # fmt: skip
    their_config = BlipConfig(
        text_config=text, vision_config={"image_size": size.pixels, "patch_size": size.patch, **blocks}
    )
    source = BlipForConditionalGeneration(their_config)
    config = replace(
        blip_config(json.loads(their_config.to_json_string(use_diff=False)), kind), losses=("lm",), smoothing=0.1
    )
    given = theirs_to_ours(source.state_dict(), config, kind)
    weights = {**Blip(config).state_dict(), **given}
    batch = texts(size)
    assert batch.text is not None and batch.text_mask is not None
    begun = torch.cat([torch.full((size.rows, 1), start), batch.text[:, 1:]], 1)
    seen = {"input_ids": begun, "attention_mask": batch.text_mask.long(), "pixel_values": batch.images}
    labels = begun.masked_fill(~batch.text_mask, -100)
    return Entry(
        lambda: loaded(lambda: BlipForConditionalGeneration(their_config), source.state_dict()),
        lambda: loaded(lambda: Blip(config), weights),
        lambda model: model(**seen, labels=labels).loss,
        our_loss(batch),
    )


def coca(size: Size) -> Entry | str:
    """One pass over picture and text for both losses. A reason, where it cannot be held."""
    if not installed("open_clip"):
        return LEFT_OUT
    from open_clip.coca_model import CoCa
    from open_clip.loss import CoCaLoss

    from multiway.hub.open_clip_coca import coca_config, theirs_to_ours
    from multiway.methods.coca import Coca

    heads = {"width": size.width, "heads": size.heads}
    layout = {
        "embed_dim": size.width,
        "vision_cfg": {"image_size": size.pixels, "patch_size": size.patch, "layers": size.layers, "width": size.width,
                       "head_width": size.width // size.heads, "attentional_pool": True, "attn_pooler_heads": size.heads,
                       "output_tokens": True},
        "text_cfg": {"context_length": size.length, "vocab_size": size.vocabulary, "layers": size.layers // 2,
                     "embed_cls": True, "output_tokens": True, "pad_id": PAD, **heads},
        "multimodal_cfg": {"context_length": size.length, "vocab_size": size.vocabulary, "layers": size.layers // 2, **heads},
    }  # fmt: skip
    source = CoCa(**layout)
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if parameter.dim() > 0 and ".ln_" not in name and not name.endswith("bias"):
                parameter.normal_(std=0.02)  # one of theirs is left as the memory was
    config = coca_config(layout)
    weights = theirs_to_ours(source.state_dict(), config)
    batch = texts(size)
    score = CoCaLoss(config.caption, config.contrast, pad_id=PAD)

    def their_loss(model: nn.Module) -> Tensor:
        found = score(**model(batch.images, batch.text), output_dict=True)
        return sum(found.values(), torch.zeros(()))

    return Entry(
        lambda: loaded(lambda: CoCa(**layout), source.state_dict()),
        lambda: loaded(lambda: Coca(config), weights),
        their_loss,
        our_loss(batch),
    )
