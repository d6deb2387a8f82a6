"""The verb `data`, from arguments to exit code and output."""

import json

import pytest
from PIL import Image

from multiway.cli.data import run
from multiway.data.open import open_source


@pytest.fixture
def data(tmp_path):
    (tmp_path / "p").mkdir()
    for number in range(12):
        Image.linear_gradient("L").rotate(30 * number).save(tmp_path / "p" / f"{number}.png")
    (tmp_path / "p" / "broken.png").write_bytes(b"<html>")
    rows = [{"image": f"{n}.png", "caption": f"number {n}", "split": "train" if n else "val"} for n in range(12)]
    rows.append({"image": "broken.png", "caption": "[bold]broken", "split": "train"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def asked(data, verb, *options):
    return run([verb, f"{data}/a.jsonl", "--images", f"{data}/p", *map(str, options)])


def test_check_prints_one_object(data, capsys):
    assert asked(data, "check", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["splits"]["train"]["rows"] == 12 and value["splits"]["val"]["pictures"] == 1
    assert "line 13: broken.png: this is not a picture" in value["splits"]["train"]["unreadable"][0]["why"]


def test_check_for_people(data, capsys):
    assert asked(data, "check", "--min-side", 300) == 0
    out = capsys.readouterr().out
    assert "line 13: broken.png" in out and "12 pictures have a side below 300" not in out
    assert "11 pictures have a side below 300 pixels" in " ".join(out.split())


def test_show(data, capsys):
    assert asked(data, "show", "--out", data / "new" / "sheet.png", "--rows", 5, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["rows"] == [0, 2, 5, 7, 10]
    assert Image.open(value["out"]).width == 12 + 5 * 172


def test_shard_and_read_again(data, capsys):
    assert asked(data, "shard", "--out", data / "s", "--rows-per-shard", 4, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["rows"] == 12 and len(value["shards"]) == 4 and "line 13" in value["skipped"][0]["where"]
    assert len(open_source(f"{data}/s@train")) == 11
    assert asked(data, "shard", "--out", data / "s") == 1
    assert "already holds" in capsys.readouterr().err


def test_bad_data_are_a_message_and_exit_code_one(data, capsys):
    (data / "bad.jsonl").write_text("{")
    assert run(["check", f"{data}/bad.jsonl", "--json"]) == 1
    found = capsys.readouterr()
    assert not found.out and "bad.jsonl, line 1: this is not valid JSON" in found.err and "Traceback" not in found.err
    assert asked(data, "show", "--out", data / "p") == 1


def test_bad_usage_is_exit_code_two():
    for args in ([], ["check"], ["nonsense"], ["show", "emoji"]):
        with pytest.raises(SystemExit) as stopped:
            run(args)
        assert stopped.value.code == 2
