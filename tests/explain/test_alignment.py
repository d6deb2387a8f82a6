"""Transport and token matches: against the loss and the method themselves, and why a sum over words would say nothing."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from toy import toy_picture

from multiway.abilities import Encoded
from multiway.explain.alignment import token_matches, word_patch_transport
from multiway.explain.pairs import CannotShow, Look, Pairs
from multiway.losses.wpa import inner_words, transport_distance

PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]


def test_the_distance_is_the_one_that_vilt_learns_by(models) -> None:
    model = models["vilt"]
    found = word_patch_transport(Pairs(model, PICTURES, TEXTS))
    tokens = model.processor.texts(TEXTS)
    with torch.no_grad():
        method = model.method
        image = method.encode_image(model.processor.images(PICTURES))
        text = method.encode_text(tokens.ids, tokens.mask)
        fused = method._fuse(text.tokens, tokens.mask, image.tokens)
        length = tokens.mask.shape[1]
        words, patches = fused[:, :length], fused[:, length + 1 :]
        every = torch.ones(patches.shape[:2], dtype=torch.bool)
        expected = transport_distance(words, patches, inner_words(tokens.mask), every)
    torch.testing.assert_close(found.score, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["vilt", "filip", "vlmo", "beit3"])
def test_a_words_mass_is_one_and_a_patchs_share_is_even(models, name: str) -> None:
    pairs = Pairs(models[name], PICTURES, TEXTS)
    found = word_patch_transport(pairs)
    mass = found.tokens.sum((2, 3))
    torch.testing.assert_close(mass[pairs.words], torch.ones(int(pairs.words.sum())), atol=0.05, rtol=0.05)
    assert (mass[~pairs.words] == 0).all()
    # Summed over words every patch has the same: this is why the whole text's map is another.
    count = pairs.words.sum(1)[:, None, None]
    torch.testing.assert_close(found.tokens.sum(1) / count, torch.full((2, 4, 4), 1 / 16), atol=1e-4, rtol=1e-4)
    assert found.heat.std() > 1e-4
    for row in range(2):  # the most that any word brings, and never less than its even share
        brought = torch.stack(list(found.tokens[row][pairs.words[row]]))
        torch.testing.assert_close(found.heat[row], brought.max(0).values)
    assert (found.heat >= 1 / 16 - 1e-4).all()


class Told:
    """Tokens that are given: words in three directions, and patches that show nothing nearer to all of them than the thing is."""

    name = "told"
    words = torch.eye(4)[:3]

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "compare")

    def encode_image(self, images: torch.Tensor) -> Encoded:
        patches = torch.tensor([0.5, 0.5, 0.5, 0.0]).repeat(9, 1)
        patches[4] = torch.tensor([0.0, 0.0, 0.4, 0.9])  # the thing has a look of its own, and the third word's
        return Encoded(torch.zeros(1, 0), F.normalize(patches, dim=-1)[None])

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> Encoded:
        return Encoded(torch.zeros(1, 0), self.words[None], mask, ids)


def test_patches_that_are_near_to_every_word_do_not_outshine_the_one_that_a_word_claims() -> None:
    method = Told()
    pairs = SimpleNamespace(
        method=method, able=method.abilities(), look=Look(), words=torch.ones(1, 3, dtype=torch.bool),
        image=method.encode_image(torch.zeros(1)), text=method.encode_text(torch.zeros(1, 3), torch.ones(1, 3) > 0),
        require_texts=lambda: None,
    )  # fmt: skip
    found = word_patch_transport(pairs)
    cosines = pairs.text.tokens @ pairs.image.tokens.transpose(1, 2)
    assert cosines.sum(1)[0].argmin() == 4  # the thing is farthest from the text
    assert found.heat.flatten().argmax() == 4 == found.tokens[0, 2].flatten().argmax()


def test_filips_matches_are_what_its_similarity_is_made_of(models) -> None:
    model = models["filip"]
    found = token_matches(Pairs(model, PICTURES, TEXTS))
    image, text = model.encode_image(PICTURES, tokens=True), model.encode_text(TEXTS, tokens=True)
    torch.testing.assert_close(found.score, model.compare(image, text, "text").diagonal(), atol=1e-5, rtol=1e-4)
    # Mean over real tokens of the best patch, or of the class token where that is better.
    products = torch.einsum("blw,bnw->bln", text.tokens, image.tokens)
    torch.testing.assert_close(found.tokens.flatten(2), products[..., 1:], atol=1e-5, rtol=1e-4)
    best = torch.maximum(found.tokens.flatten(2).amax(2), products[..., 0])
    mean = torch.stack([own[real].mean() for own, real in zip(best, text.mask, strict=True)])
    torch.testing.assert_close(mean, found.score, atol=1e-5, rtol=1e-4)


def test_the_whole_text_is_the_mean_over_its_words(models) -> None:
    pairs = Pairs(models["filip"], PICTURES, TEXTS)
    found = token_matches(pairs)
    for row in range(2):
        torch.testing.assert_close(found.heat[row], found.tokens[row][pairs.words[row]].mean(0))


def test_refusals(models) -> None:
    for name in ("clip", "albef"):
        with pytest.raises(CannotShow, match="never has words and patches in one space"):
            word_patch_transport(Pairs(models[name], PICTURES, TEXTS))
        with pytest.raises(CannotShow, match="as FILIP does"):
            token_matches(Pairs(models[name], PICTURES, TEXTS))
    with pytest.raises(CannotShow, match="as FILIP does"):
        token_matches(Pairs(models["vilt"], PICTURES, TEXTS))
