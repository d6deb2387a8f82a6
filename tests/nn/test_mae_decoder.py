"""The decoder of a masked autoencoder: places, positions, sizes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from multiway.nn.hidden_patches import visible
from multiway.nn.mae_decoder import MaeDecoder, MaeDecoderConfig, xavier_init

SMALL = MaeDecoderConfig(width=16, layers=2, heads=2)


def built(positions: str = "sincos", prefix: int = 1, restores: bool = True) -> MaeDecoder:
    torch.manual_seed(0)
    config = replace(SMALL, positions=positions)  # type: ignore[arg-type]
    return MaeDecoder(config, 12, (4, 4), prefix, 48, restores=restores).eval()


def test_without_positions_all_hidden_patches_are_told_alike() -> None:
    mask = torch.rand(3, 16).argsort(1) < 12
    tokens = torch.randn(3, 5, 12)
    for positions, alike in (("none", True), ("sincos", False), ("learned", False)):
        said = built(positions)(tokens, mask)
        assert said.shape == (3, 16, 48)
        for row in range(3):
            hidden = said[row][mask[row]]
            assert torch.allclose(hidden, hidden[:1].expand_as(hidden), atol=1e-6) is alike
        assert not torch.allclose(said[0][mask[0]][0], said[1][mask[1]][0], atol=1e-4)  # pictures are not


@pytest.mark.parametrize("prefix", [0, 1])
def test_mask_tokens_may_come_from_the_encoder(prefix: int) -> None:
    inside, decoder = built(prefix=prefix, restores=False), built(prefix=prefix)
    assert inside.mask_token is None and decoder.mask_token is not None
    tokens, mask = torch.randn(2, prefix + 16, 12), torch.rand(2, 16).argsort(1) < 12
    assert inside(tokens, mask).shape == (2, 16, 48)
    # The same once what is embedded at hidden places is the token.
    shown = tokens[:, prefix:].gather(1, visible(mask)[..., None].expand(-1, -1, 12))
    nothing = torch.zeros_like(mask)
    assert torch.allclose(decoder(tokens, nothing), _loaded(inside, decoder)(tokens, nothing), atol=1e-6)
    assert not torch.allclose(decoder(torch.cat([tokens[:, :prefix], shown], 1), mask), inside(tokens, mask))


def _loaded(inside: MaeDecoder, decoder: MaeDecoder) -> MaeDecoder:
    inside.load_state_dict({key: each for key, each in decoder.state_dict().items() if key != "mask_token"})
    return inside


def test_fixed_positions_are_no_weights_and_other_grids_interpolate_them() -> None:
    assert not any("position" in key for key in built().state_dict())
    assert {key for key in built("learned").state_dict() if "position" in key} == {"positions", "class_position"}
    mask = torch.rand(2, 24).argsort(1) < 12
    assert built()(torch.randn(2, 13, 12), mask, (4, 6)).shape == (2, 24, 48)


def test_parameters_are_counted_part_by_part() -> None:
    """The published decoder, 512 wide and 8 deep, on ViT-B/16."""
    with torch.device("meta"):
        decoder = MaeDecoder(MaeDecoderConfig(), 768, (14, 14), 1, 768)
    block = 4 * 512 * 512 + 4 * 512 + 2 * 4 * 512 * 512 + 5 * 512 + 4 * 512
    wanted = (768 * 512 + 512) + 512 + 8 * block + 2 * 512 + (512 * 768 + 768)
    assert sum(each.numel() for each in decoder.parameters()) == wanted


def test_xavier_init_keeps_to_its_bounds() -> None:
    part = nn.Sequential(nn.Linear(30, 50), nn.LayerNorm(50))
    xavier_init(part)
    bound = (6 / 80) ** 0.5
    assert 0.9 * bound < float(part[0].weight.detach().abs().max()) <= bound and not part[0].bias.any()
