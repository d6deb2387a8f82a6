"""What the comparisons of picture encoders with `transformers` share: made from theirs, equal to theirs, nothing unaccounted for."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.methods.method import Method
from multiway.methods.picture_encoder import PictureEncoder


def pictures(size: int = 32, rows: int = 3) -> Tensor:
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(1))


def converted(theirs: nn.Module, config_of: Callable[..., Any], layout: ModuleType) -> PictureEncoder:
    """Ours from a model of theirs in memory, by the config that a folder of it would have, and the layout's `table` and `names`."""
    told = json.loads(theirs.config.to_json_string(use_diff=False))  # type: ignore[union-attr,operator]
    config = config_of(told | {"architectures": [type(theirs).__name__]})
    ours = PictureEncoder(config).eval()
    fill(ours, layout.table(config), layout.names(theirs.state_dict()))
    return ours


@torch.no_grad()
def same_encoding(ours: Any, images: Tensor, tokens: Tensor, vector: Tensor) -> None:
    """Ours says of pictures what theirs did.

    Args:
        ours: a method that encodes pictures.
        images: (B, 3, H, W).
        tokens: theirs, (B, N, W).
        vector: theirs of each picture, of any length, (B, W).
    """
    encoded = ours.encode_image(images)
    assert encoded.tokens.shape == tokens.shape and (encoded.tokens - tokens).abs().max() < 1e-5
    assert (encoded.embedding - nn.functional.normalize(vector, dim=1)).abs().max() < 1e-5
    assert tokens.std(0).max() > 0.1  # rows differ, so the comparison can fail


def same_state(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """To the bit, under the same names."""
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def drawn_alike(ours: Model, processor: Any, shape: tuple[int, int, int]) -> tuple[Image.Image, Tensor]:
    """A picture of (H, W, 3) that their processor and ours draw alike, and its pixels (1, 3, S, S)."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    pixels = processor(picture, return_tensors="pt").pixel_values
    assert (ours.processor.images([picture]) - pixels).abs().max() < 1e-5
    return picture, pixels


def opened(kind: Any, folder: Path, **options: Any) -> Any:
    """A class of theirs from a folder of ours, in which it finds every tensor and no other."""
    theirs, told = kind.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return theirs.eval()


def nothing_unaccounted(table: Table, method: Method, state: dict[str, Tensor], missing: str = "lacks") -> None:
    """A tensor more, or any one less, is an error.

    Args:
        table: the layout's.
        method: of ours.
        state: theirs, without parts that are left behind.
        missing: what the error says of one less.
    """
    with pytest.raises(WeightsError, match=r"does not: surprise"):
        fill(method, table, {**state, "surprise": torch.zeros(1)})
    for name in state:
        with pytest.raises(WeightsError, match=missing):
            fill(method, table, {n: t for n, t in state.items() if n != name})
