"""Two ranks against one: the loss and every gradient, and each gradient mode by its definition."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from forked import spawn
from safetensors.torch import load_file, save_file

from multiway.losses.itc import Candidates, itc
from multiway.losses.siglip import siglip
from multiway.world import World

ROWS, RANKS, DIMENSION = 6, 2, 4
IMAGE_ID = torch.tensor([0, 1, 0, 3, 4, 5])  # rows 0 and 2 share a picture within a rank
TEXT_ID = torch.tensor([0, 1, 2, 0, 4, 1])  # rows 0, 3 and rows 1, 5 share a caption across ranks
MODES = ("global", "local", "none")
SAME = ("positive", "ignore")


def parameters():
    """Towers as one matrix each, the scale, and their inputs: what DDP would average the gradients of."""
    generator = torch.Generator().manual_seed(0)
    pixels, tokens, a, b = (
        torch.randn(n, DIMENSION, generator=generator, dtype=torch.float64) for n in (ROWS, ROWS, DIMENSION, DIMENSION)
    )
    learned = [a.requires_grad_(), b.requires_grad_(), torch.tensor(5.0, dtype=torch.float64, requires_grad=True)]
    return pixels, tokens, learned


def encode(pixels, tokens, learned):
    return F.normalize(pixels @ learned[0], dim=1), F.normalize(tokens @ learned[1], dim=1)


def losses(world, rows):
    """Each case's loss and gradients of the parameters, on one rank's rows."""
    pixels, tokens, learned = parameters()
    found = {}

    def record(name, loss):
        gradients = torch.autograd.grad(loss, learned, allow_unused=True)
        found[name] = [loss.detach(), *gradients]

    image, text = encode(pixels[rows], tokens[rows], learned)
    ids = IMAGE_ID[rows], TEXT_ID[rows]
    for mode in MODES:
        for same in SAME:
            record(
                f"itc {mode} {same}", itc(image, text, learned[2], world, *ids, same=same, gradient=mode, chunk=2).loss
            )
            image, text = encode(pixels[rows], tokens[rows], learned)
    for mode in ("global", "local"):
        bias = torch.tensor(-2.0, dtype=torch.float64)
        record(f"siglip {mode}", siglip(image, text, learned[2], bias, world, *ids, gradient=mode, chunk=2).loss)
        image, text = encode(pixels[rows], tokens[rows], learned)
    queue = Candidates(*(part.detach() for part in encode(pixels, tokens, learned)), IMAGE_ID, TEXT_ID)
    record("itc queue", itc(image, text, learned[2], world, candidates=queue, soft=0.3, chunk=2).loss)
    return found


def work(rank, port, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    share = ROWS // RANKS
    found = losses(World(rank, RANKS), slice(rank * share, (rank + 1) * share))
    averaged = {}
    for name, values in found.items():  # what DDP does with gradients, and what a log shows of a loss
        for value in values:
            dist.all_reduce(value)
        averaged[name] = [value / RANKS for value in values]
    if rank == 0:
        save_file(
            {f"{name}/{n}": value.clone() for name, values in averaged.items() for n, value in enumerate(values)}, out
        )
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "averaged.safetensors"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(work, (port, str(out)), nprocs=RANKS)
    found: dict[str, list[torch.Tensor]] = {}
    for key, value in sorted(load_file(out).items()):
        found.setdefault(key.rpartition("/")[0], []).append(value)
    return found


@pytest.fixture(scope="module")
def one_rank():
    return losses(World(), slice(None))


def check(two, one):
    for got, wanted in zip(two, one, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "case", ["itc global positive", "siglip global", "itc queue", "itc global ignore", "itc none positive"]
)
def test_two_ranks_equal_one(two_ranks, one_rank, case):
    check(two_ranks[case], one_rank[case])


def test_all_modes_have_the_same_loss(two_ranks, one_rank):
    for name, values in one_rank.items():
        torch.testing.assert_close(two_ranks[name][0], values[0])


@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("mode", MODES)
def test_itc_modes_by_their_definition(two_ranks, mode, same):
    """Full matrices, with the columns of other ranks detached (`local`), of all (`none`), or of none (`global`)."""
    pixels, tokens, learned = parameters()
    image, text = encode(pixels, tokens, learned)
    related = (IMAGE_ID[:, None] == IMAGE_ID) | (TEXT_ID[:, None] == TEXT_ID)
    share, total = ROWS // RANKS, 0.0
    for rank in range(RANKS):
        own = torch.arange(ROWS) // share == rank
        kept = {"global": torch.ones(ROWS, dtype=torch.bool), "local": own, "none": torch.zeros(ROWS, dtype=torch.bool)}
        keep = kept[mode][:, None]
        for query, others in ((image, text), (text, image)):
            logits = learned[2] * query[own] @ torch.where(keep, others, others.detach()).t()
            target = related[own].double()
            if same == "ignore":
                target = torch.eye(ROWS, dtype=torch.float64)[own]
                logits = logits.masked_fill(related[own] & (target == 0), -1e300)
            total = total + F.cross_entropy(logits, target / target.sum(1, keepdim=True)) / 2 / RANKS
    check(two_ranks[f"itc {mode} {same}"], [total.detach(), *torch.autograd.grad(total, learned)])


def test_siglip_local_lets_texts_of_other_ranks_be(two_ranks, one_rank):
    local, whole = two_ranks["siglip local"], one_rank["siglip global"]
    torch.testing.assert_close(local[1], whole[1])  # the image tower sees every text all the same
    assert not torch.allclose(local[2], whole[2])
