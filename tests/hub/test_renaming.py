"""Tables of names: both ways to the bit, every tensor of either side in one place of the report, and a slow twin of the patterns."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from multiway.hub.accounting import Accounting, Report, compiled
from multiway.hub.file import WeightsError
from multiway.hub.renaming import Table
from multiway.hub.rules import Rule, both, joined, leading, one_way, patches, placed, same, shifted, turned, under

RULES = [
    *same(("scale", "temp")),
    *both(("blocks.*.norm", "layers.*.ln")),
    *joined("blocks.*.qkv", "layers.*.{}", ("q", "k", "v")),
    *turned(("head.weight", "proj")),
    *leading(("token", "cls"), dims=2),
    *placed("", "pos"),
    *patches("embed", "conv"),
    *shifted(both(("top.*", "layers.*.extra")), 3),
]
TABLE = Table("toy", RULES, copies=[("again", "temp")], apart=[(r"^gone\.", "a head")])


def ours(layers: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {"scale": torch.randn(()), "head.weight": torch.randn(3, 4), "token": torch.randn(4), "class_position": torch.randn(4),
             "positions": torch.randn(9, 4), "embed.weight": torch.randn(4, 12), "embed.bias": torch.randn(4)}  # fmt: skip
    for layer in range(layers):
        found |= {f"blocks.{layer}.norm.weight": torch.randn(4), f"blocks.{layer}.norm.bias": torch.randn(4),
                  f"blocks.{layer}.qkv.weight": torch.randn(12, 4), f"blocks.{layer}.qkv.bias": torch.randn(12)}  # fmt: skip
    return found | {"top.0.weight": torch.randn(2), "top.0.bias": torch.randn(2)}


@pytest.mark.parametrize("layers", [1, 2, 12])
def test_out_and_in_again_is_equal_to_the_bit(layers: int) -> None:
    own = ours(layers)
    theirs = TABLE.write(own)
    assert (
        theirs["cls"].shape == (1, 1, 4)
        and theirs["pos"].shape == (1, 10, 4)
        and theirs["conv.weight"].shape == (4, 3, 2, 2)
    )
    assert torch.equal(theirs["proj"], own["head.weight"].T) and torch.equal(theirs["again"], theirs["temp"])
    assert torch.equal(theirs["layers.0.k.weight"], own["blocks.0.qkv.weight"][4:8])
    assert torch.equal(theirs["layers.3.extra.bias"], own["top.0.bias"])
    back, report = TABLE.read(theirs, list(own))
    assert set(back) == set(own) and all(torch.equal(back[name], own[name]) for name in own)
    assert len(report.matched) + len(report.renamed) + 1 == len(theirs) and report.filled == len(own)
    assert report.aside == {"written twice": ("again",)}


def test_every_tensor_is_in_one_place_of_the_report() -> None:
    own = ours()
    theirs = TABLE.write(own) | {
        "gone.weight": torch.zeros(1),
        "extra.weight": torch.zeros(1),
        "layers.0.ln.position_ids": torch.zeros(1),
    }
    del theirs["layers.1.q.weight"]
    with pytest.raises(WeightsError, match=r"lacks the tensor layers\.1\.q\.weight; is it a toy\?"):
        TABLE.read(theirs, list(own), allow=["^extra"])
    # Of a tensor that is joined of three, two are then left over: they have to be named too.
    allow = ["^extra", r"^blocks\.1\.qkv\.weight", r"^layers\.1\.[kv]\.weight"]
    back, report = TABLE.read(theirs, list(own), "file", allow)
    assert report.new == ("blocks.1.qkv.weight",) and set(own) - set(back) == set(report.new)
    places = [
        *report.matched,
        *report.renamed,
        *report.left,
        *(name for names in report.aside.values() for name in names),
    ]
    assert sorted(places) == sorted(theirs)
    said = str(report)
    assert (
        "1 missing there and new here, as allowed: blocks.1.qkv.weight" in said
        and "left behind, a head: gone.weight" in said
    )
    assert (
        report.to_json()["left"] == ["layers.1.k.weight", "layers.1.v.weight", "extra.weight"] or len(report.left) == 3
    )


def test_what_is_written_twice_has_to_agree_and_may_stand_alone() -> None:
    own = ours()
    theirs = TABLE.write(own)
    with pytest.raises(WeightsError, match="again differs from temp, to which it is tied in a toy"):
        TABLE.read(theirs | {"again": torch.tensor(9.0)}, list(own))
    theirs.pop("temp")
    assert torch.equal(TABLE.read(theirs, list(own))[0]["scale"], own["scale"])


def test_what_has_no_place_there_is_an_error_unless_it_is_left() -> None:
    with pytest.raises(WeightsError, match=r"a toy has no place for twin\.scale"):
        TABLE.write(ours() | {"twin.scale": torch.zeros(())})
    assert TABLE.write(ours() | {"twin.scale": torch.zeros(())}, leave=["^twin"]).keys() == TABLE.write(ours()).keys()
    alone = ours()
    del alone["positions"]  # half of what one of theirs is made of
    with pytest.raises(WeightsError, match="no place for class_position"):
        TABLE.write(alone)
    summed = Table("one way", one_way("a", ["x", "y"], torch.add))
    assert summed.read({"x": torch.ones(2), "y": torch.ones(2)}, ["a"])[0]["a"].tolist() == [2.0, 2.0]
    with pytest.raises(WeightsError, match="not written"):
        summed.write({"a": torch.ones(2)})


def test_a_root_is_put_before_theirs_alone() -> None:
    rule = under("vit.", both(("a.*", "b.*")))[1]
    assert rule.names(("7",)) == (["a.7.bias"], ["vit.b.7.bias"]) and rule.numbers("a.7.bias") == ("7",)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "block", "*", "x.y"]), min_size=1, max_size=5),
    st.lists(st.integers(0, 99), min_size=5, max_size=5),
)
def test_patterns_are_numbers_between_dots(parts: list[str], numbers: list[int]) -> None:
    """Against the slow twin: fill the stars one by one, and find them again."""
    pattern, given_numbers = ".".join(parts), list(map(str, numbers))
    filled, left = [], list(given_numbers)
    for part in parts:
        filled.append(left.pop(0) if part == "*" else part)
    name = ".".join(filled)
    rule = Rule((pattern,), ("t." + pattern,))
    found = rule.numbers(name)
    assert found == tuple(given_numbers[: pattern.count("*")])
    assert rule.names(found) == ([name], [f"t.{name}"]) and rule.numbers(name + "x") is None


def test_accounts() -> None:
    account = Accounting({"a": torch.zeros(1), "b": torch.zeros(1)}, "Some")
    assert account.take("a").shape == (1,) and "a" not in account and account.names() == ["b"]
    with pytest.raises(WeightsError, match="lacks the tensor a; is it a Some"):
        account.take("a")
    with pytest.raises(WeightsError, match="does not: b; if they may stay unused"):
        account.close(["a"])
    assert Accounting({"a": torch.zeros(1)}, "Some", allow=["a"]).close([]).left == ("a",)
    assert "2 resized" in str(Report("f", "Some", resized=("x", "y")))
    with pytest.raises(WeightsError, match=r"--allow 'z' fits no tensor of either side; they are named like a, b"):
        compiled(["z"], ["a", "b"], "--allow")
    assert compiled([r"^a$"], ["a"], "--allow") == [re.compile(r"^a$")]


def test_left_parts_are_said_aloud(caplog) -> None:
    module = nn.Linear(1, 1)
    TABLE.read(TABLE.write(ours()) | {"gone.bias": module.bias.detach()}, list(ours()))
    assert "left behind, a head: gone.bias" in caplog.text
