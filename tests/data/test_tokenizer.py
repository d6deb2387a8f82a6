import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec

CAPTIONS = ["red apple", "green apple", "two red cherries", "woman health worker: dark skin tone", "11 o'clock"] * 4
SPEC = TokenizerSpec(vocabulary=400, context=40)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, SPEC)


def test_the_order_of_captions_does_not_matter(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(CAPTIONS[::-1], SPEC).to_json() == tokenizer.to_json()


def test_ids_mask_and_word_starts_agree(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["red apple", "a strawberry shortcake"])
    bos, eos, pad = (tokenizer.special[name] for name in ("bos", "eos", "pad"))
    lengths = tokens.mask.sum(1).tolist()
    assert tokens.ids.shape[1] == max(lengths)  # padded to the longest text, not to the context
    for row, length in enumerate(lengths):
        assert tokens.ids[row, 0] == bos and tokens.ids[row, length - 1] == eos
        assert (tokens.ids[row, length:] == pad).all() and not tokens.mask[row, length:].any()
    assert tokens.word_starts.sum(1).tolist() == [2, 3]
    assert not tokens.word_starts[:, 0].any() and not (tokens.word_starts & ~tokens.mask).any()


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_text_fits_the_context(texts: list[str]) -> None:
    tokenizer = Tokenizer.train(CAPTIONS, SPEC)
    tokens = tokenizer(texts)
    assert tokens.ids.shape[1] <= SPEC.context and int(tokens.ids.max()) < len(tokenizer)
    ends = tokens.ids.gather(1, tokens.mask.sum(1, keepdim=True) - 1)
    assert (ends == tokenizer.special["eos"]).all()  # a cut text still ends


@settings(deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_lengths_count_what_is_cut_off(texts: list[str]) -> None:
    """Against the same tokeniser with room for everything."""
    short = Tokenizer.train(["a red apple", "a sad cat"], TokenizerSpec(300, 8))
    roomy = short.of_context(1000)
    found = roomy(texts)
    assert short.lengths(texts) == roomy.lengths(texts) == found.mask.sum(1).tolist()


def test_no_character_is_unknown(tokenizer: Tokenizer) -> None:
    for text in ("straße", "日本の旗", "café 🍎", "ÅLAND ISLANDS"):
        assert tokenizer.decode(tokenizer([text]).ids[0].tolist())[:4] == text.lower()[:4]


def test_eos_is_not_number_two(tokenizer: Tokenizer) -> None:
    """transformers reads 2 as a legacy CLIP's config and would pool at the greatest id."""
    assert tokenizer.special["eos"] != 2


def test_a_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer.to_json())
    loaded = Tokenizer.open(TokenizerSpec(context=40, path=str(file)), [])
    assert loaded(CAPTIONS).ids.equal(tokenizer(CAPTIONS).ids) and loaded.special == tokenizer.special
    back = Processor.from_header(Processor(ViewSpec(size=24, crop="pad"), tokenizer).to_header())
    assert back.view == ViewSpec(size=24, crop="pad") and back.texts(CAPTIONS).ids.equal(tokenizer(CAPTIONS).ids)


def test_bad_files_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Tokenizer.open(TokenizerSpec(path=str(tmp_path / "none.json")), [])
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        Tokenizer.from_json("{}", 8)
    with pytest.raises(TypeError, match="reads no text"):
        Processor(ViewSpec()).texts(["a"])


def test_what_is_kept_changes_nothing_and_is_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiway.data.tokenizer._KEPT_TEXTS", 8)
    monkeypatch.setattr("multiway.data.tokenizer._KEPT_LENGTH", 20)
    texts = [f"a {colour} circle {n}" for n in range(6) for colour in ("red", "blue")] + [
        "long " * 8,
        "",
        "a red circle 0",
    ]
    for start, count in ((0, 7), (3, 7), (0, 7), (0, 15), (9, 6)):
        asked = texts[start : start + count]
        fresh = Tokenizer.from_json(tokenizer.to_json(), tokenizer.context)
        for found, expected in zip(vars(tokenizer(asked)).values(), vars(fresh(asked)).values(), strict=True):
            assert torch.equal(found, expected)
        assert len(tokenizer._read) <= 8 and all(len(text) <= 20 for text in tokenizer._read)
