"""BLIP equals three classes of transformers with random weights, both ways: embeddings, logits, texts."""

from dataclasses import replace

import pytest
import torch
from peer_weights import randomise
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipConfig as TheirConfig
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipImageProcessor,
)

from multiway.abilities import Encoded, LacksAbility
from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.transformers_blip import from_transformers, ours_to_theirs, to_transformers
from multiway.methods.blip import Blip, BlipConfig
from multiway.nn.decoder import SHARING
from multiway.nn.generate import Generation, generate
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

CLASSES = {
    "BlipForImageTextRetrieval": BlipForImageTextRetrieval,
    "BlipForConditionalGeneration": BlipForConditionalGeneration,
    "BlipForQuestionAnswering": BlipForQuestionAnswering,
}
END, PAD, DEC, ENC = 3, 1, 43, 44
OURS = BlipConfig(
    image=VisionConfig(size=16, patch=8, width=32, layers=2, heads=2),
    text=TextConfig(
        45, 20, 32, 2, 2, causal=False, pool="class", norm="post", epsilon=1e-12, embedding_norm=True, cross_width=32
    ),
    end=END,
    pad=PAD,
    embedding=12,
    queue=8,
)


def peer(kind: str) -> torch.nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = TheirConfig(
        text_config={
            **sizes, "vocab_size": 45, "max_position_embeddings": 20, "encoder_hidden_size": 32, "bos_token_id": DEC,
            "sep_token_id": END, "eos_token_id": END, "pad_token_id": PAD,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        image_text_hidden_size=12,
    )  # fmt: skip
    return randomise(CLASSES[kind](config))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, 16, 16, generator=generator)
    ids = torch.randint(4, 43, (3, 7), generator=generator)
    mask = torch.arange(7) < torch.tensor([[7], [4], [5]])
    return pixels, ids.where(mask, torch.tensor(PAD)), mask


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def compare_retrieval(ours: Blip, theirs: BlipForImageTextRetrieval) -> None:
    pixels, ids, mask = inputs()
    image, text = ours.encode_image(pixels), ours.encode_text(ids, mask)
    aligned = theirs(input_ids=ids, pixel_values=pixels, attention_mask=mask.long(), use_itm_head=False)
    close(ours.compare(image, text), aligned.itm_score)
    close(image.tokens, aligned.last_hidden_state)
    close(text.tokens[mask], aligned.question_embeds[mask])
    begun = torch.cat([torch.full((3, 1), ENC), ids[:, 1:]], 1)  # theirs leaves the start token to the caller
    matched = theirs(input_ids=begun, pixel_values=pixels, attention_mask=mask.long())
    close(ours.match(image, text), matched.itm_score[:, 1] - matched.itm_score[:, 0])
    close(ours._match(image.tokens, ids, mask), matched.itm_score)


def compare_captioning(ours: Blip, theirs: BlipForConditionalGeneration) -> None:
    pixels, ids, mask = inputs()
    image = ours.encode_image(pixels)
    begun = torch.cat([torch.full((3, 1), DEC), ids[:, 1:]], 1)
    want = theirs(pixel_values=pixels, input_ids=begun, attention_mask=mask.long()).logits
    close(ours._write(image.tokens, ids, mask), want[:, :-1][mask[:, 1:]])
    scores = ours.caption_likelihood(image, ids, mask)
    logp = want[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    close(scores.logp[:, 1:], logp * mask[:, 1:])
    for how, options in (
        (Generation(max_length=12), {}),
        (Generation("beam", max_length=12, min_length=5, beams=3), {"num_beams": 3, "min_length": 5}),
        (Generation(max_length=12, repetition_penalty=1.5), {"repetition_penalty": 1.5}),
    ):
        want = theirs.generate(pixel_values=pixels, max_length=12, do_sample=False, **options)
        got = ours.generate(image, how)
        assert got.ids.tolist() == want.tolist()
    # A prompt. Theirs drops a prompt's last token, taking it for the end token.
    prompts = torch.tensor([[DEC, 7, 9], [DEC, 20, 5], [DEC, 7, 7]])
    want = theirs.generate(
        pixel_values=pixels, input_ids=torch.cat([prompts, torch.full((3, 1), END)], 1), max_length=11, do_sample=False
    )
    assert ours.generate(image, Generation(max_length=11), prompts).ids.tolist() == want.tolist()


def compare_answering(ours: Blip, theirs: BlipForQuestionAnswering) -> None:
    """The question read with the picture, then the answer written over the question's states."""
    pixels, ids, mask = inputs()
    image = ours.encode_image(pixels)
    question = ours.student.text(ids, mask, image.tokens).tokens
    peers = theirs.text_encoder(input_ids=ids, attention_mask=mask.long(), encoder_hidden_states=image.tokens)
    close(question[mask], peers.last_hidden_state[mask])
    answer = torch.tensor([[DEC, 8, 9, END], [DEC, 5, END, PAD], [DEC, 30, 31, 32]])
    logits = ours.decoder.guess(ours.student.text, ours.decoder(ours.student.text, answer, question, mask))
    for row, length in enumerate(mask.sum(1).tolist()):
        # Row by row: 5.23 lets its cross-attention look at the memory's padding, whatever mask it is given.
        memory = question[row : row + 1, :length]
        want = theirs.text_decoder(input_ids=answer[row : row + 1], encoder_hidden_states=memory, is_decoder=True)
        close(logits[row], want.logits[0])
    # For the same reason questions of equal length.
    ids = ids[:, :4]
    question = ours.student.text(ids, None, image.tokens).tokens
    writing = ours.writing(Encoded(question[:, 0], question))
    got = generate(writing.decoding, torch.full((3, 1), DEC), Generation(max_length=9), end=END, pad=PAD)
    want = theirs.generate(input_ids=ids, pixel_values=pixels, max_length=9, do_sample=False)
    assert got.ids.tolist() == want.tolist()


COMPARE = dict(zip(CLASSES, (compare_retrieval, compare_captioning, compare_answering), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("kind", CLASSES)
def test_theirs_as_ours_and_back(kind: str, tmp_path) -> None:
    theirs = peer(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load(f"hf:{tmp_path / 'theirs'}")
    COMPARE[kind](model.method, theirs)
    back = ours_to_theirs(model.method, kind)
    state = theirs.state_dict()
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


@torch.no_grad()
@pytest.mark.parametrize("sharing", [*SHARING, "none"])
def test_ours_as_each_of_theirs(sharing: str, tmp_path) -> None:
    """However the modes share: one model of ours, three of theirs."""
    torch.manual_seed(0)
    method = randomise(Blip(replace(OURS, sharing=sharing)))
    model = Model(method, Processor(ViewSpec(size=16, crop="squash")))
    for kind, cls in CLASSES.items():
        to_transformers(model, tmp_path / kind, kind)
        theirs, report = cls.from_pretrained(tmp_path / kind, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"], report
        COMPARE[kind](method, theirs.eval())


def test_a_checkpoint_is_able_to_do_what_it_has_weights_for(tmp_path) -> None:
    able = {
        "BlipForImageTextRetrieval": {"encode_image", "encode_text", "compare", "match", "match_with_maps", "fuse"},
        "BlipForConditionalGeneration": {"encode_image", "caption_likelihood", "generate"},
        "BlipForQuestionAnswering": {"encode_image"},
    }
    for kind in CLASSES:
        peer(kind).save_pretrained(tmp_path / kind)
        model = from_transformers(str(tmp_path / kind))
        assert set(model.abilities()) == able[kind]
    with pytest.raises(LacksAbility, match="generate"):
        model.generate(Encoded(torch.zeros(1, 12), torch.zeros(1, 5, 32)))


def test_pixels_and_tokeniser_come_along(tmp_path) -> None:
    words = Tokenizer.train(["a red apple", "a green pear on a plate"], TokenizerSpec(300, 20))
    text = replace(OURS.text, vocabulary=len(words) + 2)
    torch.manual_seed(0)
    model = Model(Blip(replace(OURS, text=text)), Processor(ViewSpec(size=16, crop="squash"), words))
    to_transformers(model, tmp_path / "out", "BlipForImageTextRetrieval")
    again = from_transformers(str(tmp_path / "out"))
    assert again.processor.texts(["a red pear"]).ids.tolist() == words(["a red pear"]).ids.tolist()
    picture = Image.effect_noise((40, 24), 60).convert("RGB")
    theirs = BlipImageProcessor.from_pretrained(tmp_path / "out")(images=picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(again.processor.images([picture]), theirs, atol=1e-5, rtol=1e-5)


def test_nothing_is_left_over_or_missing(tmp_path) -> None:
    peer("BlipForConditionalGeneration").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for change, message in (
        ({"surplus.weight": torch.zeros(1)}, "surplus.weight"),
        ({"text_decoder.cls.predictions.bias": None}, "lacks the tensor text_decoder.cls.predictions.bias"),
        ({"text_decoder.cls.predictions.decoder.weight": torch.zeros(45, 32)}, "tied"),
    ):
        save_file({n: t for n, t in {**tensors, **change}.items() if t is not None}, file, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=message):
            from_transformers(str(tmp_path))


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    processor = Processor(ViewSpec(size=16))
    conv = Blip(replace(OURS, image=replace(OURS.image, stem="conv")))
    with pytest.raises(WeightsError, match="stem"):
        to_transformers(Model(conv, processor), tmp_path)
    reads = Blip(replace(OURS, lacks=("generate",)))
    with pytest.raises(WeightsError, match="lacks"):
        to_transformers(Model(reads, processor), tmp_path, "BlipForConditionalGeneration")


@torch.no_grad()
def test_a_model_writes_words_for_each_picture_and_prompt() -> None:
    """Strings out; the same with pictures one at a time; prompts of different lengths are gone on from."""
    words = Tokenizer.train(["a red apple", "a green pear on a plate"], TokenizerSpec(300, 20))
    text = replace(OURS.text, vocabulary=len(words) + 2)
    special = {"end": words.special["eos"], "pad": words.special["pad"]}
    model = Model(randomise(Blip(replace(OURS, text=text, **special))), Processor(ViewSpec(size=16), words), batch=2)
    pictures = [Image.effect_noise((16, 16), 20 * seed).convert("RGB") for seed in range(1, 4)]
    encoded = model.encode_image(pictures, tokens=True)
    how = Generation("beam", max_length=9, texts=2)
    captions = model.generate(encoded, how)
    assert [len(each) for each in captions] == [2, 2, 2]
    assert captions[2] == model.generate(encoded.rows(torch.tensor([2])), how)[0]
    begun = model.generate(encoded, Generation(max_length=9), prompts=["a red", "a", "a green pear"])
    # What an untrained model goes on with may be bytes without a space before them.
    assert [begun[row][0].startswith(text) for row, text in enumerate(("a red", "a", "a green pear"))] == [True] * 3
    with pytest.raises(ValueError, match="3 pictures"):
        model.generate(encoded, prompts=["a"])
    told = model.caption_likelihood(encoded, *(lambda t: (t.ids, t.mask))(words(["a red apple"] * 3)))
    assert told.logp.shape == told.best.shape == (3, words(["a red apple"]).ids.shape[1])
