"""Tokenisers in folders of other libraries: `tokenizer.json`, or the older files of words and merges that many releases have instead.

`vocab.txt` is BERT's (WordPiece), which ViLT, BLIP, FLAVA, ALIGN and Chinese CLIP have too; `vocab.json` with `merges.txt` is CLIP's
byte-level BPE where words end in `</w>`, else RoBERTa's. Built here as `transformers` builds them, with the settings of
`tokenizer_config.json`. SentencePiece's `.model` files are not read, and it is said so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from multiway.data.processor import Processor
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer
from multiway.hub.file import WeightsError
from multiway.hub.transformers_folder import read_json, write_json

__all__ = ["pad_of", "read_tokenizer", "write_tokenizer"]

log = logging.getLogger(__name__)

_PIECES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
# As CLIP cuts text before its BPE (Radford et al., 2021, arXiv 2103.00020, released code).
_CLIP_PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def read_tokenizer(folder: Path, context: int) -> Tokenizer | None:
    """The folder's tokeniser; None if there is none: embeddings of pictures, and of token ids, still work.

    Args:
        folder: that may have one.
        context: most tokens of a text.

    Raises:
        WeightsError: if what there is cannot be read.
    """
    for names, made in _FORMS.items():
        files = [folder / name for name in names]
        if not all(file.is_file() for file in files):
            continue
        try:
            return Tokenizer.from_json(made(*files), context)
        except (DataError, OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"{files[0]}: {error}; fetch the file anew") from error
    if unread := [folder / name for name in _PIECES if (folder / name).is_file()]:
        log.warning(
            "%s is SentencePiece's and not read: the model takes token ids. For strings write its tokenizer.json: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            unread[0],
        )
    return None


def pad_of(folder: Path, tokenizer: Tokenizer | None, default: int) -> int:
    """The id that fills texts up, as the folder's `tokenizer_config.json` names it; `default` where it names none."""
    stated = _settings(folder).get("pad_token")
    name = stated.get("content") if isinstance(stated, Mapping) else stated
    found = tokenizer.backend.token_to_id(name) if tokenizer is not None and isinstance(name, str) else None
    return default if found is None else found


def write_tokenizer(folder: Path, processor: Processor) -> None:
    """The tokeniser as `PreTrainedTokenizerFast` reads it, if there is one."""
    tokenizer = processor.tokenizer
    if tokenizer is None:
        return
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    names = {f"{role}_token": tokenizer.backend.id_to_token(number) for role, number in tokenizer.special.items()}
    names["unk_token"] = names.pop("unknown_token", names["eos_token"])
    names["pad_token"] = tokenizer.backend.id_to_token(tokenizer.pad)  # published ones may fill up with the end token
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokenizer.context, **names},
    )


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


def _whole(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _word_pieces(file: Path) -> str:
    """BERT's, from a word a line, whose numbers are the ids."""
    told = _settings(file.parent)
    words = {word: number for number, word in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1])}
    backend = Backend(models.WordPiece(words, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=told.get("tokenize_chinese_chars", True),
        strip_accents=told.get("strip_accents"),
        lowercase=told.get("do_lower_case", True),
    )
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return _between(backend, file, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def _byte_pairs(file: Path, merged: Path) -> str:
    """CLIP's or RoBERTa's, from ids by token and a merge a line."""
    words = read_json(file)
    lines = merged.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise WeightsError(f"{merged} has lines that are no two tokens with a space between; fetch the file anew")
    clip = "<|startoftext|>" in words
    try:
        if clip:
            model = models.BPE(words, pairs, end_of_word_suffix="</w>", unk_token="<|endoftext|>")  # type: ignore[arg-type]
        else:
            model = models.BPE(words, pairs)  # type: ignore[arg-type]
    except Exception as error:  # the library has no error of its own
        raise WeightsError(f"{file} and {merged} are no tokeniser: {error}; fetch both anew") from error
    backend = Backend(model)
    backend.decoder = decoders.ByteLevel()
    if not clip:
        spaced = bool(_settings(file.parent).get("add_prefix_space", False))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
        return _between(backend, file, "<s>", "</s>", "<pad>", "<unk>", "<mask>")
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    cut = pre_tokenizers.Split(Regex(_CLIP_PIECES), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _between(backend, file, "<|startoftext|>", "<|endoftext|>")


def _between(backend: Backend, file: Path, first: str, last: str, *special: str) -> str:
    """As JSON, with the tokens before and after each text."""
    ends = [(each, backend.token_to_id(each)) for each in (first, last)]
    if any(number is None for _, number in ends):
        raise WeightsError(f"{file} lacks {first} or {last}, between which texts are put; is it whole?")
    backend.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)  # type: ignore[arg-type]
    there = [each for each in special if backend.token_to_id(each) is not None]
    backend.add_special_tokens([first, last, *there])
    return backend.to_str()


_FORMS: dict[tuple[str, ...], Callable[..., str]] = {
    ("tokenizer.json",): _whole,
    ("vocab.txt",): _word_pieces,
    ("vocab.json", "merges.txt"): _byte_pairs,
}
"""Files that make a tokeniser -> how; the first that are all there count."""
