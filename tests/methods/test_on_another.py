"""What stands on a trained method: lent abilities, a start of the method's own, frozen parts that stay at rest."""

import pytest
import torch

from multiway.abilities import abilities_of
from multiway.batch import DataInfo
from multiway.config import to_json
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.moco import Moco, MocoConfig
from multiway.nn.backbone import resnet
from multiway.nn.mlp_head import MlpHeadConfig

BASE = MocoConfig(resnet(18, "cifar", base=4), MlpHeadConfig(hidden=8, output=8), queue=4).resolve(DataInfo(samples=9))


def on_moco(**changed: object) -> PictureClassifier:
    torch.manual_seed(0)
    return PictureClassifier(ClassifierConfig("moco", to_json(BASE), ("a", "b"), **changed))  # type: ignore[arg-type]


def test_abilities_are_lent_and_nothing_else_is() -> None:
    method = on_moco()
    assert set(abilities_of(method)) == {"encode_image", "classify"}
    pictures = torch.randn(2, 3, 16, 16)
    method.eval()
    torch.testing.assert_close(method.encode_image(pictures).embedding, method.base.encode_image(pictures).embedding)
    with pytest.raises(AttributeError, match="queue"):
        method.queue  # noqa: B018 - a part of the method underneath, and no ability


def test_the_base_starts_from_what_was_loaded() -> None:
    """Its twin equals its student again, as where it is trained by itself."""
    method = on_moco()
    base = method.starting
    assert isinstance(base, Moco) and base.twin is not None
    with torch.no_grad():
        base.projector.layers[0].weight.add_(1.0)
    method.started()
    for twin, student in zip(
        base.twin.parameters(), [p for part in base.students for p in part.parameters()], strict=True
    ):
        assert torch.equal(twin, student)


def test_what_is_frozen_stays_in_evaluation_mode() -> None:
    frozen, free = on_moco(freeze=("base",)).train(), on_moco().train()
    assert frozen.head.training and not frozen.base.training and free.base.training
    assert not any(each.requires_grad for each in frozen.base.parameters())
    assert all(each.requires_grad for each in free.base.backbone.parameters())
    assert free.learning_rates() == [(r"^head\.", 3.0)]
