"""Partners among all ranks' rows: drawn as one rank would draw them, and brought to where they are read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import spawn

from multiway.batch import Batch
from multiway.methods.method import Losses, Term
from multiway.methods.partners import draw_any, draw_partners, meet, own_rows
from multiway.world import World

ROWS, WIDTH = 8, 5
IMAGE_ID = torch.tensor([0, 1, 0, 3, 4, 5, 6, 7])  # rows 0 and 2 show one picture
TEXT_ID = torch.tensor([0, 1, 2, 0, 4, 1, 6, 7])
LENT = {"text_of_image": ("tokens", "batch.text_mask"), "image_of_text": ("patches",)}


def everything() -> tuple[dict[str, torch.Tensor], Batch]:
    make = torch.Generator().manual_seed(0)
    reps = {
        "image": torch.randn(ROWS, WIDTH, generator=make, dtype=torch.float64),
        "text": torch.randn(ROWS, WIDTH, generator=make, dtype=torch.float64),
        "tokens": torch.randn(ROWS, 4, WIDTH, generator=make, dtype=torch.float64),
        "patches": torch.randn(ROWS, 3, WIDTH, generator=make, dtype=torch.float64),
    }
    mask = torch.rand(ROWS, 4, generator=make) < 0.7
    mask[1::2, 3] = False  # rank 1 pads to three tokens
    return reps, Batch(image_id=IMAGE_ID, text_id=TEXT_ID, text_mask=mask)


def draws(reps: dict[str, torch.Tensor], batch: Batch, world: World) -> dict[str, torch.Tensor]:
    """Of 40 steps: hard and random partners, (40, B)."""
    found = []
    for step in range(40):
        torch.manual_seed(step * 10 + world.rank)  # ranks are seeded apart
        hard = draw_partners(reps["image"], reps["text"], torch.tensor(0.5), batch, world, step / 40)
        found.append(
            {
                **hard,
                **{
                    f"any {name}": each
                    for name, each in draw_any(batch, len(reps["image"]), world, torch.device("cpu")).items()
                },
            }
        )
    return {name: torch.stack([each[name] for each in found]) for name in found[0]}


def read(reps: dict[str, torch.Tensor], pairs: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    """(B,) a number of each row that depends on both of its partners."""
    wrong, other = pairs["text_of_image"], pairs["image_of_text"]
    texts = (reps["tokens"] * batch.text_mask[..., None])[wrong].sum((1, 2))
    return texts.sin() + reps["patches"][other].square().sum((1, 2)).cos()


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world, found = World(rank, 2), {}
    whole, batch = everything()
    reps = {name: each[rank::2].clone() for name, each in whole.items()}
    batch = batch.map(lambda each: each[rank::2])
    if rank:
        reps["tokens"], batch.text_mask = reps["tokens"][:, :3].clone(), batch.text_mask[:, :3]
    found["drawn"] = draws(reps, batch, world)
    pairs = {"text_of_image": (own_rows(4, world) + 3) % ROWS, "image_of_text": (own_rows(4, world) * 3) % ROWS}
    for together in (False, True):
        lent = {name: reps[name].clone().requires_grad_() for name in ("tokens", "patches")}
        met, local, there = meet({**reps, **lent}, pairs, batch, world, LENT, together)
        values = read(met, local, there)
        values.sum().backward()
        found[f"read {together}"] = {"values": values.detach(), **{name: each.grad for name, each in lent.items()}}
        found[f"rows {together}"] = {name: torch.tensor(len(met[name])) for name in met}
    weighed = Losses(
        {"words": Term(torch.tensor(float(rank)))}, {"right": torch.tensor(0.5)}, counts={"words": 3 if rank else 1}
    )
    found["weighed"] = {"words": weighed.over_ranks(world).terms["words"].value}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("partners")
    spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


def by_turns(two: list[dict], case: str, name: str, dim: int = 0) -> torch.Tensor:
    return torch.stack([each[case][name] for each in two], dim + 1).flatten(dim, dim + 1)


def test_two_ranks_draw_what_one_draws(two: list[dict]) -> None:
    one = draws(*everything(), World())
    for name, each in one.items():
        assert torch.equal(by_turns(two, "drawn", name, 1), each), name
    assert (one["text_of_image"] % 2 != torch.arange(ROWS) % 2).any() and len(one["text_of_image"].unique()) == ROWS


def test_nobody_is_shown_what_belongs_to_it(two: list[dict]) -> None:
    own = torch.arange(ROWS)
    belongs = (IMAGE_ID[:, None] == IMAGE_ID) | (TEXT_ID[:, None] == TEXT_ID)
    for name in ("text_of_image", "image_of_text"):
        assert not belongs[own, by_turns(two, "drawn", name, 1)].any()
    shown, matched = by_turns(two, "drawn", "any image_of_text", 1), by_turns(two, "drawn", "any matched", 1)
    assert torch.equal(belongs[own, shown], matched) and (matched.sum(1) == ROWS // 2).all()


@pytest.mark.parametrize("together", [False, True])
def test_what_is_read_of_partners_and_its_gradient(two: list[dict], together: bool) -> None:
    reps, batch = everything()
    lent = {name: reps[name].clone().requires_grad_() for name in ("tokens", "patches")}
    pairs = {"text_of_image": (torch.arange(ROWS) + 3) % ROWS, "image_of_text": (torch.arange(ROWS) * 3) % ROWS}
    met, local, there = meet({**reps, **lent}, pairs, batch, World(), LENT, together)
    values = read(met, local, there)
    values.sum().backward()
    case = f"read {together}"
    torch.testing.assert_close(by_turns(two, case, "values"), values.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_turns(two, case, "patches"), lent["patches"].grad, rtol=1e-12, atol=1e-12)
    padded = [
        {case: {"tokens": torch.nn.functional.pad(each[case]["tokens"], (0, 0, 0, 4 - each[case]["tokens"].shape[1]))}}
        for each in two
    ]
    torch.testing.assert_close(by_turns(padded, case, "tokens"), lent["tokens"].grad, rtol=1e-12, atol=1e-12)


def test_only_what_is_asked_for_is_sent(two: list[dict]) -> None:
    for each in two:
        # Texts: four from the other rank; pictures, three times a row: none, as the parity stays.
        assert {name: int(rows) for name, rows in each["rows False"].items()} == {
            "image": 4,
            "text": 4,
            "tokens": 8,
            "patches": 4,
        }
        assert int(each["rows True"]["patches"]) == 8


def test_a_mean_over_ranks_weighs_what_they_count(two: list[dict]) -> None:
    """Rank 0 has one word with loss 0, rank 1 three with loss 1."""
    assert (
        float(
            by_turns(
                [{"weighed": {"words": each["weighed"]["words"][None]}} for each in two], "weighed", "words"
            ).mean()
        )
        == 0.75
    )
    alone = Losses({"words": Term(torch.ones(()))}, counts={"words": 3})
    assert alone.over_ranks(World()) is alone and replace(alone, counts={}).over_ranks(World(0, 2)).counts == {}
