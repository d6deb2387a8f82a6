"""ViLT's checkpoints as its authors' code writes them (dandelin/ViLT): pre-training, question answering, retrieval, two pictures.

`vilt_200k_mlm_itm.ckpt` and its like are Lightning's; what they hold beside tensors may have to be taken out first (the error says so). The
word head's matrix is one of its own. Answers have numbers there and get these as names here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables, timm_names
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import both, leading, patches, placed, same
from multiway.hub.timm_networks import count
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.hub.transformers_folder import mlp_ratio
from multiway.methods.vilt import Vilt, ViltConfig

__all__ = ["from_state", "table", "vilt_config"]

_WORDS, _DECODER = "text_embeddings.word_embeddings.weight", "mlm_score.decoder.weight"


def table(config: ViltConfig) -> Table:
    """Which tensors are which."""
    rules = [
        *bert_tables.embedding("text", "text_embeddings"),
        *same(("modalities.weight", "token_type_embeddings.weight"), ("word_matrix.weight", _DECODER)),
        *patches("patches.project", "transformer.patch_embed.proj"),
        *leading(("class_token", "transformer.cls_token")),
        *placed("", "transformer.pos_embed"),
        *timm_names.blocks("transformer.blocks.*", "transformer.blocks.*"),
        *both(("transformer.norm", "transformer.norm"), ("pooler", "pooler.dense"), ("match_head", "itm_score.fc")),
        *both(
            *(
                (f"{head}.{part}", f"{theirs}.{part}")
                for head, theirs in (("answer_head", "vqa_classifier"), ("judge_head", "nlvr2_classifier"))
                for part in (0, 1, 3)
            )
        ),
        *bert_tables.word_head("word_head", "mlm_score"),
    ]
    apart = [
        (r"^mpp_score\.", "a head on hidden patches"),
        (r"^rank_output\.", "a score for ranking, which begins as the head on pairs"),
    ]
    return Table("ViLT of its authors", rules, [(_DECODER, _WORDS)] if config.tied_words else [], apart=apart)


def vilt_config(theirs: Mapping[str, Tensor]) -> ViltConfig:
    """Our config from the shapes of a checkpoint: heads 64 wide, norms as transformers has the same release.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    try:
        vocabulary, width = theirs[_WORDS].shape
        context = len(theirs["text_embeddings.position_embeddings.weight"])
        patch = theirs["transformer.patch_embed.proj.weight"].shape[-1]
        side = math.isqrt(theirs["transformer.pos_embed"].shape[1] - 1)
        hidden = len(theirs["transformer.blocks.0.mlp.fc1.weight"])
        kinds, types = (
            len(theirs["token_type_embeddings.weight"]),
            len(theirs["text_embeddings.token_type_embeddings.weight"]),
        )
    except KeyError as error:
        raise WeightsError(f"the checkpoint lacks the tensor {error.args[0]}; is it a ViLT?") from error
    answers = len(theirs["vqa_classifier.3.bias"]) if "vqa_classifier.3.bias" in theirs else 0
    tied = _DECODER not in theirs or torch.equal(theirs[_DECODER], theirs[_WORDS])
    return ViltConfig(
        vocabulary=vocabulary,
        context=context,
        size=side * patch,
        patch=patch,
        width=width,
        layers=count(theirs, "transformer.blocks."),
        heads=max(1, width // 64),
        mlp_ratio=mlp_ratio(width, hidden),
        epsilon=1e-12,
        types=types,
        modalities=kinds,
        tied_words=tied,
        matching="itm_score.fc.weight" in theirs,
        words="mlm_score.bias" in theirs,
        answers=tuple(map(str, range(answers))),
        verdicts=("false", "true") if "nlvr2_classifier.3.bias" in theirs else (),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """A ViLT from its authors' checkpoint.

    Their tokeniser, BERT's, is not in it: a `tokenizer.json` is looked for beside the file, and without one the model takes token ids.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    config = vilt_config(theirs)
    method = Vilt(config)
    report = fill(method, table(config), theirs, str(file), allow)
    view = ViewSpec(config.size, "squash", config.mean, config.std)
    return Model(method, Processor(view, read_tokenizer(file.parent, config.context)), report=report)
