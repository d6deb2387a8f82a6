"""The text transformer against CLIP and BERT of `transformers`, with the same random weights."""

import pytest
import torch
from peer_weights import copy, copy_bert_block, copy_clip_block, randomise
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from multiway.nn.text import TextConfig, TextTransformer

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 50}
BERT = TextConfig(
    vocabulary=50,
    context=16,
    width=32,
    layers=3,
    heads=2,
    mlp_ratio=2.0,
    causal=False,
    pool="class",
    norm="post",
    epsilon=1e-12,
    types=2,
    embedding_norm=True,
    cross_width=24,
)


def texts():
    """Two rows of unequal length, padded on the right with 0 and ended with 49."""
    ids = torch.tensor([[1, 5, 9, 3, 7, 49], [1, 8, 2, 49, 0, 0]])
    return ids, ids != 0


@pytest.mark.parametrize("eos", [49, 2])  # with 2, the peer takes the greatest id, as the released weights need
def test_equals_clip(eos):
    theirs = randomise(
        CLIPTextModel(CLIPTextConfig(**SIZES, max_position_embeddings=16, eos_token_id=eos, hidden_act="quick_gelu"))
    )
    config = TextConfig(
        vocabulary=50,
        context=16,
        width=32,
        layers=3,
        heads=2,
        mlp_ratio=2.0,
        activation="quick_gelu",
        eos_id=None if eos == 2 else eos,
    )
    ours = TextTransformer(config).eval()
    copy(ours.embed.words, theirs.embeddings.token_embedding)
    ours.embed.positions.data.copy_(theirs.embeddings.position_embedding.weight)
    for our, their in zip(ours.transformer.blocks, theirs.encoder.layers, strict=True):
        copy_clip_block(our, their)
    copy(ours.transformer.norm, theirs.final_layer_norm)
    ids, mask = texts()
    expected = theirs(input_ids=ids, attention_mask=mask.long())
    tower = ours(ids, mask)
    assert (tower.tokens - expected.last_hidden_state)[mask].abs().max() < 1e-5
    assert (tower.pooled - expected.pooler_output).abs().max() < 1e-5
    assert (ours(ids, mask, tokens=False).pooled - expected.pooler_output).abs().max() < 1e-5


@pytest.fixture(scope="module")
def bert():
    """Ours and theirs; theirs has to be called a decoder to cross-attend, and is made bidirectional again."""
    config = BertConfig(
        **SIZES, max_position_embeddings=16, is_decoder=True, add_cross_attention=True, attn_implementation="eager"
    )
    config.encoder_hidden_size = 24
    theirs = BertModel(config, add_pooling_layer=False)
    for layer in theirs.encoder.layer:  # BertModel builds these for a memory as wide as itself
        layer.crossattention.self.key = torch.nn.Linear(24, 32)
        layer.crossattention.self.value = torch.nn.Linear(24, 32)
    randomise(theirs)
    ours = TextTransformer(BERT).eval()
    copy(ours.embed.words, theirs.embeddings.word_embeddings)
    copy(ours.embed.types, theirs.embeddings.token_type_embeddings)
    copy(ours.embed.norm[0], theirs.embeddings.LayerNorm)
    ours.embed.positions.data.copy_(theirs.embeddings.position_embeddings.weight)
    for our, their in zip(ours.transformer.blocks, theirs.encoder.layer, strict=True):
        copy_bert_block(our, their)
    return ours, theirs


def test_equals_bert_as_decoder_with_and_without_memory(bert):
    ours, theirs = bert
    ids, mask = texts()
    memory, memory_mask = torch.randn(2, 5, 24), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    for seen in (None, memory):
        extra = {} if seen is None else {"encoder_hidden_states": seen, "encoder_attention_mask": memory_mask.long()}
        expected = theirs(input_ids=ids, attention_mask=mask.long(), use_cache=False, **extra).last_hidden_state
        got = ours(ids, mask, seen, memory_mask, causal=True).tokens
        assert (got - expected)[mask].abs().max() < 1e-5


def test_equals_bert_as_encoder(bert):
    ours, theirs = bert
    ids, mask = texts()
    types = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(2, -1)
    theirs.config.is_decoder = False
    try:
        expected = theirs(input_ids=ids, attention_mask=mask.long(), token_type_ids=types).last_hidden_state
    finally:
        theirs.config.is_decoder = True
    tower = ours(ids, mask, types=types)
    assert (tower.tokens - expected)[mask].abs().max() < 1e-5
    assert (tower.pooled - expected[:, 0]).abs().max() < 1e-5


@pytest.mark.parametrize("pool", ["eos", "last", "class", "mean"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(pool, causal):
    config = TextConfig(vocabulary=50, context=16, width=32, layers=2, causal=causal, pool=pool, eos_id=49)
    ours = randomise(TextTransformer(config))
    ids, mask = texts()
    alone = ours(ids[1:, :4], mask[1:, :4]).pooled
    for junk in (0, 17):
        padded = ids.masked_fill(~mask, junk)
        torch.testing.assert_close(ours(padded, mask).pooled[1:], alone, atol=1e-5, rtol=1e-5)
    assert (ours(ids, mask, tokens=False).pooled[1:] - alone).abs().max() < 1e-5


def test_a_later_token_changes_nothing_earlier():
    config = TextConfig(vocabulary=50, context=16, width=32, layers=2)
    ours = randomise(TextTransformer(config))
    ids = torch.randint(0, 50, (2, 7))
    before = ours(ids).tokens
    ids[:, 4] = (ids[:, 4] + 1) % 50
    after = ours(ids).tokens
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=0, rtol=0)
    assert ((after - before)[:, 4:].abs().amax(-1) > 1e-3).all()
    assert ((ours(ids, causal=False).tokens - after)[:, 0].abs().max(-1).values > 1e-3).all()


def test_parameters_of_published_sizes():
    def count(config):
        with torch.device("meta"):
            return sum(p.numel() for p in TextTransformer(config).parameters())

    clip = TextConfig(vocabulary=49408, context=77, width=512, layers=12, heads=8)
    assert count(clip) == 63_165_952  # of ViT-B/32's 151,277,313: minus 87,849,216 image, 262,144 projection, 1 scale
    base = {"norm": "post", "types": 2, "embedding_norm": True, "causal": False, "pool": "class"}
    bert = TextConfig(vocabulary=30522, context=512, width=768, layers=12, heads=12, **base)
    assert count(bert) == 109_482_240 - 590_592  # BERT-base without its pooler


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="vocabulary is 0; set it to the tokeniser's"):
        TextTransformer(TextConfig())
    with pytest.raises(ValueError, match="text of 9 tokens for a context of 8; truncate"):
        TextTransformer(TextConfig(vocabulary=9, context=8))(torch.zeros(1, 9, dtype=torch.int64))
