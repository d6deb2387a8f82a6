"""Folders as `transformers` writes them, of every family that is read: a small model with random tensors, its processor, its tokeniser.

And what theirs and ours say of the same pictures and strings, each prepared by its own processor.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as peers
from peer_weights import randomise
from PIL import Image
from tokenizers import Tokenizer as Backend
from tokenizers import trainers
from torch import Tensor, nn
from torch.nn.functional import normalize

from multiway.hub.model import Model

__all__ = ["FAMILIES", "TEXTS", "Family", "pictures", "tokeniser"]

TEXTS = ["a red apple", "A Green pear, on a plate!", "seven blue cups"]
CONTEXT = 12
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GRID = {**SIZES, "image_size": 32, "patch_size": 8}
WORDS = {**SIZES, **STILL, "vocab_size": 300, "max_position_embeddings": CONTEXT, "type_vocab_size": 2}
ROBERTA = {**WORDS, "max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
CLIP_WORDS = {**SIZES, "vocab_size": 300, "max_position_embeddings": CONTEXT, "eos_token_id": 3}
CUT = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
SQUEEZED = {"size": {"height": 32, "width": 32}}

Said = dict[str, Tensor]


@cache
def tokeniser(kind: str) -> Any:
    """One of theirs with the special tokens of its family (`bert`, `roberta`, `clip`), trained on `TEXTS`."""
    made, special = {
        "bert": (peers.BertTokenizer, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        "roberta": (peers.RobertaTokenizer, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
        "clip": (peers.CLIPTokenizer, ["<|pad|>", "<|unk|>", "<|startoftext|>", "<|endoftext|>"]),
    }[kind]
    learnt = Backend.from_str(made().backend_tokenizer.to_str())
    trainer = trainers.WordPieceTrainer if kind == "bert" else trainers.BpeTrainer
    suffix = {"end_of_word_suffix": "</w>"} if kind == "clip" else {}
    learnt.train_from_iterator(TEXTS, trainer(vocab_size=300, special_tokens=special, show_progress=False, **suffix))
    model = json.loads(learnt.to_str())["model"]
    merges = {} if kind == "bert" else {"merges": [tuple(each) for each in model["merges"]]}
    return made(vocab=model["vocab"], **merges)


def pictures(square: bool = False) -> list[Image.Image]:
    """Three of them, of noise; of several shapes, unless all are to be square."""
    shapes = [(50, 50), (61, 61), (40, 40)] if square else [(50, 71), (83, 45), (33, 40)]
    made = [
        np.random.default_rng(row).integers(0, 256, (*shape, 3), dtype=np.uint8) for row, shape in enumerate(shapes)
    ]
    return [Image.fromarray(each) for each in made]


@dataclass(frozen=True)
class Family:
    """A class of theirs.

    Attributes:
        model: makes it, tensors at random.
        ask: what it says of pixels and of token ids with their mask.
        tell: what ours says of pictures and strings, under the same names.
        processor: theirs for pictures; None for what reads none.
        words: which tokeniser, if it reads texts.
        square: whether pictures have to be square for both to draw them alike.
        part: of the model, to be loaded by itself.
        filled: whether texts are filled up to the context.
        kind: of theirs that it is written as, where it is not the first that fits.
    """

    model: Callable[[], nn.Module]
    ask: Callable[[Any, Tensor | None, Any], Said]
    tell: Callable[[Model, list[Image.Image], list[str]], Said]
    processor: Callable[[], Any] | None = None
    words: str = ""
    square: bool = False
    part: str = ""
    filled: bool = False
    kind: str = ""

    def save(self, folder: Path, theirs: nn.Module | None = None) -> nn.Module:
        """The folder, as their `save_pretrained` writes it; returns the model."""
        theirs = theirs or self.model()
        theirs.save_pretrained(folder)  # type: ignore[operator]
        for each in (self.processor and self.processor(), self.words and tokeniser(self.words)):
            if each:
                each.save_pretrained(folder)
        return theirs

    def theirs(self, theirs: nn.Module, folder: Path | None = None) -> Said:
        """What theirs says, of pixels and ids by its own processor and tokeniser, or those that it finds in a folder."""
        draw, read = self.processor and self.processor(), tokeniser(self.words) if self.words else None
        if folder:
            draw = draw and peers.AutoImageProcessor.from_pretrained(folder, backend="pil")
            read = read and peers.PreTrainedTokenizerFast.from_pretrained(folder)
        pixels = draw(pictures(self.square), return_tensors="pt")["pixel_values"] if draw else None
        how = {"padding": "max_length", "max_length": CONTEXT} if self.filled else {"padding": True}
        ids = read(TEXTS, **how, return_tensors="pt") if read else None
        with torch.no_grad():
            return self.ask(theirs, pixels, ids)

    def ours(self, model: Model) -> Said:
        """What ours says, of pictures and strings."""
        return self.tell(model, pictures(self.square), TEXTS)


def made(kind: str, config: Any) -> Callable[[], nn.Module]:
    """A class of theirs with every tensor at random; statistics of batch norms too."""
    return lambda: randomise(getattr(peers, kind)(config()))


def drawing(kind: str, **options: Any) -> Callable[[], Any]:
    """A processor of theirs that draws by Pillow, as ours."""
    return lambda: getattr(peers, f"{kind}Pil")(**options)


# What is asked.


def by_two(theirs: Any, pixels: Any, ids: Any) -> Said:
    found = theirs(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=pixels)
    return {"image": found.image_embeds, "text": found.text_embeds}


def embeddings(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
    return {"image": model.encode_image(images).embedding, "text": model.encode_text(texts).embedding}


def class_vector(theirs: Any, pixels: Any, ids: Any) -> Said:
    return {"image": normalize(theirs(pixels).last_hidden_state[:, 0], dim=1)}


def pooled_vector(theirs: Any, pixels: Any, ids: Any) -> Said:
    return {"image": normalize(theirs(pixels).pooler_output.flatten(1), dim=1)}


def of_pictures(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
    return {"image": model.encode_image(images).embedding}


def word_logits(theirs: Any, pixels: Any, ids: Any) -> Said:
    return {"words": theirs(**{n: ids[n] for n in ("input_ids", "attention_mask")}).logits[ids["attention_mask"] > 0]}


def guessed(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
    read = model.processor.texts(texts)
    return {"words": model.method.fill_mask(None, read.ids, read.mask, read.mask)}  # type: ignore[operator]


def tokens_of(part: str) -> Callable[[Any, Any, Any], Said]:
    """Tokens of texts by a tower."""

    def ask(theirs: Any, pixels: Any, ids: Any) -> Said:
        tower = getattr(theirs, part) if part else theirs
        found = tower(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state
        return {"tokens": found[ids["attention_mask"] > 0]}

    return ask


def read_tokens(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
    read = model.processor.texts(texts)
    return {"tokens": model.method.encode_text(read.ids, read.mask).tokens[read.mask]}  # type: ignore[operator]


def picture_tokens(ask: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any, Any], Said]:
    return lambda theirs, pixels, ids: {"tokens": ask(theirs, pixels)}


def shown_tokens(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
    return {"tokens": model.method.encode_image(model.processor.images(images)).tokens}  # type: ignore[operator]


def vilt(what: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any, Any], Said]:
    def ask(theirs: Any, pixels: Any, ids: Any) -> Said:
        mask = torch.ones(len(pixels), *pixels.shape[-2:], dtype=torch.int64)
        given = {n: ids[n] for n in ("input_ids", "attention_mask")}
        return {"pair": what(theirs(**given, pixel_values=pixels, pixel_mask=mask), ids)}

    return ask


def vilt_judges(theirs: Any, pixels: Any, ids: Any) -> Said:
    """Two pictures with each text: it, and that of the text from the other end."""
    both = torch.stack([pixels, pixels.flip(0)], 1)
    mask = torch.ones(len(both), 2, *both.shape[-2:], dtype=torch.int64)
    given = {n: ids[n] for n in ("input_ids", "attention_mask")}
    return {"pair": theirs(**given, pixel_values=both, pixel_mask=mask).logits}


def pairs(how: Callable[[Any, Any, Any, Any], Tensor]) -> Callable[..., Said]:
    """Of a method, of encoded pictures and texts, and of the texts' tokens."""

    def tell(model: Model, images: list[Image.Image], texts: list[str]) -> Said:
        read = model.processor.texts(texts)
        image = model.method.encode_image(model.processor.images(images))  # type: ignore[operator]
        text = model.method.encode_text(read.ids, read.mask) if hasattr(model.method, "encode_text") else None  # type: ignore[operator]
        return {"pair": how(model.method, image, text, read)}

    return tell


# The families.


def clip_config(kind: str) -> Callable[[], Any]:
    words = ROBERTA if kind == "Roberta" else {**WORDS, "pad_token_id": 0} if kind == "ChineseCLIP" else CLIP_WORDS
    return lambda: getattr(peers, f"{kind}Config")(text_config=words, vision_config=GRID, projection_dim=20)


def siglip_config(size: int = 32) -> Any:
    words = {**SIZES, "vocab_size": 300, "max_position_embeddings": CONTEXT, "projection_size": 32, "pad_token_id": 1}
    return peers.SiglipConfig(text_config=words, vision_config=GRID | {"image_size": size})


def siglip(theirs: Any, pixels: Any, ids: Any) -> Said:
    found = theirs(input_ids=ids["input_ids"], pixel_values=pixels)  # no mask
    return {"image": found.image_embeds, "text": found.text_embeds}


def blip_config() -> Any:
    words = {**SIZES, **STILL, "vocab_size": 302, "max_position_embeddings": CONTEXT, "encoder_hidden_size": 32,
             "bos_token_id": 300, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}  # fmt: skip
    return peers.BlipConfig(text_config=words, vision_config=GRID, image_text_hidden_size=12)


def blip_matches(theirs: Any, pixels: Any, ids: Any) -> Said:
    begun = torch.cat([torch.full((3, 1), 301), ids["input_ids"][:, 1:]], 1)
    found = theirs(input_ids=begun, attention_mask=ids["attention_mask"], pixel_values=pixels).itm_score
    return {"pair": found[:, 1] - found[:, 0]}


def blip_writes(theirs: Any, pixels: Any, ids: Any) -> Said:
    begun, mask = torch.cat([torch.full((3, 1), 300), ids["input_ids"][:, 1:]], 1), ids["attention_mask"]
    logits = theirs(pixel_values=pixels, input_ids=begun, attention_mask=mask).logits
    told = logits[:, :-1].log_softmax(-1).gather(2, begun[:, 1:, None])[..., 0]
    return {"pair": told * mask[:, 1:]}


def blip_reads(theirs: Any, pixels: Any, ids: Any) -> Said:
    seen = theirs.vision_model(pixel_values=pixels).last_hidden_state
    mask = ids["attention_mask"]
    found = theirs.text_encoder(input_ids=ids["input_ids"], attention_mask=mask, encoder_hidden_states=seen)
    return {"pair": found.last_hidden_state[mask > 0]}


def mae_config() -> Any:
    decoder = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 3}
    return peers.ViTMAEConfig(**GRID, **decoder, decoder_intermediate_size=40, mask_ratio=0.0)


def mae_tokens(theirs: Any, pixels: Any) -> Tensor:
    theirs.vit.config.mask_ratio = 0.0  # which no model of ours has: it is of the training
    return theirs.vit(pixels, noise=torch.arange(16.0).expand(len(pixels), -1)).last_hidden_state  # type: ignore[no-any-return]


def flava_config() -> Any:
    return peers.FlavaConfig(image_config=GRID, text_config=WORDS, multimodal_config=SIZES, projection_dim=6)


def align_config() -> Any:
    eyes = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1}
    return peers.AlignConfig(text_config=WORDS, vision_config=eyes)


def bridge_config() -> Any:
    cross = {**SIZES, "num_hidden_layers": 1}
    return peers.BridgeTowerConfig(**cross, text_config=ROBERTA, vision_config={**GRID, "hidden_size": 64})


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUEEZES = drawing("ViTImageProcessor", **SQUEEZED)
CUTS = drawing("BitImageProcessor", **CUT)
ROUNDS = drawing("BridgeTowerImageProcessor", size={"shortest_edge": 32}, crop_size={"shortest_edge": 32})
LETTERS = drawing("FlavaImageProcessor", **SQUEEZED, crop_size={"height": 32, "width": 32})


def vilt_of(kind: str, ask: Any, tell: Any, **more: Any) -> Family:
    draw = drawing("ViltImageProcessor", size={"shortest_edge": 32}, size_divisor=8)
    config = {**GRID, **WORDS, **more}
    return Family(made(kind, lambda: peers.ViltConfig(**config)), ask, tell, draw, "bert", square=True)


def of_pictures_alone(kind: str, more: dict[str, Any], ask: Any = class_vector, draw: Any = SQUEEZES) -> Family:
    config = getattr(peers, f"{kind.replace('Model', '')}Config")
    return Family(made(kind, lambda: config(**more)), ask, of_pictures, draw)


FAMILIES: dict[str, Family] = {
    "clip": Family(made("CLIPModel", clip_config("CLIP")), by_two, embeddings, drawing("CLIPImageProcessor", **CUT), "clip"),
    "chinese_clip": Family(
        made("ChineseCLIPModel", clip_config("ChineseCLIP")), by_two, embeddings,
        drawing("ChineseCLIPImageProcessor", size={"height": 32, "width": 32}, do_center_crop=False), "bert",
    ),
    "siglip": Family(made("SiglipModel", siglip_config), siglip, embeddings, drawing("SiglipImageProcessor", **SQUEEZED), "clip", filled=True),
    "siglip edges": Family(
        made("SiglipModel", lambda: siglip_config(38)), siglip, embeddings,
        drawing("SiglipImageProcessor", **SQUEEZED | {"size": {"height": 38, "width": 38}}), "clip", filled=True,
    ),
    "vilt": vilt_of("ViltModel", vilt(lambda out, _: out.pooler_output), pairs(lambda of, i, t, _: of.fuse(i, t).pooled)),
    "vilt words": vilt_of(
        "ViltForMaskedLM",
        vilt(lambda out, ids: out.logits[:, : ids["input_ids"].shape[1]][ids["attention_mask"] > 0]),
        pairs(lambda of, i, _, read: of.fill_mask(i, read.ids, read.mask, read.mask)),
    ),
    "vilt retrieval": vilt_of(
        "ViltForImageAndTextRetrieval", vilt(lambda out, _: out.logits[:, 0]), pairs(lambda of, i, t, _: of.match(i, t))
    ),
    "vilt answers": vilt_of(
        "ViltForQuestionAnswering", vilt(lambda out, _: out.logits), pairs(lambda of, i, t, _: of.answer(i, t)),
        num_labels=5,
    ),
    "vilt verdicts": vilt_of(
        "ViltForImagesAndTextClassification", vilt_judges,
        pairs(lambda of, i, t, _: of.judge([i, i.rows(torch.tensor([2, 1, 0]))], t)),
        num_images=2, modality_type_vocab_size=3,
    ),
    "blip retrieval": Family(
        made("BlipForImageTextRetrieval", blip_config), blip_matches, pairs(lambda of, i, t, _: of.match(i, t)),
        drawing("BlipImageProcessor", **SQUEEZED), "bert",
    ),
    "blip captioning": Family(
        made("BlipForConditionalGeneration", blip_config), blip_writes,
        pairs(lambda of, i, _, read: of.caption_likelihood(i, read.ids, read.mask).logp[:, 1:]),
        drawing("BlipImageProcessor", **SQUEEZED), "bert",
    ),
    "blip answers": Family(
        made("BlipForQuestionAnswering", blip_config), blip_reads,
        pairs(lambda of, i, _, read: of.student.text(read.ids, read.mask, i.tokens).tokens[read.mask]),
        drawing("BlipImageProcessor", **SQUEEZED), "bert",
    ),
    "bert": Family(made("BertForMaskedLM", lambda: peers.BertConfig(**WORDS)), word_logits, guessed, words="bert"),
    "bert encoder": Family(made("BertModel", lambda: peers.BertConfig(**WORDS)), tokens_of(""), read_tokens, words="bert"),
    "roberta": Family(made("RobertaForMaskedLM", lambda: peers.RobertaConfig(**ROBERTA)), word_logits, guessed, words="roberta", kind="RobertaForMaskedLM"),
    "vit": of_pictures_alone("ViTModel", {**GRID, "layer_norm_eps": 1e-3}),
    "deit": of_pictures_alone("DeiTModel", GRID, draw=CUTS),
    "dinov2": of_pictures_alone("Dinov2Model", {**GRID, "mlp_ratio": 2}, draw=CUTS),
    "dinov2_with_registers": of_pictures_alone("Dinov2WithRegistersModel", {**GRID, "mlp_ratio": 2}, draw=CUTS),
    "beit": of_pictures_alone("BeitModel", {**GRID, "use_relative_position_bias": True}, pooled_vector,
                              drawing("BeitImageProcessor", **SQUEEZED, do_center_crop=False)),
    "resnet": of_pictures_alone(
        "ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}, pooled_vector,
        drawing("ConvNextImageProcessor", size={"shortest_edge": 32}, crop_pct=0.875),
    ),
    "swin": of_pictures_alone(
        "SwinModel", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        pooled_vector,
    ),
    "convnext": of_pictures_alone(
        "ConvNextModel", {"hidden_sizes": [8, 16, 32], "depths": [1, 2, 1], "num_stages": 3}, pooled_vector,
        drawing("ConvNextImageProcessor", size={"shortest_edge": 32}, crop_pct=0.875),
    ),
    "vit_mae": Family(made("ViTMAEForPreTraining", mae_config), picture_tokens(mae_tokens), shown_tokens, SQUEEZES),
    "flava image": Family(
        made("FlavaModel", flava_config), picture_tokens(lambda of, pixels: of.image_model(pixels).last_hidden_state),
        shown_tokens, LETTERS, "bert", part="image",
    ),
    "flava text": Family(made("FlavaModel", flava_config), tokens_of("text_model"), read_tokens, LETTERS, "bert", part="text"),
    "align text": Family(
        made("AlignModel", align_config), tokens_of("text_model"), read_tokens,
        drawing("EfficientNetImageProcessor", **SQUEEZED), "bert", part="text",
    ),
    "bridgetower image": Family(
        made("BridgeTowerModel", bridge_config), picture_tokens(lambda of, pixels: of.vision_model(pixels)[-1]), shown_tokens,
        ROUNDS, "roberta", square=True, part="image",
    ),
    "bridgetower text": Family(
        made("BridgeTowerModel", bridge_config), tokens_of("text_model"), read_tokens, ROUNDS, "roberta", square=True, part="text"
    ),
    "clip image": Family(
        made("CLIPModel", clip_config("CLIP")), picture_tokens(lambda of, pixels: normed(of, pixels)), shown_tokens,
        drawing("CLIPImageProcessor", **CUT), "clip", part="image",
    ),
    "chinese_clip image": Family(
        made("ChineseCLIPModel", clip_config("ChineseCLIP")), picture_tokens(lambda of, pixels: normed(of, pixels)), shown_tokens,
        drawing("ChineseCLIPImageProcessor", **CUT), "bert", part="image",
    ),
    "chinese_clip text": Family(
        made("ChineseCLIPModel", clip_config("ChineseCLIP")), tokens_of("text_model"), read_tokens,
        drawing("ChineseCLIPImageProcessor", **CUT), "bert", part="text",
    ),
}  # fmt: skip


def normed(theirs: Any, pixels: Tensor) -> Tensor:
    """CLIP's patches behind its last norm, which theirs puts on the class token alone."""
    found = theirs.vision_model(pixels).last_hidden_state
    return theirs.vision_model.post_layernorm(found)  # type: ignore[no-any-return]
