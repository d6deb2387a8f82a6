"""ALBEF's checkpoints as its authors' code writes them (salesforce/ALBEF): pre-training, and retrieval tuned from it.

Their one BERT is two here: the blocks below the first that looks at the picture, and the rest. The momentum twin and the queues are left
behind: the twin of a model that begins from these weights starts as its student does. A checkpoint that was tuned for retrieval has no
head on masked words; that ours may begin at random is to be allowed by name (`--allow '^student.words'`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import bert_tables, timm_names
from multiway.hub.model import Model
from multiway.hub.renaming import Table, fill
from multiway.hub.rules import both, same, shifted
from multiway.hub.timm_networks import vit_of_shapes
from multiway.hub.tokenizer_files import read_tokenizer
from multiway.methods.albef import Albef, AlbefConfig

__all__ = ["albef_config", "from_state", "table"]

MOMENTUM = [
    (r"^(visual_encoder|vision_proj|text_encoder|text_proj|text_decoder)_m\.", "the momentum twin, which begins anew"),
    (r"^(image_queue|text_queue|idx_queue|queue_ptr|ptr_queue|queue_total)$", "the queues, which begin empty"),
]


def table(config: AlbefConfig, root: str = "text_encoder.bert.") -> Table:
    """Which tensors are which.

    Args:
        config: of ours.
        root: what the names of their BERT begin with.
    """
    layers = f"{root}encoder.layer"
    rules = [
        *timm_names.vit("student.image.", "visual_encoder."),
        *bert_tables.embedding("student.text.embed", f"{root}embeddings"),
        *bert_tables.blocks("student.text.transformer.blocks", layers),
        *shifted(bert_tables.blocks("student.fusion.blocks", layers), config.text.layers),
        *bert_tables.word_head("student.words", "text_encoder.cls.predictions"),
        *both(
            ("student.image_projection", "vision_proj"),
            ("student.text_projection", "text_proj"),
            ("match_head", "itm_head"),
        ),
        *same(("temperature", "temp")),
    ]
    head = "text_encoder.cls.predictions"
    copies = [
        (f"{head}.decoder.weight", f"{root}embeddings.word_embeddings.weight"),
        (f"{head}.decoder.bias", f"{head}.bias"),
    ]
    return Table("ALBEF of its authors", rules, copies, apart=MOMENTUM)


def albef_config(theirs: Mapping[str, Tensor], root: str = "text_encoder.bert.") -> AlbefConfig:
    """Our config from the shapes of a checkpoint; what no shape shows is the paper's.

    Raises:
        WeightsError: if a tensor that shows a size is not there.
    """
    text = bert_tables.text_of_shapes(theirs, root)
    fused = sum(
        f"{root}encoder.layer.{layer}.crossattention.self.query.weight" in theirs for layer in range(text.layers)
    )
    queue = theirs.get("image_queue")
    return replace(
        AlbefConfig.preset("base"),
        image=vit_of_shapes(theirs, "visual_encoder."),
        text=replace(text, layers=text.layers - fused),
        fusion_layers=fused,
        embedding=len(theirs["vision_proj.weight"]),
        queue=65_536 if queue is None else queue.shape[1],
    )


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """An ALBEF from its authors' checkpoint.

    Their tokeniser, BERT's, is not in it: a `tokenizer.json` is looked for beside the file, and without one the model takes token ids.

    Raises:
        WeightsError: if a tensor is unaccounted for.
    """
    root = "text_encoder.bert." if any(name.startswith("text_encoder.bert.") for name in theirs) else "text_encoder."
    config = albef_config(theirs, root)
    method = Albef(config)
    report = fill(method, table(config, root), theirs, str(file), allow)
    view = ViewSpec(config.image.size, "squash")  # CLIP's mean and deviation
    return Model(method, Processor(view, read_tokenizer(file.parent, config.text.context)), report=report)
