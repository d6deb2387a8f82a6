"""Checking a benchmark's files: everything that was planted is counted, by the function and by the command."""

import json
from pathlib import Path

import pytest
from annotated import miniatures
from annotated.miniatures import all_of, few

from multiway.cli.main import main
from multiway.data.annotated.open import open_examples
from multiway.data.check_examples import check_examples


def test_a_sound_split(tmp_path: Path) -> None:
    wanted = miniatures.write_vqa(tmp_path)
    done: list[int] = []
    report = check_examples(open_examples(f"vqa:{tmp_path}@val"), done.append)
    assert (report.examples, report.withheld, report.kind) == (len(wanted), 0, "asked")
    assert report.pictures == sum(done) == len({each.pictures for each in wanted})
    assert sum(report.groups.values()) == len(wanted) and set(report.groups) == {each.group for each in wanted}
    lengths = [len(each.text.split()) for each in wanted]
    assert report.words == (min(lengths), max(lengths)) and report.findings == []
    assert report.notes == [f"{len(wanted)} of 214,354 questions: a part of the public split"]


def test_what_is_withheld_and_what_is_judged(tmp_path: Path) -> None:
    withheld = miniatures.write_vqa(tmp_path / "vqa", "test")
    assert check_examples(open_examples(f"vqa:{tmp_path / 'vqa'}@test")).withheld == len(withheld)
    judged = miniatures.write_snli_ve(tmp_path / "ve")
    report = check_examples(open_examples(f"snli-ve:{tmp_path / 've'}"))
    assert sum(report.labels.values()) == len(judged) and set(report.labels) <= {
        "entailment", "neutral", "contradiction"
    }  # fmt: skip
    for wanted in ("choices", "expressions"):
        assert check_examples(few(wanted)).withheld == 0


def test_the_command_counts_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = miniatures.write_nlvr2(tmp_path, examples=few("statements", 16))
    first = tmp_path / "images" / "dev" / f"{wanted[0].key.rpartition('-')[0]}-img0.png"
    first.write_bytes(b"no picture")
    lines = (tmp_path / "dev.json").read_text().splitlines()
    (tmp_path / "dev.json").write_text("\n".join([*lines, *lines, "{}"]))
    assert main(["data", "check", f"nlvr2:{tmp_path}@val"]) == 1, "too many rows are the same"
    assert "cannot be used" in capsys.readouterr().err
    (tmp_path / "dev.json").write_text("\n".join([*lines, lines[0]]))
    assert main(["data", "check", f"nlvr2:{tmp_path}@val", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["task"] == "data check" and value["examples"] == len(lines) and len(value["rejected"]) == 1
    assert len(value["unreadable"]) == 1 and value["unreadable_examples"] == sum(
        0 in each.pictures for each in all_of(open_examples(f"nlvr2:{tmp_path}@val"))
    )
    assert value["findings"] == ["1 rows were left out on opening", "1 pictures (1 examples) cannot be read"]
    assert main(["data", "check", f"nlvr2:{tmp_path}@val"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "note: " in out and "of 6,982 examples" in out and "! 1 pictures (1 examples) cannot be read" in out
    assert "img0.png" in out or "not a picture" in out
    assert main(["data", "check", f"nlvr2:{tmp_path}@banana"]) == 1
    assert "no split 'banana'" in capsys.readouterr().err
