"""The page in headless Chromium: every tab of four kinds of runs is opened, used and looked at, wide and on a phone, and by keyboard.

    python -m pytest -m slow tests/serve/test_page_browser.py

The runs are trained for seconds, so that what they say is nonsense. PAGE_RUNS=folder takes `clip`, `blip`, `mae` and `vqa` from there
instead; PAGE_KEEP=docs/images keeps a screenshot of every tab.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

ROOT = Path(__file__).parents[2]
RUNS, KEEP = os.environ.get("PAGE_RUNS", ""), os.environ.get("PAGE_KEEP", "")
TABS = {
    "clip": ["Search", "Classify", "Similarity", "Look", "Curves"],
    "blip": ["Search", "Classify", "Caption", "Similarity", "Look", "Curves"],
    "mae": ["Look", "Reconstruct", "Curves"],
    "vqa": ["Classify", "Caption", "Answer", "Similarity", "Look", "Curves"],
}
SHOWN = {
    "clip": ["Search", "Classify", "Similarity", "Curves"],
    "blip": ["Caption", "Look"],
    "mae": ["Reconstruct"],
    "vqa": ["Answer"],
}
"""Of which run the screenshot of each tab is kept."""
BUTTON = {
    "Search": "Search", "Classify": "Classify", "Caption": "Write", "Answer": "Answer", "Similarity": "Compare", "Look": "Look",
    "Reconstruct": "Fill in", "Curves": "Draw again",
}  # fmt: skip
_LARGE = 150_000  # bytes of a screenshot
SIZES = {"wide": (1280, 860), "phone": (390, 844)}

_TRAIN = {
    "clip": [
        "train",
        "clip",
        "--data",
        "emoji",
        "--steps",
        "20",
        "--batch",
        "32",
        "--view.size",
        "32",
        "--method.image.size",
        "32",
    ],
    "blip": ["train", "blip", "--steps", "20", "--batch", "8"],
    "mae": ["train", "mae", "--data", "digits", "--steps", "20", "--batch", "16"],
    "vqa": ["finetune", "{blip}", "--task", "vqa", "--steps", "10", "--batch", "8"],
}


def multiway(*args: str) -> list[str]:
    return [sys.executable, "-m", "multiway", *args]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four runs."""
    if RUNS:
        return Path(RUNS)
    folder = tmp_path_factory.mktemp("runs")
    for name, args in _TRAIN.items():
        args = [each.format(blip=folder / "blip") for each in args]
        done = subprocess.run(multiway(*args, "--out", str(folder / name)), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Chromium, which resolves no name: whoever asks for another host gets an error, and is found out."""
    with playwright.sync_playwright() as started:
        alone = [
            "--no-sandbox",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        launched = started.chromium.launch(executable_path=CHROMIUM, args=alone)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[object]:
    """Starts `multiway page RUN` for a run, one at a time, and gives its address."""
    started: dict[str, tuple[subprocess.Popen[str], str]] = {}

    def serve(name: str) -> str:
        if name not in started:
            end()
            process = subprocess.Popen(
                multiway("page", str(runs / name), "--port", "0", "--no-open"),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"(http://127\.0\.0\.1:\d+/page/)", line)
            assert found, line
            started[name] = (process, found[1])
        return started[name][1]

    def end() -> None:
        for process, _ in started.values():
            process.terminate()
            assert process.wait(30) == 0, "the server does not end well"
        started.clear()

    yield serve
    end()


@dataclass
class Visit:
    """One page in the browser, and all that it did wrong."""

    page: object
    address: str
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        host = urlparse(self.address).netloc

        def asked(request: object) -> None:
            url = urlparse(request.url)
            if url.scheme not in ("data", "blob") and url.netloc != host:
                self.wrong.append(f"asked another host: {request.url}")

        def said(message: object) -> None:
            if message.type == "error":
                self.wrong.append(f"console: {message.text} {message.location}")

        def answered(response: object) -> None:
            if response.status >= 400:
                self.wrong.append(f"{response.status} {response.url}")

        self.page.on("request", asked)
        self.page.on("console", said)
        self.page.on("response", answered)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.get_by_role("tab").first.wait_for()

    def tab(self, title: str) -> object:
        """Open a tab; those that find no room are behind a button. Gives its panel."""
        named = self.page.get_by_role("tab", name=title, exact=True)
        if not named.first.is_visible():
            self.page.locator(".overflow-menu > button").first.click()
        shown = [each for each in named.all() if each.is_visible()]
        (shown[0] if shown else self.page.locator(".overflow-dropdown button", has_text=title).first).click()
        panel = self.page.locator(f"#tab-{title.lower()}")
        panel.get_by_role("button", name=BUTTON[title], exact=True).wait_for()
        return panel

    def settled(self, panel: object) -> None:
        """Wait until no answer is on its way."""
        self.page.wait_for_timeout(150)
        panel.locator(".mw-answer .pending, .mw-answer .generating").first.wait_for(state="detached", timeout=60_000)

    def use(self, title: str, words: int = 0) -> object:
        """Press a tab's button and wait for its answer; then that for one of the words, where there are some to choose."""
        panel = self.tab(title)
        if title == "Search":
            panel.get_by_label("What to look for").fill("red fruit")
        panel.get_by_role("button", name=BUTTON[title], exact=True).click()
        panel.locator(".mw-wait").first.wait_for(state="detached", timeout=60_000)
        self.settled(panel)
        if panel.get_by_label("Word", exact=True).is_visible() and words:
            panel.get_by_label("Word", exact=True).click()
            options = panel.get_by_role("option")
            options.first.wait_for()
            options.nth(min(words, options.count() - 1)).click()
            self.settled(panel)
        assert not panel.locator(".mw-problem").count(), panel.locator(".mw-problem").all_inner_texts()
        return panel


@pytest.fixture
def visit(browser: object) -> Iterator[object]:
    """Opens an address at a size; fails afterwards if the page did anything wrong."""
    opened: list[tuple[object, Visit]] = []

    def begin(address: str, size: str = "wide") -> Visit:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=1, has_touch=size == "phone"
        )
        found = Visit(context.new_page(), address)
        found.watch()
        found.open()
        opened.append((context, found))
        return found

    yield begin
    for context, found in opened:
        context.close()
        assert not found.wrong, found.wrong


def kept(page: object, name: str) -> None:
    """Keep a screenshot, if that is asked for."""
    if KEEP:
        path = ROOT / KEEP / f"page-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.evaluate("document.activeElement && document.activeElement.blur(); window.scrollTo(0, 0)")
        page.wait_for_timeout(400)  # buttons fade
        page.screenshot(path=str(path), full_page=True)
        image = Image.open(path).convert("RGB")
        image.save(path, optimize=True)
        if path.stat().st_size > _LARGE:
            image.quantize(256).save(path, optimize=True)
        assert path.stat().st_size <= _LARGE


def titles(page: object) -> list[str]:
    """Of all tabs, those behind the button too: Gradio measures with a hidden copy of each."""
    return page.locator(".tab-container.visually-hidden").first.locator("button").all_text_contents()


@pytest.mark.parametrize("name", list(TABS))
def test_there_is_a_tab_for_each_thing_that_a_run_is_able_to_do(name: str, served: object, visit: object) -> None:
    assert titles(visit(served(name)).page) == TABS[name]


@pytest.mark.parametrize("size", list(SIZES))
def test_tabs_and_answers_are_reached_by_keyboard(size: str, served: object, visit: object) -> None:
    """Every tab gets the focus, is opened by Enter, and its button answers to Enter."""
    seen = visit(served("clip"), size)
    for title in TABS["clip"]:
        seen.page.evaluate("document.activeElement && document.activeElement.blur()")
        assert walk(seen.page, title), f"{title} is not reached with the Tab key"
        seen.page.keyboard.press("Enter")
        panel = seen.page.locator(f"#tab-{title.lower()}")
        button = panel.get_by_role("button", name=BUTTON[title], exact=True)
        button.wait_for()
        button.focus()
        outline = button.evaluate("each => getComputedStyle(each).outlineStyle")
        seen.page.keyboard.press("Enter")
        if title != "Curves":
            panel.locator(".mw-wait").first.wait_for(state="detached", timeout=60_000)
        assert outline != "none", "the focus cannot be seen"


@pytest.mark.parametrize("size", list(SIZES))
def test_maps_words_layers_and_heads_are_chosen_by_keyboard(size: str, served: object, visit: object) -> None:
    seen = visit(served("blip"), size)
    panel = seen.use("Look")
    figures = panel.locator("figure")
    assert figures.count() == 5, "all kinds but occlusion"
    panel.get_by_label("all of them").focus()
    for _ in range(3):  # attention, rollout, cross-attention
        seen.page.keyboard.press("Tab")
    outline = panel.locator("label:has(:focus)").evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline != "none", "the focus cannot be seen"
    seen.page.keyboard.press("Space")  # shown as it is chosen
    assert panel.get_by_label("cross-attention", exact=True).is_checked()
    panel.get_by_text("By layer and head, mean over the text.").wait_for()
    pick(seen, panel, "Layer", 1)
    panel.get_by_text("layer 1, head 1").wait_for(state="detached")
    panel.get_by_text("layer 0, head 0").wait_for()
    pick(seen, panel, "Head", 2)
    panel.get_by_text("layer 0, head 0").wait_for(state="detached")
    panel.get_by_text("layer 0, head 1").wait_for()
    pick(seen, panel, "Word", 2)
    assert figures.count() == 3, "of the text, of the word, and of the head"
    panel.get_by_label("occlusion (").check()
    panel.get_by_label("Layer", exact=True).wait_for(state="detached")
    seen.settled(panel)
    assert figures.count() == 2
    panel.get_by_label("Text", exact=True).fill("")
    panel.get_by_role("button", name="Look", exact=True).click()
    panel.get_by_role("alert").get_by_text("type a text").wait_for()
    panel.get_by_label("attention", exact=True).check()
    panel.get_by_text("By layer and head.").wait_for()
    summary = panel.locator(".mw-legend summary")
    panel.get_by_label("all of them").check()
    summary.focus()
    seen.page.keyboard.press("Enter")
    panel.get_by_text("no text is given").first.wait_for()


def pick(seen: object, panel: object, name: str, place: int) -> None:
    """Choose from a list that is folded up, by keyboard."""
    panel.get_by_label(name, exact=True).focus()
    for _ in range(place):
        seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("Enter")
    seen.settled(panel)


def walk(page: object, title: str) -> bool:
    """Press Tab until a tab has the focus; opens the list of those that found no room."""
    for _ in range(40):
        page.keyboard.press("Tab")
        what = page.evaluate(
            "[document.activeElement.innerText.trim(), !!document.activeElement.closest('.overflow-menu')]"
        )
        if what[0] == title:
            return True
        if what[1] and what[0] not in TABS["clip"]:
            page.keyboard.press("Enter")
    return False


def test_a_server_ends_though_a_page_is_open(served: object, browser: object) -> None:
    context = browser.new_context()
    Visit(context.new_page(), served("clip")).open()
    began = time.monotonic()
    served("mae")  # ends the other one
    assert time.monotonic() - began < 60
    context.close()


def test_what_goes_wrong_is_a_message(served: object, visit: object, tmp_path: Path) -> None:
    seen = visit(served("clip"))
    (tmp_path / "no.png").write_bytes(b"<svg onload=alert(1)>")
    panel = seen.tab("Classify")
    ask = panel.get_by_role("button", name="Classify", exact=True)
    panel.locator("input[type=file]").first.set_input_files(str(tmp_path / "no.png"))
    seen.page.wait_for_timeout(1000)  # the upload
    ask.click()
    panel.get_by_role("alert").get_by_text("it is an SVG drawing").wait_for()
    panel.get_by_label("Labels").fill("one")
    ask.click()
    panel.get_by_role("alert").get_by_text("type two or more").wait_for()


def test_words_of_a_visitor_stay_words(served: object, visit: object) -> None:
    """Gradio fills HTML by templates of two kinds: neither these nor tags may do anything."""
    seen = visit(served("clip"))
    hostile = [
        "<img src=x onerror=document.title='had'>",
        "${document.title='had'}",
        "{{constructor}}",
        "<script>document.title='had'</script>",
    ]
    panel = seen.tab("Classify")
    panel.get_by_label("Labels").fill("\n".join(hostile))
    panel.get_by_role("button", name="Classify", exact=True).click()
    panel.locator(".mw-bars").wait_for()
    assert sorted(each.strip() for each in panel.locator(".mw-bars th").all_inner_texts()) == sorted(hostile)
    assert seen.page.title() != "had"


@pytest.mark.parametrize("name", list(TABS))
def test_every_tab_answers(name: str, served: object, visit: object) -> None:
    for size, (width, _) in SIZES.items():
        seen = visit(served(name), size)
        for title in (
            TABS[name] if name != "vqa" else ["Answer", "Look", "Curves"]
        ):  # the others begin without labels and texts
            panel = seen.use(title, words=4)
            panel.locator("img, svg, .mw-bars").first.wait_for()
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{title} is {wide} pixels wide on {width}"
            if title in SHOWN[name]:
                kept(seen.page, title.lower() + ("-phone" if size == "phone" else ""))
