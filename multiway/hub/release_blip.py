"""BLIP's checkpoints as its authors' code writes them (salesforce/BLIP): pre-training, captioning, question answering, retrieval.

Beside transformers' classes (`transformers_blip.py`), which hold parts of the model, there is the whole of it: `model_base.pth`, whose
two text transformers share all but self-attention, and are kept as both. Texts have the same names in both libraries; the ViT is
timm's. The momentum twin and the queues are left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import timm_names, transformers_blip
from multiway.hub.bert_tables import text_of_shapes
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.release_albef import MOMENTUM
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import same
from multiway.hub.timm_networks import vit_of_shapes
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.hub.transformers_blip import blip_config
from multiway.methods.blip import Blip, BlipConfig

__all__ = ["config_of_shapes", "from_state", "kind_of", "table"]

WHOLE = "BLIP of its authors"


def kind_of(theirs: Mapping[str, Tensor]) -> str:
    """Which of transformers' classes it would be, by what it has; `WHOLE` for all modes.

    Raises:
        WeightsError: if it has none of them.
    """
    reads, writes, aligns = (
        any(name.startswith(each) for name in theirs) for each in ("text_encoder.", "text_decoder.", "vision_proj.")
    )
    found = {
        (True, True, True): WHOLE,
        (True, False, True): "BlipForImageTextRetrieval",
        (False, True, False): "BlipForConditionalGeneration",
        (True, True, False): "BlipForQuestionAnswering",
    }.get((reads, writes, aligns))
    if found is None:
        raise WeightsError(
            f"a BLIP with text_encoder: {reads}, text_decoder: {writes}, vision_proj: {aligns} is none that can be read"
        )
    return found


def table(config: BlipConfig, kind: str) -> Table:
    """Which tensors are which."""
    found = transformers_blip.table(config, kind, timm_names.vit("student.image.", "visual_encoder."))
    return Table(kind, [*found.rules, *same(("temperature", "temp"))], found.copies, apart=MOMENTUM)


def config_of_shapes(theirs: Mapping[str, Tensor], kind: str) -> BlipConfig:
    """Our config from the shapes of a checkpoint; what no shape shows is the paper's.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    image = vit_of_shapes(theirs, "visual_encoder.")
    text = text_of_shapes(theirs, "text_encoder." if kind != "BlipForConditionalGeneration" else "text_decoder.bert.")
    stated: dict[str, Any] = {
        "vision_config": {"hidden_size": image.width, "num_hidden_layers": image.layers, "num_attention_heads": image.heads,
                          "intermediate_size": int(image.width * image.mlp_ratio), "image_size": image.size,
                          "patch_size": image.patch, "layer_norm_eps": image.epsilon},
        "text_config": {"hidden_size": text.width, "num_hidden_layers": text.layers, "num_attention_heads": text.heads,
                        "intermediate_size": int(text.width * text.mlp_ratio), "vocab_size": text.vocabulary,
                        "max_position_embeddings": text.context},
        "image_text_hidden_size": len(theirs["vision_proj.weight"]) if "vision_proj.weight" in theirs else 256,
    }  # fmt: skip
    if kind != WHOLE:
        return blip_config(stated, kind)  # type: ignore[arg-type]
    sharing, lacks, queue = "all-but-self-attention", (), theirs.get("image_queue")
    return blip_config(stated, kind, sharing, lacks, 0 if queue is None else queue.shape[1])  # type: ignore[arg-type]


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """A BLIP from its authors' checkpoint.

    Their tokeniser is BERT's with [DEC] and [ENC] after its last word, which the model counts itself: a `tokenizer.json` of BERT's is
    looked for beside the file, and without one the model takes token ids.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    kind = kind_of(theirs)
    config = config_of_shapes(theirs, kind)
    method = Blip(config)
    found = table(config, kind)
    lacks = [
        name for name in method.state_dict() if not found.has(name) or (name == "temperature" and "temp" not in theirs)
    ]
    report = fill(method, found, theirs, str(file), allow, lacks)
    view = ViewSpec(config.image.size, "squash")  # CLIP's mean and deviation
    return Model(method, Processor(view, read_tokenizer(file.parent, config.text.context)), report=report)
