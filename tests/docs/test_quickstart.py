"""docs/quickstart.md as a newcomer follows it: every block, in order, in one session, on models of two steps."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"

# What the page trains for minutes is trained for moments here; each of these stands on the page once.
QUICKER = {
    "steps=580": "steps=2, batch=16, threads=1",
    "steps=100, batch=64": "steps=2, batch=16",
    "steps=600": "steps=2, batch=8, method={'image': {'layers': 1}, 'text': {'layers': 1}}",
    "steps=400": "steps=2, batch=8, evaluate=()",
}


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [(text[: each.start(1)].count("\n"), each[1]) for each in found]


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    given = blocks(PAGE)
    whole = "".join(code for _, code in given)
    assert {part: whole.count(part) for part in QUICKER} == dict.fromkeys(QUICKER, 1)
    session: dict[str, object] = {"__name__": "quickstart"}
    try:
        for line, code in given:
            for part, quicker in QUICKER.items():
                code = code.replace(part, quicker)
            # As many lines before it as on the page, so that a traceback names the page's line.
            exec(compile("\n" * line + code, str(PAGE), "exec"), session)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "retrieval on pairs.csv@test" in said and "text_retrieval/R@1" in said
    assert "task `generate` needs generate, which clip lacks" in said
    assert "vqa on scenes:easy,objects=1-2@test" in said
    assert (tmp_path / "clip-folder" / "README.md").is_file() and (tmp_path / "best.png").is_file()
