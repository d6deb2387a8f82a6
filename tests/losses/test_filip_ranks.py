"""FILIP's loss on two ranks whose texts are padded to different lengths, against one rank."""

import socket

import torch
import torch.distributed as dist
import torch.nn.functional as F
from forked import spawn
from safetensors.torch import load_file, save_file

from multiway.losses.filip import Tokens, filip, most_telling
from multiway.world import World

ROWS, RANKS = 6, 2
LENGTHS = torch.tensor([2, 3, 1, 5, 4, 2])  # the first rank's texts are shorter
IMAGE_ID = torch.tensor([0, 1, 0, 3, 4, 5])
TEXT_ID = torch.tensor([0, 1, 2, 0, 4, 1])


def results(world: World, rows: slice, keep: float) -> dict[str, torch.Tensor]:
    """Loss and the gradients that DDP would average, of two towers that are a matrix each."""
    generator = torch.Generator().manual_seed(0)
    pixels, words, a, b = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, 4, 5), (ROWS, 5, 5), (5, 5), (5, 5))
    )
    a.requires_grad_(), b.requires_grad_()
    longest = int(LENGTHS[rows].max())
    mask = torch.arange(longest) < LENGTHS[rows, None]
    image = Tokens(F.normalize(pixels[rows] @ a, dim=-1))
    text = Tokens(F.normalize(words[rows, :longest] @ b, dim=-1), mask)
    if world.size == 1 and keep < 1:  # what is kept is decided within a rank
        parts = [slice(0, 3), slice(3, 6)]
        kept = [
            (
                most_telling(Tokens(image.features[p]), Tokens(text.features[p], mask[p]), keep),
                most_telling(Tokens(text.features[p], mask[p]), Tokens(image.features[p]), keep),
            )
            for p in parts
        ]
        image, text = (_joined([pair[side] for pair in kept]) for side in range(2))
        keep = 1.0
    found = filip(image, text, torch.tensor(5.0).double(), world, IMAGE_ID[rows], TEXT_ID[rows], keep=keep, chunk=2)
    gradients = torch.autograd.grad(found.loss, [a, b])
    return {f"{keep_name(keep)}{n}": each for n, each in enumerate([found.loss.detach(), *gradients])}


def keep_name(keep: float) -> str:
    return "all" if keep == 1.0 else "some"


def _joined(parts: list[Tokens]) -> Tokens:
    longest = max(part.features.shape[1] for part in parts)
    features, masks = [], []
    for part in parts:
        more = longest - part.features.shape[1]
        real = torch.ones(part.features.shape[:2], dtype=torch.bool) if part.mask is None else part.mask
        features.append(F.pad(part.features, (0, 0, 0, more)))
        masks.append(F.pad(real, (0, more)))
    return Tokens(torch.cat(features), torch.cat(masks))


def work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    share = ROWS // RANKS
    found = {}
    for keep in (1.0, 0.5):
        found |= results(World(rank, RANKS), slice(rank * share, (rank + 1) * share), keep)
    for value in found.values():
        dist.all_reduce(value)
    if rank == 0:
        save_file({name: value / RANKS for name, value in found.items()}, out)
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path) -> None:
    out = str(tmp_path / "averaged.safetensors")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(work, (port, out), nprocs=RANKS)
    two = load_file(out)
    for name, value in results(World(), slice(None), 1.0).items():
        torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-12)
    for name, value in results(World(), slice(None), 0.5).items():
        torch.testing.assert_close(two[name.replace("all", "some")], value, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(two["all0"], two["some0"])
