"""`fuse`, in every method that has it: what its vector is, and what changes it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multiway_batches import INFO, WORDS, toy_batch
from peer_weights import randomise
from torch import Tensor

from multiway.abilities import Encoded, Fused, Fuses, LacksAbility, abilities_of, reader
from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.blip import Blip, BlipConfig
from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.gpt import Gpt, GptConfig
from multiway.methods.meter import Meter, MeterConfig
from multiway.methods.method import Method
from multiway.methods.simvlm import Simvlm, SimvlmConfig
from multiway.methods.vilt import Vilt, ViltConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.pool import last_positions
from multiway.nn.text import TextConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig

VISION = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2)
READER = TextConfig(width=32, layers=2, heads=2, causal=False, pool="class")
WRITER = TextConfig(width=32, layers=2, heads=2, causal=True, pool="last")
BLOCKS = MultiwayConfig(width=32, layers=3, heads=2, fusion_layers=1)
CODES = VisualTokeniserConfig(VisionConfig(size=16, patch=4, width=16, layers=1, heads=2), codes=7, code_width=6)
BEIT3 = Beit3Config(blocks=replace(BLOCKS, key_bias=True), size=16, patch=4, stem="patch", tokeniser=CODES)
RELEASED = MultiwayConfig(32, 3, 2, attention="decoupled", key_bias=True, sub_norm=True)
METER = MeterConfig(image=VISION, text=READER, fusion_layers=2, width=32, heads=2)
COCA = CocaConfig(
    image=replace(VISION, pool="mean"), text=WRITER, multimodal_layers=2, queries=6, pooler_heads=2, embedding=20
)
BLIP = BlipConfig(image=VISION, text=replace(READER, cross_width=24), embedding=20, queue=16)
VLMO = VlmoConfig(blocks=BLOCKS, size=16, patch=4, stem="patch", embedding=20)


@dataclass(frozen=True)
class Case:
    """A method, the width of what it gives, and what it makes of two pictures."""

    method: type[Method]
    config: Any
    width: int = 32
    ordered: bool = False  # whether the order of two pictures matters


SEEING = {
    "albef": Case(Albef, AlbefConfig(image=VISION, text=READER, embedding=20, queue=16)),
    "blip": Case(Blip, BLIP),
    "vilt": Case(Vilt, ViltConfig(size=16, patch=4, width=32, layers=2, heads=2, answers=("yes", "no", "two"))),
    "meter": Case(Meter, METER, 64, ordered=True),
    "meter-merged": Case(Meter, replace(METER, fusion="merged"), 64, ordered=True),
    "vlmo": Case(Vlmo, VLMO),
    "vlmo-without-fusion-experts": Case(Vlmo, replace(VLMO, blocks=replace(BLOCKS, fusion_layers=0))),
    "beit3": Case(Beit3, BEIT3),
    "beit3-released": Case(Beit3, replace(BEIT3, blocks=RELEASED)),
    "coca": Case(Coca, COCA),
    "coca-interleaved": Case(Coca, replace(COCA, pooler="single", cross="after", class_mask="legacy")),
    "simvlm": Case(
        Simvlm, SimvlmConfig(image=ConvStageConfig(size=16, patch=4, depths=()), text=replace(WRITER, causal=False))
    ),
}
BLIND = {"bert": Case(Bert, BertConfig(READER)), "gpt": Case(Gpt, GptConfig(WRITER))}
READS_TWO = [name for name in SEEING if not name.startswith("vlmo")]
MATCHES = ["albef", "blip", "vilt", "meter", "meter-merged", "vlmo", "vlmo-without-fusion-experts"]
# What is read anew with a picture, so that by itself it need not be read.
TOWERS = {"vlmo": "blocks", "vlmo-without-fusion-experts": "blocks", "blip": "student.text"}
GUESSES = ["albef", "vilt", "meter", "meter-merged", "vlmo", "beit3", "beit3-released"]


def build(name: str) -> Any:
    case = (SEEING | BLIND)[name]
    torch.manual_seed(0)
    method = randomise(case.method(case.config.resolve(INFO)))  # type: ignore[call-arg]
    return method.eval()


@pytest.fixture(scope="module")
def built() -> Callable[[str], Any]:
    kept: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in kept:
            kept[name] = build(name)
        return kept[name]

    return get


BATCH = toy_batch(6)
OTHER = toy_batch(6, 1).images


def encoded(method: Any, images: Tensor | None = None, room: int = 0) -> tuple[Encoded | None, Encoded]:
    """The toy batch, or its texts with other pictures, padded by so many more tokens."""
    ids, mask = F.pad(BATCH.text, (0, room)), F.pad(BATCH.text_mask, (0, room))
    image = method.encode_image(BATCH.images if images is None else images) if hasattr(method, "encode_image") else None
    return image, method.encode_text(ids, mask)


def side_by_side(method: Any, left: Tensor, right: Tensor) -> Encoded:
    tokens = [method.encode_image(images).tokens for images in (left, right)]
    return Encoded(torch.zeros(len(left), 0), torch.cat(tokens, 1))


def gap(left: Tensor, right: Tensor) -> float:
    """Relative to the spread over rows, of which there is some."""
    assert left.std(0).mean() > 1e-3
    return ((left - right).abs().max() / left.std(0).mean()).item()


@pytest.mark.parametrize("name", SEEING | BLIND)
@torch.no_grad()
def test_one_vector_a_pair_as_wide_as_promised(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    assert "fuse" in abilities_of(method) and isinstance(method, Fuses)
    image, text = encoded(method)
    alone, whole = method.fuse(image, text), method.fuse(image, text, tokens=True)
    assert alone.pooled.shape == (6, method.fused_width) and method.fused_width == (SEEING | BLIND)[name].width
    assert alone.tokens is None and alone.mask is None
    assert whole.tokens is not None and whole.tokens.shape == (*BATCH.text.shape, 32)
    assert whole.mask is not None and torch.equal(whole.mask, BATCH.text_mask)
    assert gap(alone.pooled, whole.pooled) < 1e-4


@pytest.mark.parametrize("name", SEEING | BLIND)
@torch.no_grad()
def test_for_fusing_alone_no_tower_is_run(name: str, built: Callable[[str], Any]) -> None:
    method, runs = built(name), []
    image, text = encoded(method)
    tower = method.get_submodule(TOWERS.get(name, ""))
    hook = tower.register_forward_pre_hook(lambda *given: runs.append(given))
    shown = reader(method, "image", "only")(BATCH.images) if image is not None else None
    said = reader(method, "text", "only")(BATCH.text, BATCH.text_mask)
    hook.remove()
    assert not runs and said.has_embedding == (text.has_embedding and name not in TOWERS)
    assert torch.equal(method.fuse(image, text).pooled, method.fuse(shown, said).pooled)


@torch.no_grad()
def test_simvlm_reads_a_picture_once_for_all_texts(built: Callable[[str], Any]) -> None:
    method, runs = built("simvlm"), []
    hook = method.encoder.register_forward_pre_hook(lambda module, given: runs.append(len(given[0])))
    shown = reader(method, "image", "only")(BATCH.images[:2])
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    once = method.fuse(
        Encoded.cat([shown.rows(rows[:3]), shown.rows(rows[3:])]), method.encode_text(BATCH.text, BATCH.text_mask)
    )
    assert runs == [2]
    each = method.fuse(
        method.encode_image(BATCH.images[:2]).rows(rows), method.encode_text(BATCH.text, BATCH.text_mask)
    )
    hook.remove()
    assert runs == [2, 6] and gap(once.pooled, each.pooled) < 1e-4


@pytest.mark.parametrize("name", SEEING | BLIND)
@torch.no_grad()
def test_rows_and_padding_do_not_matter(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    room = 16 - BATCH.text.shape[1]
    assert room > 1 and not BATCH.text_mask.all()
    image, text = encoded(method)
    pooled = method.fuse(image, text).pooled
    # What stands in the padding is another word now; the shapes are the same, so that not a bit may change.
    ids = torch.where(BATCH.text_mask, BATCH.text, 7)
    scribbled = method.fuse(image, method.encode_text(ids, BATCH.text_mask)).pooled
    assert gap(pooled, method.fuse(*encoded(method, room=room)).pooled) < 1e-4
    if name == "coca-interleaved":  # its [CLS] alone looks at the padding, and is not read here
        assert gap(pooled, scribbled) < 1e-4
    else:
        assert torch.equal(pooled, scribbled)
    for row in range(6):
        some = torch.tensor([row])
        own = method.fuse(None if image is None else image.rows(some), text.rows(some)).pooled
        assert gap(pooled, torch.cat([pooled[:row], own, pooled[row + 1 :]])) < 1e-4


@pytest.mark.parametrize("name", SEEING)
@torch.no_grad()
def test_the_picture_and_the_words_change_it(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    image, text = encoded(method)
    pooled = method.fuse(image, text).pooled
    assert gap(pooled, method.fuse(*encoded(method, OTHER)).pooled) > 1e-2
    turned = torch.arange(6).roll(1)
    assert gap(pooled, method.fuse(image, text.rows(turned)).pooled) > 1e-2


@pytest.mark.parametrize("name", BLIND)
@torch.no_grad()
def test_the_blind_ignore_the_picture(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    _, text = encoded(method)
    image = Encoded(torch.zeros(6, 0), torch.randn(6, 3, 8))
    assert torch.equal(method.fuse(image, text).pooled, method.fuse(None, text).pooled)


# --- what the vector is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MATCHES)
@torch.no_grad()
def test_matching_reads_it(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    image, text = encoded(method)
    logits = method.match_head(method.fuse(image, text).pooled)
    assert torch.equal(method.match(image, text), logits[:, 1] - logits[:, 0])
    if hasattr(method, "match_with_maps"):  # which goes another way
        odds, _ = method.match_with_maps(image, text)
        assert gap(odds, method.match(image, text)) < 1e-4


@torch.no_grad()
def test_vilts_answers_read_it(built: Callable[[str], Any]) -> None:
    method = built("vilt")
    image, text = encoded(method)
    assert torch.equal(method.answer(image, text), method.answer_head(method.fuse(image, text).pooled))


@pytest.mark.parametrize("name", [*GUESSES, "bert"])
@torch.no_grad()
def test_masked_words_are_guessed_from_its_tokens(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    image, text = encoded(method)
    tokens = method.fuse(image, text, tokens=True).tokens
    if name.startswith("beit3"):
        guesses = method._guess(tokens[BATCH.masked])
    else:
        words = {"albef": lambda: method.student.text.embed, "vilt": lambda: method.text, "vlmo": lambda: method.words}
        embed = words.get(name, lambda: method.text.embed)()
        head = method.student.words if name == "albef" else method.words if name == "bert" else method.word_head
        guesses = head(tokens[BATCH.masked], embed.words.weight)
    assert gap(guesses, method.fill_mask(image, BATCH.text, BATCH.text_mask, BATCH.masked)) < 1e-4


@pytest.mark.parametrize("name", ["coca", "coca-interleaved", "simvlm", "gpt"])
@torch.no_grad()
def test_captions_are_scored_from_its_tokens_and_the_last_one_is_it(name: str, built: Callable[[str], Any]) -> None:
    """Every token but the last says the next; the last has read the whole text."""
    method = built(name)
    image, text = encoded(method)
    fused = method.fuse(image, text, tokens=True)
    matrix = (
        method.vocabulary.weight if name.startswith("coca") else method.text.words.weight if name == "simvlm" else None
    )
    matrix = method.text.embed.words.weight if matrix is None else matrix
    logp = (fused.tokens[:, :-1] @ matrix.T).log_softmax(-1).gather(2, BATCH.text[:, 1:, None])[..., 0]
    wanted = method.caption_likelihood(image, BATCH.text, BATCH.text_mask).logp[:, 1:]
    assert torch.allclose(torch.where(BATCH.text_mask[:, 1:], logp, 0.0), wanted, atol=1e-4)
    last = last_positions(BATCH.text_mask)
    assert torch.equal(fused.pooled, torch.stack([fused.tokens[row, last[row]] for row in range(6)]))


@pytest.mark.parametrize("name", ["beit3", "beit3-released"])
@torch.no_grad()
def test_beit3s_is_the_first_of_the_sequence(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    image, text = encoded(method)
    assert image is not None
    seen, _ = method._both_ways(image.tokens, text.ids, text.mask)
    assert gap(method.fuse(image, text).pooled, seen[:, 0]) < 1e-4


# --- two pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READS_TWO)
@torch.no_grad()
def test_two_pictures_in_a_row(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    _, text = encoded(method)
    first, second = BATCH.images, OTHER
    both = method.fuse(side_by_side(method, first, second), text).pooled
    third = second.roll(1, 0)
    assert gap(both, method.fuse(side_by_side(method, first, third), text).pooled) > 1e-2
    assert gap(both, method.fuse(side_by_side(method, third, second), text).pooled) > 1e-2
    turned = gap(both, method.fuse(side_by_side(method, second, first), text).pooled)
    assert turned > 1e-2 if SEEING[name].ordered else turned < 1e-4
    whole = method.fuse(side_by_side(method, first, second), text, tokens=True)
    assert gap(both, whole.pooled) < 1e-4 and whole.tokens.shape[1] == BATCH.text.shape[1]


@pytest.mark.parametrize("size", [16, 8])
@torch.no_grad()
def test_vlmo_refuses_two_pictures(size: int, built: Callable[[str], Any]) -> None:
    """Also where their tokens are as many as a square grid's: twice (1 + 2 x 2) is 1 + 3 x 3."""
    method, images = built("vlmo"), torch.randn(6, 3, size, size)
    _, text = encoded(method)
    one = method.encode_image(images)
    assert method.fuse(one, text).pooled.shape == (6, 32)
    with pytest.raises(ValueError, match="each picture by itself"):
        method.fuse(side_by_side(method, images, images.flip(0)), text)
    with pytest.raises(ValueError, match="square"):
        method.fuse(Encoded(one.embedding, one.tokens[:, :-1]), text)


# --- who has it ----------------------------------------------------------------------------------------------------------


def test_it_is_hidden_where_it_was_not_learned() -> None:
    for objective in ("itc", "caption"):
        tuned = Beit3(replace(BEIT3, objective=objective).resolve(INFO))
        assert "fuse" not in abilities_of(tuned)
    captioner = Blip(replace(BLIP, lacks=("encode_text", "compare", "match", "match_with_maps")).resolve(INFO))
    assert "fuse" not in abilities_of(captioner) and "generate" in abilities_of(captioner)
    reader = Blip(replace(BLIP, lacks=("caption_likelihood", "generate")).resolve(INFO))
    assert {"match", "fuse"} <= set(abilities_of(reader))


# --- of a model ----------------------------------------------------------------------------------------------------------


def of_a_model(method: Any, batch: int) -> Model:
    return Model(method, Processor(ViewSpec(size=16), WORDS), batch=batch)


@pytest.mark.parametrize("name", ["albef", "meter", "simvlm"])
def test_a_model_fuses_in_batches(name: str, built: Callable[[str], Any]) -> None:
    method = built(name)
    model = of_a_model(method, 4)
    texts = ["red on the left", "blue", "the top is blue or green", "a", "black on the right", "blue"]
    image, text = model.encode_image(BATCH.images, tokens=True), model.encode_text(texts, tokens=True)
    fused = model.fuse(image, text)
    assert isinstance(fused, Fused) and fused.tokens is None and fused.pooled.dtype == torch.float32
    with torch.no_grad():
        assert gap(method.fuse(image, text).pooled, fused.pooled) < 1e-4
    if name == "albef":
        with torch.no_grad():
            logits = method.match_head(fused.pooled)
        assert gap(model.match(image, text), logits[:, 1] - logits[:, 0]) < 1e-4
        with pytest.raises(ValueError, match=r"fuse takes as many pictures as texts.*given 2 and 6"):
            model.fuse(image.rows(torch.arange(2)), text)
        with pytest.raises(ValueError, match="tokens kept: False and True"):
            model.fuse(image.slim(), text)
        with pytest.raises(ValueError, match="no pairs"):
            model.fuse(image.rows(torch.arange(0)), text.rows(torch.arange(0)))


def test_a_model_without_eyes_fuses_too_and_one_that_cannot_says_so(built: Callable[[str], Any]) -> None:
    model = of_a_model(built("bert"), 2)
    text = model.encode_text(["red on the left", "blue", "the top is blue"])
    assert text.tokens is not None
    assert gap(model.fuse(None, text).pooled, text.tokens[:, 0]) < 1e-4
    tuned = of_a_model(Beit3(replace(BEIT3, objective="itc").resolve(INFO)), 2)
    with pytest.raises(LacksAbility, match="`fuse` needs fuse"):
        tuned.fuse(None, text)
