"""BEiT-3's released weights, in and out: `torchscale`'s encoder and the heads of microsoft/unilm's `beit3` beside it.

Two of their checkpoints are models of ours: those tuned for retrieval (`BEiT3ForRetrieval`, also the `itc` ones) are objective
`itc`, those tuned to caption (`BEiT3ForCaptioning`) objective `caption`. Of the others the encoder can be taken: their heads are
named, `leave=("pooler.", "head.")`, and with none left the objective is asked for.

Theirs in ours: branch A of a pair is vision, B language; position embeddings begin at row 2 of their tables, and rows 0 and 1,
which nothing reads, are left out when read and written as zeros. A file says nothing of heads, which are 64 wide in all that
was released, nor of norms (epsilon 1e-5) and activation (GELU).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.hub.accounting import Report
from multiway.hub.checkpoint_file import read_checkpoint
from multiway.hub.file import WeightsError, assign
from multiway.hub.model import Model
from multiway.hub.renaming import Table
from multiway.hub.rules import Rule, both, joined, laid_out, leading, patches, same
from multiway.hub.tokenizer_files import read_tokenizer, write_tokenizer
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.nn.multiway import MultiwayConfig

__all__ = [
    "beit3_config",
    "from_state",
    "from_torchscale",
    "ours_to_theirs",
    "theirs_to_ours",
    "to_torchscale",
    "without",
]

Objective = Literal["itc", "caption"]

_BRANCHES = {"A": "vision", "B": "language"}
_UNREAD = 2  # rows of position tables before the first that is used, a habit of fairseq
_PARTS = {
    "attention_norm": "self_attn_layer_norm.{}",
    "mixed_norm": "self_attn.inner_attn_ln.{}",
    "out": "self_attn.out_proj.{}",
    "mlp_norm": "final_layer_norm.{}",
    "mlp": "ffn.{}",
}
_FEED_FORWARD = {"up": "fc1", "norm": "ffn_layernorm", "down": "fc2"}
_HEADS: dict[str, dict[str, str]] = {
    "itc": {
        "image_projection.weight": "vision_head.weight",
        "text_projection.weight": "language_head.weight",
        "log_scale": "logit_scale",
    },
    "caption": {"word_head.weight": "mlm_head.weight", "word_head.bias": "mlm_head.bias"},
}
_EMBED, _LAYERS, _POSITIONS = "beit3.vision_embed", "beit3.encoder.layers", "beit3.encoder.embed_positions"
# beit3.spm has 64,002 pieces with <mask> last, of the 64,010 rows that there are; the other ids are XLM-RoBERTa's.
_RELEASED_WORDS = (64_010, DataInfo(special={"bos": 0, "eos": 2, "mask": 64_001}))


def table(config: Beit3Config) -> Table:
    """Which tensors are which."""
    rules = [
        *same(("words.words.weight", "beit3.text_embed.weight"), *_HEADS[config.objective].items()),
        *patches("pictures.patches.project", f"{_EMBED}.proj"),
        *leading(("pictures.class_token", f"{_EMBED}.cls_token"), ("pictures.mask_token", f"{_EMBED}.mask_token")),
        Rule(
            ("pictures.class_position", "pictures.positions"),
            (f"{_POSITIONS}.A.weight",),
            lambda tensors: [tensors[0][_UNREAD], tensors[0][_UNREAD + 1 :]],
            lambda tensors: [_after_unread(torch.cat([tensors[0][None], tensors[1]]))],
        ),
        *laid_out("words.positions", f"{_POSITIONS}.B.weight", lambda each: each[_UNREAD:], _after_unread),
    ]
    for branch, expert in _BRANCHES.items():
        rules += both((f"blocks.norm.experts.{expert}", f"beit3.encoder.layer_norm.{branch}"))
        for own, their in _PARTS.items():
            part, named = f"blocks.blocks.*.{own}.experts.{expert}", f"{_LAYERS}.*.{their.format(branch)}"
            inner = _FEED_FORWARD.items() if own == "mlp" else [("", "")]
            rules += both(*((f"{part}.{a}".rstrip("."), f"{named}.{b}".rstrip(".")) for a, b in inner))
        project = f"blocks.blocks.*.projection.experts.{expert}"
        parts = [f"{_LAYERS}.*.self_attn.{part}_proj.{branch}" for part in "qkv"]
        weight = joined(project, "{}")[0]
        rules.append(replace(weight, theirs=tuple(f"{part}.weight" for part in parts)))
        biases = zip(("query", "key", "value"), parts, strict=True)
        rules += same(*((f"{project}.{name}_bias", f"{part}.bias") for name, part in biases))
    return Table(f"BEiT-3 of microsoft/unilm, tuned for {config.objective!r}", rules)


def _after_unread(places: Tensor) -> Tensor:
    return torch.cat([places.new_zeros(_UNREAD, places.shape[1]), places])


def theirs_to_ours(
    theirs: Mapping[str, Tensor], config: Beit3Config, source: str = "", allow: Sequence[str] = ()
) -> tuple[dict[str, Tensor], Report]:
    """Their tensors under our names, and where each came from.

    Raises:
        WeightsError: naming tensors that are missing, or that nothing here accounts for.
    """
    with torch.device("meta"):  # names alone are wanted
        own = list(Beit3(config).state_dict())
    return table(config).read(theirs, own, source, allow)


def ours_to_theirs(ours: Mapping[str, Tensor], config: Beit3Config) -> dict[str, Tensor]:
    """Our tensors under their names, for `BEiT3ForRetrieval` or `BEiT3ForCaptioning`."""
    return table(config).write(ours)


def beit3_config(
    theirs: Mapping[str, Tensor], objective: Objective | None = None, *, head_width: int = 64
) -> Beit3Config:
    """Our config, read off the shapes of their tensors.

    Args:
        theirs: of a checkpoint.
        objective: None to tell it by the heads.
        head_width: of attention, which no shape shows.

    Raises:
        WeightsError: if there is no such encoder, it has no head that a model here has, or shapes contradict each other.
    """
    if objective is None:
        found = [name for name, head in _HEADS.items() if set(head.values()) <= set(theirs)]
        if len(found) != 1:
            raise WeightsError(
                "the objective cannot be told: those tuned for retrieval have vision_head, language_head and logit_scale, "
                f"those tuned to caption mlm_head; this one has parts for {found or 'neither'}. Of another the encoder is "
                "taken with objective='itc' or 'caption', which begins with a new head"
            )
        objective = found[0]  # type: ignore[assignment]
    try:
        vocabulary, width = theirs["beit3.text_embed.weight"].shape
        patch = theirs[f"{_EMBED}.proj.weight"].shape[-1]
        patches = len(theirs[f"{_POSITIONS}.A.weight"]) - _UNREAD - 1
        context = len(theirs[f"{_POSITIONS}.B.weight"]) - _UNREAD
        hidden = len(theirs[f"{_LAYERS}.0.ffn.A.fc1.weight"])
    except KeyError as error:
        raise WeightsError(
            f"the checkpoint lacks the tensor {error.args[0]}; is it a BEiT-3 of microsoft/unilm?"
        ) from error
    grid = math.isqrt(patches)
    if grid * grid != patches or width % head_width:
        raise WeightsError(
            f"{patches} patches of pictures and a width of {width} in heads of {head_width}: expected a square of patches and "
            "a whole number of heads; give head_width if it is not the released models' 64"
        )
    layers = len({name.removeprefix(f"{_LAYERS}.").split(".")[0] for name in theirs if name.startswith(_LAYERS)})
    blocks = MultiwayConfig(
        width, layers, width // head_width, hidden / width, epsilon=1e-5, attention="decoupled", key_bias=True, sub_norm=True
    )  # fmt: skip
    return Beit3Config(
        blocks,
        size=grid * patch,
        patch=patch,
        stem="patch",
        vocabulary=vocabulary,
        context=context,
        objective=objective,  # type: ignore[arg-type]
        word_head="linear",
    )


def without(theirs: Mapping[str, Tensor], leave: Sequence[str]) -> dict[str, Tensor]:
    """The tensors whose names begin with none of `leave`.

    Raises:
        WeightsError: if one of them fits nothing.
    """
    for beginning in leave:
        if not any(name.startswith(beginning) for name in theirs):
            raise WeightsError(
                f"leave={beginning!r} fits no tensor; they are named like {', '.join(sorted(theirs)[-4:])}"
            )
    return {name: tensor for name, tensor in theirs.items() if not name.startswith(tuple(leave))}


def from_torchscale(
    file: Path,
    objective: Objective | None = None,
    *,
    leave: Sequence[str] = (),
    head_width: int = 64,
    allow: Sequence[str] = (),
) -> Model:
    """A BEiT-3 from a released `.pth`, or from the `.safetensors` of `to_torchscale`.

    Their tokeniser, `beit3.spm`, is none that can be read here: a `tokenizer.json` made of it is looked for beside the file, and
    without one the model takes token ids, not strings.

    Args:
        file: the checkpoint.
        objective: as whose model an encoder is read that was tuned for something else: its own head is then new.
        leave: beginnings of names of tensors that stay in the file: heads for which there is no objective here.
        head_width: of attention.
        allow: see `hub/accounting.py`.

    Raises:
        WeightsError: if the file cannot be read, is no BEiT-3, or a tensor is unaccounted for.
    """
    theirs = without(read_checkpoint(file), leave)
    return _model(theirs, file, beit3_config(theirs, objective, head_width=head_width), objective is not None, allow)


def from_state(theirs: Mapping[str, Tensor], file: Path, allow: Sequence[str] = ()) -> Model:
    """`from_torchscale` of tensors that were read already; heads 64 wide."""
    return _model(theirs, file, beit3_config(theirs), False, allow)


def _model(theirs: Mapping[str, Tensor], file: Path, config: Beit3Config, chosen: bool, allow: Sequence[str]) -> Model:
    tokenizer = read_tokenizer(file.parent, config.context)
    if tokenizer is not None:
        config = config.resolve(DataInfo(special=tokenizer.special))
    elif config.vocabulary == _RELEASED_WORDS[0]:
        config = config.resolve(_RELEASED_WORDS[1])
    elif config.objective == "caption":
        raise WeightsError(
            f"{file} has {config.vocabulary} words, which are not the released ones, and there is no tokenizer.json beside it "
            "that tells [MASK] and where texts begin and end"
        )
    method = Beit3(config)
    head = _HEADS[config.objective]
    if chosen and not set(head.values()) & set(theirs):
        theirs = {**theirs, **{their: method.state_dict()[own] for own, their in head.items()}}
    ours, report = theirs_to_ours(theirs, config, str(file), allow)
    assign(method, {**{name: method.state_dict()[name] for name in report.new}, **ours}, str(file))
    # Their pictures are pressed into the square, pixels in [-1, 1].
    view = ViewSpec(size=config.size, crop="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Model(method, Processor(view, tokenizer), report=report)


def to_torchscale(model: Model, file: Path) -> None:
    """Write a `.safetensors` file whose tensors `BEiT3ForRetrieval` or `BEiT3ForCaptioning` takes, and the tokeniser beside it.

    Raises:
        WeightsError: if the model is not of the released form.
    """
    method = model.method
    if not isinstance(method, Beit3):
        raise WeightsError(f"only a BEiT-3 can be written as torchscale's; given {type(method).__name__}")
    config, blocks = method.config, method.config.blocks
    released = MultiwayConfig(
        blocks.width, blocks.layers, blocks.heads, blocks.mlp_ratio, epsilon=1e-5, attention="decoupled", key_bias=True,
        sub_norm=True, drop_path=blocks.drop_path, init_std=blocks.init_std, checkpoint=blocks.checkpoint,
    )  # fmt: skip
    if config.objective == "mdm":
        raise WeightsError(
            "of BEiT-3s those tuned for retrieval or captioning have a counterpart; tune this one first (beit3-retrieval or "
            "beit3-captioning)"
        )
    if (blocks, config.stem, config.embedding or blocks.width) != (released, "patch", blocks.width) or (
        config.objective == "caption" and config.word_head != "linear"
    ):
        raise WeightsError(
            "the released BEiT-3 has attention='decoupled', sub_norm=True, key_bias=True, epsilon=1e-5, GELU, no scaled "
            "layers, no fusion layers, stem='patch', embedding=0 and, to caption, word_head='linear', as in the presets base and "
            "large; this model differs"
        )
    if file.suffix != ".safetensors":
        raise WeightsError(f"{file} does not end in .safetensors, the format that is written; rename it")
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = ours_to_theirs(method.state_dict(), config)
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(apart, str(file), metadata={"format": "pt"})
    write_tokenizer(file.parent, model.processor)
