"""Contests of methods that read pictures alone, beside `transformers`; each gives both sides the same weights."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from peer_entry import Entry, Size, loaded, our_loss
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.hub.renaming import renamed

__all__ = ["beit", "mae", "vit"]

CLASSES, CODES = 100, 1024


def _images(size: Size) -> Tensor:
    """(B, 3, H, W) of noise, the same every time."""
    return torch.randn(size.rows, 3, size.pixels, size.pixels, generator=torch.Generator().manual_seed(0))


def _sizes(size: Size) -> dict[str, Any]:
    """By the names that configs of `transformers` share."""
    return {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
            "intermediate_size": 4 * size.width, "image_size": size.pixels, "patch_size": size.patch}  # fmt: skip


class _Classifier(nn.Module):
    """Our ViT, read at its class token, and a linear head, as theirs has it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from multiway.methods.picture_encoder import PictureEncoder

        self.encoder = PictureEncoder(config)
        self.head = nn.Linear(config.backbone.width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes)."""
        return self.head(self.encoder.backbone(images, tokens=False).pooled)  # type: ignore[no-any-return]


def vit(size: Size) -> Entry:
    """A ViT that names one of a hundred classes."""
    from transformers import ViTConfig, ViTForImageClassification

    from multiway.hub.transformers_vit import names, table, vit_config
    from multiway.methods.picture_encoder import PictureEncoder

    their_config = ViTConfig(**_sizes(size), num_labels=CLASSES)
    source = ViTForImageClassification(their_config)
    given = source.state_dict()
    config = vit_config(json.loads(their_config.to_json_string(use_diff=False)))
    heads = {
        f"head.{name.removeprefix('classifier.')}": given[name] for name in given if name.startswith("classifier.")
    }
    encoder = renamed(table(config), names(given), lambda: PictureEncoder(config))
    weights = {f"encoder.{name}": each for name, each in encoder.items()} | heads
    images = _images(size)
    labels = torch.arange(size.rows) * 7 % CLASSES
    return Entry(
        lambda: loaded(lambda: ViTForImageClassification(their_config), given),
        lambda: loaded(lambda: _Classifier(config), weights),
        lambda model: model(pixel_values=images, labels=labels).loss,
        lambda model: F.cross_entropy(model(images).float(), labels),
    )


def beit(size: Size) -> Entry:
    """Codes of hidden patches are guessed, with the codes given; a table of relative positions that all blocks share."""
    from transformers import BeitConfig, BeitForMaskedImageModeling

    from multiway.hub.transformers_beit import beit_config, names, table
    from multiway.methods.picture_encoder import PictureEncoder

    their_config = BeitConfig(
        **_sizes(size),
        vocab_size=CODES,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
        drop_path_rate=0.0,
    )
    source = BeitForMaskedImageModeling(their_config)
    told = json.loads(their_config.to_json_string(use_diff=False)) | {"architectures": ["BeitForMaskedImageModeling"]}
    config = beit_config(told)
    weights = renamed(table(config), names(source.state_dict()), lambda: PictureEncoder(config))
    images, patches = _images(size), (size.pixels // size.patch) ** 2
    generator = torch.Generator().manual_seed(1)
    hidden = torch.rand(size.rows, patches, generator=generator) < 0.4
    codes = torch.randint(0, CODES, (int(hidden.sum()),), generator=generator)
    return Entry(
        lambda: loaded(lambda: BeitForMaskedImageModeling(their_config), source.state_dict()),
        lambda: loaded(lambda: PictureEncoder(config), weights),
        lambda model: model(images, bool_masked_pos=hidden, labels=codes).loss,
        lambda model: F.cross_entropy(model.guess_codes(images, hidden, hidden_only=True).float(), codes),
    )


def mae(size: Size) -> Entry:
    """The encoder on a quarter of the patches, a decoder of half its width on all."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from multiway.hub.transformers_vitmae import mae_config, older, theirs_to_ours
    from multiway.methods.mae import Mae
    from multiway.nn.patch import sincos_positions

    their_config = ViTMAEConfig(
        **_sizes(size),
        decoder_hidden_size=size.width // 2, decoder_num_hidden_layers=size.layers // 2,
        decoder_num_attention_heads=size.heads, decoder_intermediate_size=2 * size.width, norm_pix_loss=True,
    )  # fmt: skip
    source, side = ViTMAEForPreTraining(their_config), size.pixels // size.patch
    with torch.no_grad():  # which their constructor leaves at zero
        for table in (source.vit.embeddings.position_embeddings, source.decoder.decoder_pos_embed):
            table.zero_()
            table[0, 1:] = sincos_positions((side, side), table.shape[2])
    given = source.state_dict()
    config = mae_config(
        json.loads(their_config.to_json_string(use_diff=False)), {older(name): each for name, each in given.items()}
    )
    weights = theirs_to_ours(given, config)
    images = _images(size)
    noise = torch.rand(size.rows, side * side, generator=torch.Generator().manual_seed(1))
    hidden = noise.argsort(1).argsort(1) >= side * side // 4  # they keep the patches of the least noise
    batch = Batch(views=(images,), patch_mask=hidden, image_id=torch.arange(size.rows))
    return Entry(
        lambda: loaded(lambda: ViTMAEForPreTraining(their_config), given),
        lambda: loaded(lambda: Mae(config), weights),
        lambda model: model(pixel_values=images, noise=noise).loss,
        our_loss(batch),
    )
