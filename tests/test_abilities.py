import pytest
import torch

from multiway.abilities import Encoded, LacksAbility, abilities_of, require


class OnlyImages:
    def encode_image(self, images):
        return Encoded(images)


class Both(OnlyImages):
    def encode_text(self, ids, mask):
        return Encoded(ids)


def test_abilities_are_what_the_object_can_do() -> None:
    assert abilities_of(OnlyImages()) == ("encode_image",)
    assert abilities_of(Both()) == ("encode_image", "encode_text")
    assert abilities_of(3) == ()


def test_refusal_names_what_is_missing_and_who_has_it() -> None:
    require(Both(), ("encode_image", "encode_text"), "retrieval")
    with pytest.raises(LacksAbility, match=r"retrieval.*encode_text.*OnlyImages.*methods that have it: clip"):
        require(OnlyImages(), ("encode_image", "encode_text"), "retrieval", able=["clip"])


def test_cat_lays_batches_end_to_end() -> None:
    joined = Encoded.cat([Encoded(torch.zeros(2, 3)), Encoded(torch.ones(1, 3))])
    assert joined.embedding.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3]


def test_a_row_without_an_embedding_keeps_its_tokens() -> None:
    both = Encoded(torch.zeros(2, 3), torch.zeros(2, 4, 5), torch.ones(2, 4, dtype=torch.bool))
    bare = Encoded(torch.zeros(2, 0), torch.zeros(2, 4, 5))
    assert both.has_embedding and both.slim().tokens is None
    assert not bare.has_embedding and bare.slim() is bare
    assert Encoded.cat([bare, bare]).tokens.shape == (4, 4, 5) and not Encoded.cat([bare, bare]).has_embedding
