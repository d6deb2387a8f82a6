"""VQ-KD: the two terms, where gradients go, and that codes follow."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from multiway_batches import toy_batch

from multiway.config import ConfigError, from_json, to_json
from multiway.hub.file import write_model
from multiway.methods.method import Step
from multiway.methods.vqkd import Vqkd, VqkdConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.lent import vision_tower, visual_tokeniser
from multiway.world import World

TEACHER = VisionConfig(size=16, patch=4, width=24, layers=1, heads=2)
SMALL = VqkdConfig(
    VisualTokeniserConfig(VisionConfig(size=16, patch=4, width=16, layers=1, heads=2), codes=6, code_width=5),
    teacher=TEACHER,
)


def build(seed: int = 0) -> Vqkd:
    torch.manual_seed(seed)
    return Vqkd(SMALL)


def test_the_two_terms() -> None:
    model, batch = build().eval(), toy_batch()
    losses = model(batch, World(), Step())
    told, away = [], []
    seen = model.teacher(batch.images).tokens[:, 1:]
    for row in range(12):
        vectors = model.tokeniser.vectors(batch.images[row : row + 1])[0]
        codes = model.tokeniser.codebook.codes[(vectors @ model.tokeniser.codebook.codes.T).argmax(1)]
        decoded = model.tell(model.decoder((model.widen(codes) + model.positions)[None]))[0]
        told.append(1 - F.cosine_similarity(decoded, seen[row], dim=-1))
        away.append((codes - vectors).square().sum(-1))
    torch.testing.assert_close(losses.terms["distillation"].value, torch.cat(told).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.terms["commitment"].value, torch.cat(away).mean(), rtol=1e-4, atol=1e-5)


def test_chance_is_the_best_constant_answer() -> None:
    model, batch = build().eval(), toy_batch()
    losses = model(batch, World(), Step())
    seen = F.normalize(model.teacher(batch.images).tokens[:, 1:].flatten(0, 1), dim=-1)
    constant = F.normalize(seen.mean(0), dim=0)
    assert losses.terms["distillation"].chance == pytest.approx(float(1 - (seen @ constant).mean()), abs=1e-5)
    for _ in range(20):
        assert float(1 - (seen @ F.normalize(torch.randn(24), dim=0)).mean()) > losses.terms["distillation"].chance


def test_gradients_reach_the_encoder_through_the_codes_and_not_the_teacher() -> None:
    model = build()
    losses = model(toy_batch(), World(), Step())
    losses.terms["distillation"].value.backward()
    assert model.tokeniser.narrow[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.parameters())


def test_codes_move_after_the_step_and_never_in_it() -> None:
    model = build()
    codes = model.tokeniser.codebook.codes.clone()
    losses = model(toy_batch(), World(), Step())
    assert torch.equal(model.tokeniser.codebook.codes, codes)
    model.after_step(Step(), losses.updates)
    assert not torch.equal(model.tokeniser.codebook.codes, codes)


def test_others_take_its_tokeniser_and_it_takes_their_towers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiway_batches import WORDS

    from multiway.batch import ViewSpec
    from multiway.data.processor import Processor

    model = build()
    write_model(tmp_path / "codes.safetensors", model, Processor(ViewSpec(size=16), WORDS))
    file, view = str(tmp_path / "codes.safetensors"), ViewSpec(size=16)
    taken = visual_tokeniser(file, "--codes", view)
    images = toy_batch().images
    assert torch.equal(taken.tokenise(images), model.tokenise(images))
    with pytest.raises(ConfigError, match="no ViT of its own"):
        vision_tower(file, "--teacher", view)
    with pytest.raises(ConfigError, match=r"--view\.mean"):
        visual_tokeniser(file, "--codes", replace(view, mean=(1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match="--teacher RUN"):
        vision_tower("", "--teacher", view)


def test_config() -> None:
    assert from_json(VqkdConfig, to_json(SMALL)) == SMALL
    with pytest.raises(ValueError, match="--teacher RUN"):
        Vqkd(VqkdConfig())
    with pytest.raises(ValueError, match="agree"):
        Vqkd(replace(SMALL, teacher=replace(TEACHER, patch=8)))
