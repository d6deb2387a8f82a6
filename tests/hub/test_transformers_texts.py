"""BERT, RoBERTa and Chinese CLIP equal transformers' with random weights, both ways; and towers that load by themselves."""

from pathlib import Path

import pytest
import torch
import transformers as theirs_all
from hub.vit_peers import nothing_unaccounted, opened, pictures, same_state
from peer_weights import randomise
from torch import nn

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.layouts import to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.transformers_bert import bert_config, table
from multiway.hub.transformers_bert import to_transformers as bert_to_transformers
from multiway.methods.bert import Bert, BertConfig
from multiway.nn.text import TextConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 49, "vocab_size": 60}
PLAIN = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES = {
    "bert": {"max_position_embeddings": 12, "type_vocab_size": 2},
    "roberta": {"max_position_embeddings": 14, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
}
NAMES = {"bert": "Bert", "roberta": "Roberta"}
CAPTIONS = ["a red apple", "a green pear on a plate", "seven blue cups"]


def made(family: str, head: str) -> nn.Module:
    config = getattr(theirs_all, f"{NAMES[family]}Config")(**SIZES, **FAMILIES[family])
    theirs = getattr(theirs_all, f"{NAMES[family]}{head}")(config)
    randomise(theirs)
    theirs.tie_weights()
    return theirs.eval()


def words() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids above all special ones, rows of different lengths; 1 is RoBERTa's padding."""
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    return ids.masked_fill(~mask, 1), mask


@torch.no_grad()
def same_words(ours: Bert, theirs: nn.Module) -> None:
    ids, mask = words()
    found = theirs(input_ids=ids, attention_mask=mask.long())
    if "logits" in found:
        assert (
            ours.fill_mask(None, ids, mask, mask) - found.logits[mask]
        ).abs().max() < 1e-5 * found.logits.abs().max()
        return
    got = ours.encode_text(ids, mask).tokens
    assert (got - found.last_hidden_state)[mask].abs().max() < 1e-5 and found.last_hidden_state.std(0).max() > 0.1


@pytest.mark.parametrize("head", ["ForMaskedLM", "Model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folders_are_read_and_written(family: str, head: str, tmp_path: Path) -> None:
    theirs = made(family, head)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(f"hf:{tmp_path / 'theirs'}")
    same_words(ours.method, theirs)
    assert ("fill_mask" in ours.abilities()) is (head == "ForMaskedLM")
    bert_to_transformers(ours, tmp_path / "ours", NAMES[family] + head)
    more = {} if head == "ForMaskedLM" else {"add_pooling_layer": False}
    same_words(ours.method, opened(type(theirs), tmp_path / "ours", **more))
    same_state(load(f"hf:{tmp_path / 'ours'}").method.state_dict(), ours.method.state_dict())


def test_the_release_has_a_pooler_and_next_sentences_which_are_left_and_named(tmp_path: Path, caplog) -> None:
    theirs = made("bert", "ForPreTraining")
    theirs.save_pretrained(tmp_path)
    ours = load(f"hf:{tmp_path}")
    ids, mask = words()
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask.long()).prediction_logits[mask]
        assert (ours.method.fill_mask(None, ids, mask, mask) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert "bert.pooler.dense.bias" in caplog.text and "cls.seq_relationship.bias" in caplog.text
    assert {"a classifier of next sentences", "a linear map and tanh on the first token"} <= set(ours.report.aside)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_over_or_missing_in_silence(family: str) -> None:
    theirs = made(family, "ForMaskedLM")
    ours = Bert(bert_config(theirs.config.to_dict()))
    tied = ("decoder.weight", "decoder.bias")  # written twice; either may be there alone
    nothing_unaccounted(table(family), ours, {n: t for n, t in theirs.state_dict().items() if not n.endswith(tied)})


@torch.no_grad()
def test_a_bert_trained_here_is_theirs(tmp_path: Path) -> None:
    """From strings."""
    tokenizer = Tokenizer.train(CAPTIONS * 3, TokenizerSpec(300, 12))
    text = TextConfig(
        len(tokenizer),
        12,
        32,
        2,
        2,
        causal=False,
        pool="class",
        norm="post",
        epsilon=1e-12,
        types=2,
        embedding_norm=True,
    )
    model = Model(randomise(Bert(BertConfig(text))), Processor(ViewSpec(), tokenizer))
    to_transformers(model, tmp_path / "bert")
    theirs = opened(theirs_all.BertForMaskedLM, tmp_path / "bert")
    tokens = theirs_all.PreTrainedTokenizerFast.from_pretrained(tmp_path / "bert")(
        CAPTIONS, padding=True, return_tensors="pt"
    )
    found = theirs(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
    ours = model.processor.texts(CAPTIONS)
    assert torch.equal(ours.ids, tokens["input_ids"])
    wanted = found[ours.mask]
    assert (model.fill_mask(None, ours.ids, ours.mask, ours.mask) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    plain = Bert(BertConfig().resolve(DataInfo(vocabulary=9, context=4)))
    with pytest.raises(WeightsError, match=r"--method\.text\.norm post"):
        to_transformers(Model(plain, model.processor), tmp_path / "x")


def chinese() -> nn.Module:
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 49}
    config = theirs_all.ChineseCLIPConfig(
        text_config={**shared, **FAMILIES["bert"], "vocab_size": 60, **PLAIN},
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        projection_dim=20,
    )
    return randomise(theirs_all.ChineseCLIPModel(config)).eval()


@torch.no_grad()
def test_chinese_clip_both_ways(tmp_path: Path) -> None:
    theirs = chinese()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(f"hf:{tmp_path / 'theirs'}")
    ids, mask = words()
    for model in (theirs, None):
        if model is None:
            to_transformers(ours, tmp_path / "ours")
            model = opened(theirs_all.ChineseCLIPModel, tmp_path / "ours")
        found = model(input_ids=ids, attention_mask=mask.long(), pixel_values=pictures())
        assert (ours.method.encode_image(pictures()).embedding - found.image_embeds).abs().max() < 1e-5
        assert (ours.method.encode_text(ids, mask).embedding - found.text_embeds).abs().max() < 1e-5
        assert found.text_embeds.std(0).max() > 0.05
    same_state(load(f"hf:{tmp_path / 'ours'}").method.state_dict(), ours.method.state_dict())


def whole(kind: str) -> nn.Module:
    shared = {**SIZES, **PLAIN}
    picture = {key: each for key, each in shared.items() if key != "vocab_size"} | {"image_size": 32, "patch_size": 8}
    if kind == "flava":
        text = {**shared, "max_position_embeddings": 12}
        config = theirs_all.FlavaConfig(
            image_config=picture, text_config=text, multimodal_config=picture, projection_dim=6
        )
        return randomise(theirs_all.FlavaModel(config)).eval()
    if kind == "align":
        config = theirs_all.AlignConfig(
            text_config={**shared, **FAMILIES["bert"]},
            vision_config={"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1},
        )
        return randomise(theirs_all.AlignModel(config)).eval()
    if kind == "bridgetower":
        config = theirs_all.BridgeTowerConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=49,
            text_config={**shared, **FAMILIES["roberta"]},
            vision_config={"hidden_size": 64, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        )  # fmt: skip
        return randomise(theirs_all.BridgeTowerModel(config)).eval()
    return chinese()


def picture_tokens(kind: str, theirs: nn.Module) -> torch.Tensor:
    if kind == "bridgetower":
        return theirs.vision_model(pictures())[-1]
    tower = theirs.image_model if kind == "flava" else theirs.vision_model
    found = tower(pixel_values=pictures()).last_hidden_state
    return found if kind == "flava" else tower.post_layernorm(found)


@pytest.mark.parametrize("kind", ["flava", "align", "bridgetower", "chinese_clip"])
@torch.no_grad()
def test_parts_load_by_themselves(kind: str, tmp_path: Path, caplog) -> None:
    theirs = whole(kind)
    theirs.save_pretrained(tmp_path)
    ids, mask = words()
    text = load(f"hf:{tmp_path}#text")
    wanted = theirs.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert (text.method.encode_text(ids, mask).tokens - wanted)[mask].abs().max() < 1e-5
    assert "of other parts" in text.report.aside and "fill_mask" not in text.abilities()
    if kind == "align":
        with pytest.raises(WeightsError, match=r"'align' there is no part 'image'.*flava#image"):
            load(f"hf:{tmp_path}#image")
    else:
        image, wanted = load(f"hf:{tmp_path}#image"), picture_tokens(kind, theirs)
        assert (image.method.encode_image(pictures()).tokens - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())
        assert image.name == "picture-encoder"
    if kind != "chinese_clip":
        with pytest.raises(WeightsError, match=rf"'{kind}', which is no method here; of its parts load .*#text"):
            load(f"hf:{tmp_path}")
