"""FILIP's loss against loops over tokens, CLIP's loss where there is one token, and padding that changes nothing."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.filip import Tokens, filip, late_interaction, most_telling
from multiway.losses.itc import itc
from multiway.world import World


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def sides(rows: int = 4, texts: int = 5, seed: int = 0) -> tuple[Tokens, Tokens]:
    lengths = torch.randint(1, 7, (texts, 1), generator=torch.Generator().manual_seed(seed + 9))
    return Tokens(unit(rows, 5, 8, seed=seed)), Tokens(unit(texts, 6, 8, seed=seed + 1), torch.arange(6) < lengths)


def slow(image: Tokens, text: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations 4 and 5, a pair at a time, over lists of real tokens."""

    def real(tokens: Tokens, row: int) -> torch.Tensor:
        return tokens.features[row] if tokens.mask is None else tokens.features[row][tokens.mask[row]]

    by_image, by_text = (torch.empty(len(image.features), len(text.features), dtype=torch.float64) for _ in range(2))
    for i in range(len(image.features)):
        for j in range(len(text.features)):
            cosines = [[float(f @ g) for g in real(text, j)] for f in real(image, i)]
            by_image[i, j] = sum(max(row) for row in cosines) / len(cosines)
            columns = list(zip(*cosines, strict=True))
            by_text[i, j] = sum(max(column) for column in columns) / len(columns)
    return by_image, by_text


@given(seed=st.integers(0, 200), chunk=st.sampled_from([None, 1, 3]), padded=st.booleans())
@settings(max_examples=25, deadline=None)
def test_similarities_equal_loops(seed: int, chunk: int | None, padded: bool) -> None:
    image, text = sides(seed=seed)
    if padded:
        image = Tokens(image.features, torch.arange(5) < torch.tensor([[1], [3], [5], [2]]))
    wanted = slow(image, text)
    for got, each in zip(late_interaction(image, text, chunk=chunk), wanted, strict=True):
        torch.testing.assert_close(got, each)
    assert late_interaction(image, text, "image")[1] is None and late_interaction(image, text, "text")[0] is None
    assert not torch.allclose(*wanted)  # the two directions are two similarities


@pytest.mark.parametrize("same", ["positive", "ignore"])
@pytest.mark.parametrize("ids", [False, True])
def test_loss_equals_the_slow_twin(ids: bool, same: str) -> None:
    image, text = sides(6, 6)
    image_id, text_id = (torch.tensor([0, 1, 0, 3, 4, 5]), torch.tensor([0, 1, 2, 0, 4, 4])) if ids else (None, None)
    found = filip(image, text, torch.tensor(3.0), World(), image_id, text_id, same=same)
    by_image, by_text = slow(image, text)
    total, chances = 0.0, []
    for scores in (3 * by_image, 3 * by_text.T):
        for row in range(6):
            friends = [
                j for j in range(6)
                if j == row or (ids and (image_id[j] == image_id[row] or text_id[j] == text_id[row]))
            ]  # fmt: skip
            allowed = [j for j in range(6) if same == "positive" or j == row or j not in friends]
            targets = friends if same == "positive" else [row]
            total += float(scores[row, allowed].logsumexp(0) - scores[row, targets].mean()) / 12
            chances.append(torch.tensor(float(len(allowed))).log())
    assert float(found.loss) == pytest.approx(total, rel=1e-9)
    assert found.chance == pytest.approx(float(torch.stack(chances).mean()), rel=1e-6)


@pytest.mark.parametrize("ids", [False, True])
def test_with_one_token_it_is_clips_loss(ids: bool) -> None:
    """Loss, accuracies and every gradient."""
    numbers = (torch.tensor([0, 1, 0, 3, 4]), torch.tensor([0, 1, 2, 3, 3])) if ids else (None, None)
    image, text, scale = unit(5, 8).requires_grad_(), unit(5, 8, seed=1).requires_grad_(), torch.tensor(4.0).double()
    scale.requires_grad_()
    clip = itc(image, text, scale, World(), *numbers)
    ours = filip(Tokens(image[:, None]), Tokens(text[:, None]), scale, World(), *numbers)
    torch.testing.assert_close(ours.loss, clip.loss)
    assert float(ours.image_to_text_accuracy) == float(clip.image_to_text_accuracy)
    assert (ours.chance, ours.formula) == (clip.chance, clip.formula)
    for got, wanted in zip(
        torch.autograd.grad(ours.loss, [image, text, scale]),
        torch.autograd.grad(clip.loss, [image, text, scale]),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_chunks_change_neither_loss_nor_gradients() -> None:
    image, text = sides(6, 6)
    leaves = [image.features.requires_grad_(), text.features.requires_grad_()]
    whole = filip(image, text, torch.tensor(5.0), World())
    parts = filip(image, text, torch.tensor(5.0), World(), chunk=2)
    torch.testing.assert_close(whole.loss, parts.loss)
    for got, wanted in zip(
        torch.autograd.grad(parts.loss, leaves), torch.autograd.grad(whole.loss, leaves), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_gradients_are_those_of_finite_differences() -> None:
    image, text = sides(3, 3)
    mask = text.mask

    def loss(f: torch.Tensor, g: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return filip(Tokens(f), Tokens(g, mask), scale, World()).loss

    leaves = (
        image.features.requires_grad_(),
        text.features.requires_grad_(),
        torch.tensor(2.0).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_padding_changes_nothing_to_the_bit(keep: float) -> None:
    image, text = sides(5, 5)
    assert text.mask is not None and not text.mask.all()
    seen = torch.arange(5) < torch.tensor([[5], [3], [4], [2], [1]])
    junk = Tokens(torch.where(text.mask[..., None], text.features, 100.0), text.mask)
    noise = Tokens(torch.where(seen[..., None], image.features, -70.0), seen)
    clean = filip(Tokens(image.features, seen), text, torch.tensor(5.0), World(), keep=keep)
    dirty = filip(noise, junk, torch.tensor(5.0), World(), keep=keep)
    assert torch.equal(clean.loss, dirty.loss)
    assert not torch.equal(clean.loss, filip(noise, Tokens(junk.features), torch.tensor(5.0), World(), keep=keep).loss)
    leaf = junk.features.clone().requires_grad_()
    filip(noise, Tokens(leaf, text.mask), torch.tensor(5.0), World(), keep=keep).loss.backward()
    assert not leaf.grad[~text.mask].any() and leaf.grad[text.mask].any()


def test_the_most_telling_tokens_are_kept() -> None:
    image, text = sides(4, 5)
    kept = most_telling(text, image, 0.5)
    assert text.mask is not None
    for row in range(5):
        real = text.features[row][text.mask[row]]
        nearness = [max(float(g @ f) for f in image.features.flatten(0, 1)) for g in real]
        count = -(-len(real) // 2)
        wanted = set(sorted(range(len(real)), key=lambda n: -nearness[n])[:count])
        own = kept.features[row] if kept.mask is None else kept.features[row][kept.mask[row]]
        found = {int((real - each).abs().sum(1).argmin()) for each in own}
        assert found == wanted and len(own) == count
    assert most_telling(image, text, 1.0) is image
    assert most_telling(image, text, 0.01).features.shape == (4, 1, 8)  # one is left at least


def test_a_collapsed_model_scores_chance() -> None:
    same = Tokens(torch.full((8, 3, 4), 0.5))
    found = filip(same, same, torch.tensor(14.0), World())
    assert float(found.loss) == pytest.approx(found.chance, rel=1e-6) and found.formula == "ln 8"
    assert float(found.image_to_text_accuracy) == pytest.approx(1 / 8)


def test_mistakes_are_explained() -> None:
    image, text = sides(4, 4)
    with pytest.raises(ValueError, match="row i of each is a pair"):
        filip(image, sides(4, 5)[1], torch.tensor(1.0), World())
    with pytest.raises(ValueError, match="keep is 0"):
        filip(image, text, torch.tensor(1.0), World(), keep=0.0)
    with pytest.raises(ValueError, match="project both to one width"):
        late_interaction(image, Tokens(unit(4, 2, 6)))
    with pytest.raises(ValueError, match="expected 'positive' or 'ignore'"):
        filip(image, text, torch.tensor(1.0), World(), same="neither")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="True at real tokens"):
        Tokens(unit(2, 3, 4), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one token"):
        Tokens(unit(2, 0, 4))
