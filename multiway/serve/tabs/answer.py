"""Questions about a picture, answered from the list that a model was tuned with."""

from __future__ import annotations

from typing import Any

from multiway.nn.generate import Generation
from multiway.serve.subject import Subject
from multiway.serve.tabs.html import Bar, bars
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["TAB", "answered"]

_SHOWN = 5


def able(subject: Subject) -> bool:
    """Whether it was tuned to answer."""
    return subject.able("encode_image", "encode_text", "answer")


def answered(subject: Subject, path: str | None, question: str) -> str:
    """The best answers of the list.

    Args:
        path: of the picture.
        question: about it.

    Raises:
        Refused: without a picture or a question.
    """
    question = subject.text(question, "question")
    picture = subject.opened(path)

    def scored() -> tuple[list[float], str]:
        model = subject.model
        shown, asked = model.encode_image([picture], tokens="only"), model.encode_text([question], tokens="only")
        written = model.write_answers(shown, asked, Generation("beam"))[0] if subject.able("write_answers") else ""
        return model.answer(shown, asked)[0].softmax(0).tolist(), written

    answers = subject.model.answers
    shares, written = subject.compute(scored)
    best = sorted(zip(answers, shares, strict=True), key=lambda each: -each[1])[:_SHOWN]
    rows = [Bar(answer, f"{share:.1%}", share / (best[0][1] or 1.0)) for answer, share in best]
    return bars(
        rows,
        f"Its share among the {len(answers):,} answers of the list (softmax of their scores); evenly spread, each has "
        f"{1 / len(answers):.1%}. {'Over them what it writes in its own words.' if written else 'It knows no other answer.'}",
        written or best[0][0],
    )


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    inputs, right = ui.columns()
    with inputs:
        picture = ui.picture()
        question = ui.words("Question", ui.first.question if ui.first is not None else "")
        button = ui.button("Answer")
    with right:
        answer = ui.answer()
    pairs = zip(ui.files, subject.samples, strict=True)
    ui.samples([[file, sample.question] for file, sample in pairs if sample.question], [picture, question])

    def work(*given: Any) -> str:
        return answered(subject, *given)

    ui.on([button.click, question.submit], work, [picture, question], answer)


TAB = Tab("answer", "Answer", able, draw)
