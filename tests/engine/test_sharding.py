"""One rank against two that hold the method in parts: the same losses at every step, the same weights in the end."""

from dataclasses import replace

import pytest
import torch
from ranks import ROWS, Case, Rows, apart, build, error, moved, run, spawned

from multiway.engine.loop import train
from multiway.engine.settings import Settings
from multiway.engine.sharding import mesh_of
from multiway.world import World

# MoCo by LARS, whose steps need norms of whole tensors; 0.001 of a tensor's norm is a step at a rate of 1.
STEPS = 11  # of a horizon of 20: warm-up, ALBEF's two stages, and some after a checkpoint
WHOLE = {"clip": Case("clip", STEPS), "albef": Case("albef", STEPS), "moco": Case("moco", STEPS, kind="lars", lr=20.0)}
FULL = {f"{key} full": replace(case, shard="full") for key, case in WHOLE.items()}
AMONG = {
    "begun on one": Case("clip", STEPS, begun="begun alone", shard="full"),
    "left by two": Case("albef", steps=8, shard="full"),
    "bad": Case("clip", steps=12, bad=(5, 6, 7), shard="full", more=(("checkpoint_every", 3), ("evaluate_every", 4))),
    "joining": Case("clip", steps=6, shard="full", unfreeze=(("image", 3.0),)),
    "joining bf16": Case(
        "clip", steps=2, double=False, shard="full", unfreeze=(("image", 1.0),), more=(("precision", "bf16"),)
    ),
    "bf16": Case("clip", steps=2, double=False, shard="full", more=(("precision", "bf16"),)),
    "bf16 ddp": Case("clip", steps=2, double=False, more=(("precision", "bf16"),)),
    "recomputed": Case("albef", steps=6, shard="full", more=(("checkpoint_blocks", True), ("accumulate", 2))),
}


def alone(case: Case) -> Case:
    return replace(
        case, shard="none", shards=0, more=tuple(each for each in case.more if each[0] != "checkpoint_blocks")
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Everything once: what one rank does before two go on with it, what two do, what one does for comparison or goes on with."""
    folder, world = tmp_path_factory.mktemp("ranks"), World()
    made = run({"begun alone": Case("clip", steps=8)}, world, folder)
    made |= spawned(FULL | AMONG, folder)
    twins = {f"{key} alone": replace(alone(AMONG[key]), begun="") for key in ("bad", "joining", "recomputed")}
    made |= run(WHOLE | twins | {"left for one": Case("albef", STEPS, begun="left by two")}, world, folder)
    return made


@pytest.mark.parametrize("name", WHOLE)
def test_steps_in_parts_are_those_of_one_rank(found: dict[str, dict], name: str) -> None:
    one, two = found[name], found[f"{name} full"]
    assert len(one["terms"]) == STEPS and moved(one) > 0.02
    assert error(two, one) < 1e-9
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-9)


def test_what_is_logged_of_parts_is_of_the_whole(found: dict[str, dict]) -> None:
    one, two = found["albef"], found["albef full"]
    for mine, theirs in zip(two["health"], one["health"], strict=True):
        for name in ("gradient/norm", "gradient/zero_share", "gradient/nonfinite"):
            # Where softmax sees no key's bias the gradient is zero but for rounding, which counts as zero or not.
            assert mine[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-3 if "zero" in name else 0.0), name
    gaps = [[each["twin_gap"] for each in run["report"]] for run in (two, one)]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-6, abs=1e-9) and gaps[1][-1] > 1e-4
    hard = [[each.get("negative_cosine") for each in run["report"]] for run in (two, one)]
    assert hard[0][:4] == [None] * 4 and hard[0][4:] == pytest.approx(hard[1][4:], rel=1e-6)


def test_a_rank_holds_half(found: dict[str, dict]) -> None:
    for kind in ("model", "optimiser"):
        share = found["clip full"]["held"][kind] / found["clip"]["held"][kind]
        assert 0.5 <= share < 0.62  # vectors are a tenth of so small a model, and whole


def test_one_rank_goes_on_where_two_stopped_and_two_where_one_did(found: dict[str, dict]) -> None:
    for resumed, whole in (("left for one", "albef"), ("begun on one", "clip")):
        assert found[resumed]["resumed"] == 8
        rest = found[whole] | {"terms": found[whole]["terms"][8:]}
        assert error(found[resumed], rest) < 1e-9


def test_bad_steps_are_skipped_and_gone_back_from_alike(found: dict[str, dict]) -> None:
    one, two = found["bad alone"], found["bad"]
    assert len(two["said"]) == 1 and "back to the weights of step 4" in two["said"][0]
    assert one["said"] == two["said"]
    finite = [step for step in range(12) if step not in (5, 6, 7)]
    for each in (one, two):
        each["terms"] = [each["terms"][step] for step in finite]
    assert error(two, one) < 1e-9


def test_evaluation_sees_the_whole_method_and_leaves_no_trace(found: dict[str, dict]) -> None:
    one, two = found["bad alone"]["evaluated"], found["bad"]["evaluated"]
    assert len(two) == 3 and all(each["whole"] and not each["training"] for each in two)
    assert [each["norm"] for each in two] == pytest.approx([each["norm"] for each in one], rel=1e-12)
    size = torch.stack(
        [each.double().norm() for each in found["bad"]["state"].values() if each.ndim or each.is_floating_point()]
    ).norm()
    assert two[-1]["norm"] == pytest.approx(float(size), rel=1e-12)


def test_bf16_in_parts_computes_what_autocast_does(found: dict[str, dict]) -> None:
    """Matrices that travel in bf16 are rounded where autocast would round them: the first loss is the same to fp32's rounding."""
    ours, ddp = found["bf16"], found["bf16 ddp"]
    assert ours["terms"][0]["itc"] == pytest.approx(ddp["terms"][0]["itc"], rel=1e-6)
    assert ours["terms"][1]["itc"] == pytest.approx(ddp["terms"][1]["itc"], rel=1e-3)
    assert all(each.dtype == torch.float32 for each in ours["state"].values() if each.is_floating_point())
    assert ours["norms"][0] == pytest.approx(ddp["norms"][0], rel=1e-2)


def test_parts_that_begin_to_learn_later_do_so_in_parts_too(found: dict[str, dict]) -> None:
    assert error(found["joining"], found["joining alone"]) < 1e-9
    state, started = found["joining bf16"]["state"], found["joining bf16"]["started"]
    moved = {name for name, each in state.items() if not torch.equal(each, started[name])}
    assert {
        "image.transformer.blocks.0.attention.qkv.weight",
        "text.transformer.blocks.0.attention.qkv.weight",
    } <= moved


def test_recomputed_blocks_and_micro_batches_change_nothing(found: dict[str, dict]) -> None:
    assert error(found["recomputed"], found["recomputed alone"]) < 1e-9


MORE = {
    f"{name} {mode}{'' if double else ' fp32'}": Case(name, 20 if double else 3, shard, shards, double, kind=kind, lr=lr)
    for name, kind, lr in (("clip", "sgd", 0.1), ("albef", "sgd", 0.1), ("moco", "sgd", 0.1), ("byol", "lars", 20.0), ("simclr", "sgd", 0.1))
    for double in (True, False)
    for mode, shard, shards in (("ddp", "none", 0), ("full", "full", 0), ("1x2", "hybrid", 2), ("2x1", "hybrid", 1))
}  # fmt: skip


@pytest.mark.slow
def test_every_way_to_share_out_equals_one_rank(tmp_path) -> None:
    """float64 to 1e-9 over 20 steps; float32 to 1e-5 over 3.

    In float32 BYOL's weights are held to 0.01: by LARS at a rate of 20 three steps take them half their norm away, and rounding grows
    on the way, from 1e-5 to 4e-5 and 1e-3. Its losses agree as all do.
    """
    two = spawned(MORE, tmp_path / "two")
    one = run({key: alone(case) for key, case in MORE.items() if " ddp" in key}, World(), tmp_path / "one")
    wrong = []
    for key, case in MORE.items():
        twin = one[f"{case.name} ddp{'' if case.double else ' fp32'}"]
        assert moved(twin) > (0.02 if case.double else 0.005), key
        close = 1e-9 if case.double else 0.01 if case.name == "byol" else 1e-5
        if not (error(two[key], twin) < close and apart(two[key], twin) < (1e-9 if case.double else 1e-5)):
            wrong.append((key, error(two[key], twin), apart(two[key], twin)))
    assert not wrong


@pytest.mark.slow
def test_four_ranks_of_two_copies_equal_one(tmp_path) -> None:
    cases = {"albef": Case("albef", shard="hybrid", shards=2), "clip": Case("clip", shard="full")}
    four = spawned(cases, tmp_path, 4)
    one = run({key: alone(case) for key, case in cases.items()}, World(), tmp_path / "one")
    assert max(error(four[key], one[key]) for key in cases) < 1e-9


# --- what is refused -------------------------------------------------------------------------------------------------


def test_settings_that_do_not_go_together() -> None:
    plain = Settings(steps=3, batch=ROWS, lr=0.01)
    with pytest.raises(ValueError, match="cache=4 and shard=full are both given"):
        replace(plain, cache=4, shard="full")
    with pytest.raises(ValueError, match="shards=2 with shard=full"):
        replace(plain, shard="full", shards=2)


def test_ranks_that_do_not_divide_into_copies_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(steps=3, batch=ROWS, lr=0.01, shard="hybrid")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=r"LOCAL_WORLD_SIZE.*is not set.*set shards"):
        mesh_of(settings, World(0, 4), torch.device("cpu"))
    with pytest.raises(ValueError, match="3 ranks to a copy and 4 ranks"):
        mesh_of(replace(settings, shards=3), World(0, 4), torch.device("cpu"))


def test_one_rank_keeps_everything() -> None:
    """A run in parts that goes on alone needs no process group."""
    case = Case("clip", steps=2, shard="full")
    method = build("clip", World(), torch.float32)
    assert (
        train(
            method,
            Rows("clip", World(), torch.float32),
            case.settings(),
            World(),
            _Nowhere(),
            finish=lambda batch: batch,
        ).method
        is method
    )


class _Nowhere:
    """Journals that keep nothing."""

    say = staticmethod(print)
    failed = False

    def resume(self, *given) -> int:
        return 0

    def log(self, *given) -> None: ...

    def skip(self, *given) -> None: ...

    def checkpoint(self, *given) -> None: ...

    def settle(self) -> None: ...
