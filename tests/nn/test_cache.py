"""Keys and values that are kept give what projecting them again gives."""

import pytest
import torch
from generate_peers import TEXT, Writer, pictures
from peer_weights import randomise

from multiway.nn.attention import Attention, Visibility
from multiway.nn.cache import Cache, KeyValues


def writer() -> Writer:
    return randomise(Writer())


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1), (3, 1, 2), (5, 1), (6,)])
def test_in_pieces_as_at_once(pieces: tuple[int, ...]) -> None:
    ours, memory = writer(), pictures(3)
    ids = torch.randint(0, 31, (3, 6), generator=torch.Generator().manual_seed(1))
    seen = torch.arange(6) < torch.tensor([[6], [4], [1]])
    whole, cache, parts = ours.logits(ids, memory, seen), Cache(2), []
    for part in ids.split(list(pieces), 1):
        given = (memory, seen) if len(cache) == 0 else (None, None)
        parts.append(ours.logits(part, *given, cache))
    assert len(cache) == 6
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_memory_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, memory = writer(), pictures(3)
    calls = []
    for block in ours.text.transformer.blocks:
        real = block.cross.key_value.forward
        monkeypatch.setattr(block.cross.key_value, "forward", lambda x, real=real: calls.append(len(x)) or real(x))
    cache = Cache(2)
    for step in range(4):
        ours.logits(torch.full((3, 1), step + 3), memory if step == 0 else None, None, cache)
    assert calls == [3, 3]


@torch.no_grad()
def test_rows_are_picked_and_pictures_shared() -> None:
    """Texts in another order and number, several to a picture, are those of pictures repeated for each."""
    ours, memory = writer(), pictures(3)
    ids = torch.randint(3, 31, (3, 2), generator=torch.Generator().manual_seed(2))
    decoding, whose, kept = ours.cached(memory), torch.arange(3), []
    decoding.step(ids)
    for rows in ([0, 0, 1, 1, 2, 2], [3, 2, 5, 4], [0, 2, 3], [1]):
        picked = torch.tensor(rows)
        decoding.select(picked)
        whose, ids = whose[picked], torch.cat([ids[picked], torch.randint(3, 31, (len(rows), 1))], 1)
        want = ours.logits(ids, memory[whose])[:, -1]
        torch.testing.assert_close(decoding.step(ids[:, -1:]), want, rtol=1e-5, atol=1e-5)
        kept.append(len(decoding.cache.blocks[0].memory.read()[0]))
    assert kept == [3, 2, 3, 1]  # three texts of two pictures, one and two of them, cannot share


@torch.no_grad()
def test_a_memory_shared_by_two_passes_is_the_same_as_projected_for_each() -> None:
    """With `grows=False` nothing of the first text is seen by the second; rows pick their pictures."""
    ours, memory = writer(), pictures(3)
    ids, other = torch.randint(3, 31, (2, 5, 4), generator=torch.Generator().manual_seed(5))
    rows = torch.tensor([2, 0, 1, 1, 0])
    cache = Cache(2, grows=False)
    stack, embed = ours.text.transformer, ours.text.embed
    for text in (ids, other):
        shared = stack(embed(text), None, memory, memory_rows=rows, cache=cache)
        torch.testing.assert_close(shared, stack(embed(text), None, memory[rows]), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_a_shared_memory() -> None:
    ours, gradients = writer(), []
    ids, rows = torch.randint(3, 31, (4, 5), generator=torch.Generator().manual_seed(5)), torch.tensor([0, 2, 2, 1])
    for cache in (None, Cache(2, grows=False)):
        memory = pictures(3).requires_grad_()
        total = 0.0
        for text in (ids, ids.flip(0)):
            last = ours.text.transformer(ours.text.embed(text), None, memory, memory_rows=rows, cache=cache)
            total = total + (last * torch.linspace(-1, 1, last.numel()).view_as(last)).sum()
        gradients.append(torch.autograd.grad(total, memory)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_parts_that_stand_in_are_used_and_the_others_shared() -> None:
    """`instead` equals a stack into which the parts were put."""
    ours, other, memory = writer(), randomise(Writer(), 7), pictures(2)
    ids = torch.randint(3, 31, (2, 4))
    stack, embed = ours.text.transformer, ours.text.embed
    own = [
        torch.nn.ModuleDict({"attention": block.attention, "mlp_norm": block.mlp_norm})
        for block in other.text.transformer.blocks
    ]
    embedded = embed(ids)
    with_parts = stack(embedded, None, memory, instead=own)
    assert not torch.allclose(with_parts, stack(embedded, None, memory), atol=1e-3)
    for block, parts in zip(stack.blocks, own, strict=True):
        block.attention, block.mlp_norm = parts["attention"], parts["mlp_norm"]
    assert torch.equal(with_parts, stack(embedded, None, memory))


def test_visibility_after_a_past() -> None:
    full = Visibility.of(None, 6, torch.device("cpu"), causal=True).allowed
    part = Visibility.of(None, 6, torch.device("cpu"), causal=True, past=2)
    assert torch.equal(part.allowed, full[2:]) and not part.triangle
    assert Visibility.of(None, 6, torch.device("cpu"), causal=True, past=5).allowed is None


def test_refusals() -> None:
    attention = Attention(8, 2, memory_width=8)
    with pytest.raises(ValueError, match="3 rows look at 2 memories"):
        attention(torch.randn(3, 1, 8), torch.randn(2, 4, 8))
    with pytest.raises(ValueError, match="no keys"):
        KeyValues().read()
    assert TEXT.causal
