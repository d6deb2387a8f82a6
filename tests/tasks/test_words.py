"""Words as the tokens that spell them."""

from itertools import pairwise

from toy import ToySource

from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.tasks.words import spelled


def test_words_are_spelled_whole_and_nothing_else_is() -> None:
    captions = [c for row in range(32) for c in ToySource(32).row(row).captions]
    tokenizer = Tokenizer.train(captions, TokenizerSpec(270, 24))  # so few ids that words have several tokens
    tokens = tokenizer(["purple on the left", "red"])
    for line, text in enumerate(("purple on the left", "red")):
        ids, starts, real = tokens.ids[line], tokens.word_starts[line], tokens.mask[line]
        found = list(spelled(ids, starts, real, tokenizer))
        assert [word for word, _, _ in found] == text.split()
        assert found[0][1] == 1 and all(stop == start for (_, _, stop), (_, start, _) in pairwise(found))
    assert any(
        stop - start > 1 for _, start, stop in spelled(tokens.ids[0], tokens.word_starts[0], tokens.mask[0], tokenizer)
    )
    empty = tokenizer([""])
    assert not list(spelled(empty.ids[0], empty.word_starts[0], empty.mask[0], tokenizer))
