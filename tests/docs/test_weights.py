"""docs/weights.md: the demo's folder, opened by transformers, computes what we compute, by the page's own code."""

import re
from pathlib import Path

import pytest

import multiway as mw
from multiway.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"


def test_the_demo_opened_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.read_text().partition("## From the demo to transformers")[2].partition("## In general")[0]
    [commands] = re.findall(r"```bash\n(.*?)```", section, re.S)
    [code] = re.findall(r"```python\n(.*?)```", section, re.S)
    demo, convert = commands.splitlines()
    assert demo == "make demo"
    monkeypatch.chdir(tmp_path)
    mw.train(
        "clip", data="emoji", out="runs/demo", steps=2, batch=16, evaluate=(), quiet=True
    )  # as `make demo`, briefly
    assert main(convert.split()[1:]) == 0
    capsys.readouterr()
    exec(compile(code, str(PAGE), "exec"), {})
    apart = re.findall(r"tensor\(([\d.e-]+)\)", capsys.readouterr().out)
    assert len(apart) == 2 and all(float(each) < 1e-5 for each in apart)
