"""Zero-shot classification with labels that are typed in; of a model that was tuned for classes, those classes too."""

from __future__ import annotations

from typing import Any

from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import Bar, bars, number
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui
from multiway.tasks.zeroshot import ZeroShotClassifier

__all__ = ["TAB", "classified", "sorted_into_classes"]

_SHOWN = 20  # of many labels, the best


def _by_words(subject: Subject) -> bool:
    return subject.able("encode_image", "encode_text", "compare")


def able(subject: Subject) -> bool:
    """Whether pictures are compared with texts, or sorted into classes."""
    return _by_words(subject) or subject.able("encode_image", "classify")


def classified(subject: Subject, path: str | None, labels: str, template: str = "{}") -> str:
    """How near a picture is to each label.

    Args:
        path: of the picture.
        labels: one on each line, or between commas.
        template: with one `{}` for the label.

    Raises:
        Refused: without a picture, with fewer than two labels or too many, or for another template.
    """
    names = subject.lines(labels, "label", subject.limits.labels)
    if len(names) < 2:
        raise Refused(f"There is one label, {names[0]!r}, which always wins: type two or more.")
    template = subject.checked((template or "").strip() or "{}", "sentence")
    if template.count("{}") != 1:
        raise Refused(f"The sentence {template!r} has {template.count('{}')} places for a label: write {{}} once.")
    picture = subject.opened(path)

    def scored() -> list[float]:
        classifier = ZeroShotClassifier(subject.model, names, (template,))
        found: list[float] = classifier.scores(subject.model.encode_image([picture]))[0].tolist()
        return found

    scores = subject.compute(scored)
    best = sorted(zip(names, scores, strict=True), key=lambda each: -each[1])
    longest = max(abs(score) for score in scores) or 1.0
    rows = [Bar(name, number(score), max(0.0, score) / longest) for name, score in best[:_SHOWN]]
    more = f" The best {_SHOWN} of {len(names)} are shown." if len(names) > _SHOWN else ""
    return bars(
        rows,
        f"{subject.measure.capitalize()} of the picture and each sentence; the nearest wins, here by "
        f"{best[0][1] - best[1][1]:.3f}. Guessing is right 1 time in {len(names)}.{more}",
        best[0][0],
    )


def sorted_into_classes(subject: Subject, path: str | None) -> str:
    """The probabilities of a tuned model's own classes."""
    picture = subject.opened(path)

    def scored() -> list[float]:
        encoded = subject.model.encode_image([picture], tokens="only")
        shares: list[float] = subject.model.classify(encoded)[0].softmax(0).tolist()
        return shares

    names = subject.model.classes
    best = sorted(zip(names, subject.compute(scored), strict=True), key=lambda each: -each[1])[:_SHOWN]
    rows = [Bar(name, f"{share:.1%}", share / (best[0][1] or 1.0)) for name, share in best]
    return bars(
        rows, f"Probability of each of the {len(names)} classes it was tuned for; evenly spread, each has {1 / len(names):.1%}.",
        best[0][0],
    )  # fmt: skip


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    inputs, right = ui.columns()
    words = _by_words(subject)
    with inputs:
        picture = ui.picture()
        given: list[Any] = [picture]
        if words:
            labels = ui.words("Labels", "\n".join(subject.labels), lines=4, info="one on each line, or between commas")
            template = ui.words("Sentence", subject.template, info="{} stands for the label")
            given += [labels, template]
        button = ui.button("Classify")
    with right:
        answer = ui.answer()
        own = ui.answer() if words and subject.able("classify") else None
    ui.samples([[file] for file in ui.files], [picture])

    def work(*values: Any) -> str:
        return classified(subject, *values) if words else sorted_into_classes(subject, *values)

    ui.on([button.click, *([template.submit] if words else [])], work, given, answer)
    if own is not None:
        ui.on([button.click], lambda path: sorted_into_classes(subject, path), [picture], own)


TAB = Tab("classify", "Classify", able, draw)
