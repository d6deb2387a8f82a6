"""What the tests of methods that write captions share: a toy batch, and what its tokeniser tells a config."""

from toy import ToySource

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer, TokenizerSpec


def words_of(rows: int = 32) -> Tokenizer:
    """A tokeniser of the toy captions."""
    source = ToySource(rows)
    return Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))


def toy_batch(rows: int = 16, number: int = 0) -> Batch:
    """Pictures of 16 pixels and their captions."""
    view = ViewSpec(size=16)
    return finish(Loader(ToySource(32), view, words_of(), rows).batch(number), view)


def info() -> DataInfo:
    """Of that tokeniser."""
    tokenizer = words_of()
    return DataInfo(vocabulary=len(tokenizer), context=16, special=tokenizer.special)
