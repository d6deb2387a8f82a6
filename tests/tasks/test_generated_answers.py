"""Answers in the model's own words: scores by the benchmark's rule, the constant as chance, weights to learn from."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fused import Cards

from multiway.abilities import Encoded, LacksAbility
from multiway.data.annotated.files import ExampleFiles
from multiway.data.examples import Asked
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.tuned import Tuned
from multiway.nn.generate import Texts
from multiway.tasks.generated_answers import GeneratedAnswers
from multiway.tasks.vqa_accuracy import vqa_accuracy

ASKED = [
    (("red",) * 6 + ("blue",) * 4, "colour"),
    (("two",) * 5 + ("2",) * 3 + ("three",) * 2, "number"),
    (("red",) * 10, "colour"),
    (("no",) * 9 + ("yes",), "yes/no"),
]
SAID = ["blue", "2", "red", "maybe"]
WORDS = Tokenizer.train([*SAID, "what is it", "red", "two"], TokenizerSpec(vocabulary=280, context=16))


class Writer(Tuned):
    """Writes a known answer for each picture."""

    def __init__(self, said: list[str] = SAID) -> None:
        self.said, self.device = said, torch.device("cpu")
        self.method = SimpleNamespace(abilities=self.abilities, write_answers=self._write)
        self.processor = SimpleNamespace(tokenizer=WORDS)
        self.settings: Any = None

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "write_answers")

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])
        return Encoded(torch.zeros(len(numbers), 0), numbers[:, None, None])

    def encode_text(self, texts: Any, tokens: bool = False) -> Encoded:
        return Encoded(torch.zeros(len(texts), 0), torch.zeros(len(texts), 1, 1))

    def shown(self, images: Encoded, tokens: Any = "only") -> Encoded:
        return images

    def read(self, texts: Encoded, tokens: Any = "only") -> Encoded:
        return texts

    def by_rows(self, count: int, ask: Any) -> list[Any]:
        return [ask(torch.arange(start, min(start + 3, count))) for start in range(0, count, 3)]

    def _write(self, image: Encoded, text: Encoded, settings: Any, generator: Any = None) -> Texts:
        self.settings, self.generator = settings, generator
        assert image.tokens is not None and len(image.tokens) == len(text.embedding)
        words = WORDS([self.said[int(number)] for number in image.tokens[:, 0, 0]])
        return Texts(words.ids, words.mask, torch.zeros(len(words.ids)))


def questions(asked: Any = ASKED) -> ExampleFiles[Asked]:
    rows = [
        Asked(str(n + 7), (n,), "what is it", "", group, answers=answers) for n, (answers, group) in enumerate(asked)
    ]
    return ExampleFiles("questions", "test", "asked", rows, Cards([("x",)] * len(rows)))


def test_accuracy_and_its_chance() -> None:
    model = Writer()
    result = GeneratedAnswers(resamples=20, beams=4).run(model, questions())
    want = [vqa_accuracy(said, answers) for said, (answers, _) in zip(SAID, ASKED)]
    assert want == [1.0, 1.0, 1.0, 0.0] and result.details.scores == tuple(want)
    metrics = result.metrics
    assert metrics["accuracy"].value == 0.75 and metrics["accuracy[yes/no]"].value == 0.0
    # "red" is right of the first and the third; nothing is right more often.
    assert metrics["accuracy"].chance == 0.5 and metrics["accuracy[number]"].chance == 1.0
    assert metrics["accuracy[colour]"].chance == 1.0
    assert result.details.given == tuple(SAID)
    assert (model.settings.strategy, model.settings.beams, model.settings.max_length) == ("beam", 4, 20)
    assert GeneratedAnswers().submission(result)[1] == {"question_id": 8, "answer": "2"}


def test_how_answers_are_written() -> None:
    model = Writer()
    how = {"strategy": "nucleus", "max_length": 9, "min_length": 3, "top_p": 0.4, "temperature": 2.0}
    how |= {"length_penalty": 0.5, "repetition_penalty": 1.5}
    GeneratedAnswers(resamples=5, seed=11, **how).run(model, questions())  # type: ignore[arg-type]
    assert {name: getattr(model.settings, name) for name in how} == how
    assert model.generator.initial_seed() == 11
    with pytest.raises(ValueError, match="min_length <= max_length"):
        GeneratedAnswers(min_length=21)


def test_one_right_answer() -> None:
    asked = [(("Red",), ""), (("two",), ""), (("red",), ""), (("maybe",), "")]
    result = GeneratedAnswers("gqa-generate", official=False, resamples=20).run(
        Writer(["red", "2", "red", "maybe"]), questions(asked)
    )
    assert result.details.scores == (1.0, 0.0, 1.0, 1.0) and result.metrics["accuracy"].chance == 0.5
    task = GeneratedAnswers("gqa-generate", official=False)
    assert task.submission(result)[0] == {"questionId": "7", "prediction": "red"}


def test_withheld_answers_are_written_and_not_scored() -> None:
    result = GeneratedAnswers(resamples=20).run(Writer(), questions([((), "")] * 4))
    assert result.metrics == {} and result.details.given == tuple(SAID)


def test_what_is_learnt_from_a_question() -> None:
    task = GeneratedAnswers(least=1)
    answers = task.answers(questions())
    assert answers == ("red", "no", "2", "blue", "3", "yes")  # 16, 9, 8, 4, 2, 1 people
    targets = task.wanted(answers[:3]).targets
    assert targets is not None
    assert targets(ASKED[0][0]).tolist() == pytest.approx([0.6, 0, 0])
    assert targets(ASKED[1][0]).tolist() == pytest.approx([0, 0, 0.8])
    with pytest.raises(DataError, match="questions@test: no answer occurs at least 99"):
        replace(task, least=99).answers(questions())


def test_refusals() -> None:
    model = Writer()
    with pytest.raises(DataError, match="takes `asked`"):
        GeneratedAnswers().run(model, replace(questions(), kind="judged"))
    model.abilities = lambda: ("encode_image", "encode_text", "answer")  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match=r"write_answers.*finetune RUN --task vqa-generate"):
        GeneratedAnswers().run(model, questions())
