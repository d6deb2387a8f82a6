"""Checkpoints in their authors' layouts, made by stand-ins with the same module names, read and computed alike."""

import argparse
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hub.stand_ins import Bert, Mlp, TimmBlock, TimmVit, TorchResNet, WordHead, attend, random_everywhere
from hub.vit_peers import pictures
from torch import Tensor, nn

from multiway.hub.checkpoint_file import read_checkpoint
from multiway.hub.file import WeightsError
from multiway.hub.layouts import RELEASES, release_of
from multiway.hub.load import load
from multiway.nn.patch import sincos_positions

W, WORDS, CONTEXT, D = 64, 50, 12, 16


def texts() -> tuple[Tensor, Tensor]:
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    return torch.randint(4, 45, (3, 9), generator=torch.Generator().manual_seed(1)) * mask, mask


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape and wanted.std() > 1e-3
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


def twin(part: nn.Module, name: str, of: str) -> None:
    """A momentum twin under its name: another network of the same shape."""
    import copy

    part.add_module(name, copy.deepcopy(getattr(part, of)))


# ALBEF.


class Albef(nn.Module):
    """Pre-training: a BERT whose upper half looks at the picture, its word head, projections, matching, twin, queue."""

    def __init__(self, tuned: bool = False) -> None:
        super().__init__()
        self.visual_encoder = TimmVit()
        bert = Bert(WORDS, CONTEXT, W, 4, 2, W, looks_from=2)
        self.text_encoder = bert
        if not tuned:
            self.text_encoder = nn.Module()
            self.text_encoder.bert, self.text_encoder.cls = bert, nn.Module()
            self.text_encoder.cls.predictions = WordHead(W, bert.embeddings.word_embeddings)
        self.vision_proj, self.text_proj, self.itm_head = nn.Linear(W, D), nn.Linear(W, D), nn.Linear(W, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        for name in ("visual_encoder", "vision_proj", "text_encoder", "text_proj"):
            twin(self, f"{name}_m", name)
        self.register_buffer("image_queue", torch.randn(D, 32))
        self.register_buffer("text_queue", torch.randn(D, 32))
        self.register_buffer("queue_ptr" if not tuned else "ptr_queue", torch.zeros(1, dtype=torch.long))


@torch.no_grad()
def test_albef(tmp_path: Path) -> None:
    theirs = random_everywhere(Albef())
    torch.save(
        {"model": theirs.state_dict(), "optimizer": {"state": {}}, "config": {"queue_size": 32}, "epoch": 29},
        tmp_path / "ALBEF.pth",
    )
    model = load(tmp_path / "ALBEF.pth")
    ids, mask = texts()
    image, text = model.method.encode_image(pictures()), model.method.encode_text(ids, mask)
    seen, bert = theirs.visual_encoder(pictures()), theirs.text_encoder.bert
    half = bert(ids, mask, stop=2)
    close(image.embedding, F.normalize(theirs.vision_proj(seen[:, 0]), dim=1))
    close(text.embedding, F.normalize(theirs.text_proj(half[:, 0]), dim=1))
    fused = bert(ids, mask, seen)
    odds = theirs.itm_head(fused[:, 0])
    close(model.method.match(image, text), odds[:, 1] - odds[:, 0])
    close(model.method.fill_mask(image, ids, mask, mask), theirs.text_encoder.cls.predictions(fused)[mask])
    assert float(model.method.temperature) == float(theirs.temp) and model.method.config.queue == 32
    assert {"the momentum twin, which begins anew", "the queues, which begin empty", "written twice"} <= set(
        model.report.aside
    )
    assert torch.equal(model.method.twin.image.class_token, model.method.student.image.class_token)


def test_albef_tuned_for_retrieval_has_no_word_head_and_says_so(tmp_path: Path) -> None:
    theirs = random_everywhere(Albef(tuned=True))
    torch.save({"model": theirs.state_dict()}, tmp_path / "mscoco.pth")
    with pytest.raises(WeightsError, match=r"lacks the tensor text_encoder\.cls\.predictions"):
        load(tmp_path / "mscoco.pth")
    model = load(tmp_path / "mscoco.pth", allow=[r"^student\.words"])
    assert all(name.startswith("student.words.") for name in model.report.new) and len(model.report.new) == 5
    with torch.no_grad():
        close(model.method.encode_image(pictures()).tokens, theirs.visual_encoder(pictures()))


# BLIP.


class Blip(nn.Module):
    def __init__(self, reads: bool, writes: bool, aligns: bool, shares: bool = False) -> None:
        super().__init__()
        self.visual_encoder = TimmVit()
        if reads:
            self.text_encoder = Bert(WORDS, CONTEXT, W, 2, 0, W)
        if writes:
            bert = Bert(WORDS, CONTEXT, W, 2, 0, W)
            self.text_decoder = nn.Module()
            self.text_decoder.bert, self.text_decoder.cls = bert, nn.Module()
            self.text_decoder.cls.predictions = WordHead(W, bert.embeddings.word_embeddings)
            if shares:  # all but what the names of self-attention begin with
                mine = dict(bert.named_parameters())
                for name in [name for name, _ in self.text_encoder.named_parameters()]:
                    if ".attention." not in name:
                        parent, _, leaf = name.rpartition(".")
                        setattr(self.text_encoder.get_submodule(parent), leaf, mine[name])
                self.text_decoder.cls.predictions.decoder.weight = bert.embeddings.word_embeddings.weight
        if aligns:
            self.vision_proj, self.text_proj, self.itm_head = nn.Linear(W, D), nn.Linear(W, D), nn.Linear(W, 2)
            self.temp = nn.Parameter(torch.tensor(0.06))
            twin(self, "visual_encoder_m", "visual_encoder")
            self.register_buffer("image_queue", torch.randn(D, 24))


FORMS = {
    "pretrain": (True, True, True, True),
    "retrieval": (True, False, True),
    "caption": (False, True, False),
    "vqa": (True, True, False),
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_blip(form: str, tmp_path: Path) -> None:
    theirs = random_everywhere(Blip(*FORMS[form]))
    torch.save({"model": theirs.state_dict()}, tmp_path / "model_base.pth")
    model = load(tmp_path / "model_base.pth")
    method, (ids, mask) = model.method, texts()
    image, seen = method.encode_image(pictures()), theirs.visual_encoder(pictures())
    close(image.tokens, seen)
    if FORMS[form][2]:
        text = method.encode_text(ids, mask)
        close(text.embedding, F.normalize(theirs.text_proj(theirs.text_encoder(ids, mask)[:, 0]), dim=1))
        begun = torch.cat([torch.full((3, 1), WORDS - 1), ids[:, 1:]], 1)
        odds = theirs.itm_head(theirs.text_encoder(begun, mask, seen)[:, 0])
        close(method.match(image, text), odds[:, 1] - odds[:, 0])
        assert float(method.temperature) == float(theirs.temp)
    if form in ("pretrain", "caption"):
        begun = torch.cat([torch.full((3, 1), WORDS - 2), ids[:, 1:]], 1)
        logits = theirs.text_decoder.cls.predictions(theirs.text_decoder.bert(begun, mask, seen, causal=True))
        close(method._write(image.tokens, ids, mask), logits[:, :-1][mask[:, 1:]])
    if form == "vqa":
        question = method.student.text(ids, mask, image.tokens).tokens
        close(question[mask], theirs.text_encoder(ids, mask, seen)[mask])
    if form == "pretrain":
        assert method.config.sharing == "all-but-self-attention" and method.config.queue == 24
        state = theirs.state_dict() | {"text_encoder.encoder.layer.1.output.dense.bias": torch.ones(W)}
        torch.save({"model": state}, tmp_path / "untied.pth")
        with pytest.raises(WeightsError, match=r"layer\.1\.output\.dense\.bias differs .* to which it is tied"):
            load(tmp_path / "untied.pth")


# ViLT and VLMo.


class Head(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(W, outputs, bias=outputs == 2)


class OwnWordHead(WordHead):
    """With a matrix of its own, and the bias outside of it."""

    def __init__(self, width: int, words: nn.Embedding, tied: bool = False) -> None:
        super().__init__(width, words)
        self.decoder = nn.Linear(width, words.num_embeddings, bias=False)
        if tied:
            self.decoder.weight = words.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias


class Vilt(nn.Module):
    def __init__(self, answers: int = 0, judges: bool = False) -> None:
        super().__init__()
        self.text_embeddings = Bert(WORDS, CONTEXT, W, 0, 2, None).embeddings
        self.token_type_embeddings = nn.Embedding(2 + judges, W)
        self.transformer = TimmVit(epsilon=1e-12)
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(W, W)
        if answers:
            self.vqa_classifier = nn.Sequential(
                nn.Linear(W, 2 * W), nn.LayerNorm(2 * W), nn.GELU(), nn.Linear(2 * W, answers)
            )
        elif judges:
            self.nlvr2_classifier = nn.Sequential(
                nn.Linear(2 * W, 2 * W), nn.LayerNorm(2 * W), nn.GELU(), nn.Linear(2 * W, 2)
            )
        else:
            self.mlm_score, self.itm_score = OwnWordHead(W, self.text_embeddings.word_embeddings), Head(2)

    def forward(self, ids: Tensor, mask: Tensor, images: Tensor, kind: int = 1) -> Tensor:
        picture = self.transformer.embed(images)
        x = torch.cat(
            [
                self.text_embeddings(ids) + self.token_type_embeddings.weight[0],
                picture + self.token_type_embeddings.weight[kind],
            ],
            1,
        )
        seen = torch.cat([mask, mask.new_ones(len(mask), picture.shape[1])], 1)
        for block in self.transformer.blocks:
            x = block(x, seen)
        return self.transformer.norm(x)


@pytest.mark.parametrize("answers", [0, 7])
@torch.no_grad()
def test_vilt(answers: int, tmp_path: Path) -> None:
    theirs = random_everywhere(Vilt(answers))
    torch.save(
        {"state_dict": theirs.state_dict(), "pytorch-lightning_version": "1.1.4", "global_step": 3},
        tmp_path / "vilt.ckpt",
    )
    model = load(tmp_path / "vilt.ckpt")
    ids, mask = texts()
    fused = theirs(ids, mask, pictures())
    pooled = torch.tanh(theirs.pooler.dense(fused[:, 0]))
    image, text = model.method.encode_image(pictures()), model.method.encode_text(ids, mask)
    if answers:
        close(model.method.answer(image, text), theirs.vqa_classifier(pooled))
        assert model.method.config.answers == tuple("0123456")
        return
    odds = theirs.itm_score.fc(pooled)
    close(model.method.match(image, text), odds[:, 1] - odds[:, 0])
    close(model.method.fill_mask(image, ids, mask, mask), theirs.mlm_score(fused[:, :9])[mask])
    assert not model.method.config.tied_words


@torch.no_grad()
def test_vilt_tuned_for_two_pictures(tmp_path: Path) -> None:
    theirs = random_everywhere(Vilt(judges=True))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "vilt_nlvr2.ckpt")
    model = load(tmp_path / "vilt_nlvr2.ckpt")
    (ids, mask), left, right = texts(), pictures(), pictures().flip(0)
    pooled = [
        theirs.pooler.dense(theirs(ids, mask, each, 1 + at)[:, 0]).tanh() for at, each in enumerate((left, right))
    ]
    shown, text = [model.method.encode_image(each) for each in (left, right)], model.method.encode_text(ids, mask)
    close(model.method.judge(shown, text), theirs.nlvr2_classifier(torch.cat(pooled, 1)))
    assert model.verdicts == ("false", "true") and "judge" in model.abilities() and "match" not in model.abilities()


class VlmoBlock(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(W, 1e-6)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(W, 3 * W, bias=False), nn.Linear(W, W)
        self.attn.q_bias, self.attn.v_bias = nn.Parameter(torch.zeros(W)), nn.Parameter(torch.zeros(W))
        for name in ("text", "imag", *(["vl"] if fused else [])):
            setattr(self, f"norm2_{name}", nn.LayerNorm(W, 1e-6))
            setattr(self, f"mlp_{name}", Mlp(W, 96))
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(W)), nn.Parameter(torch.ones(W))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor, experts: list[tuple[str, int]]) -> Tensor:
        together = torch.cat([self.attn.q_bias, torch.zeros(W), self.attn.v_bias])
        query, key, value = F.linear(self.norm1(x), self.attn.qkv.weight, together).chunk(3, -1)
        x = x + self.gamma_1 * self.attn.proj(attend(query, key, value, 1, mask, bias))
        pieces = x.split([length for _, length in experts], 1)
        done = [
            each + self.gamma_2 * getattr(self, f"mlp_{name}")(getattr(self, f"norm2_{name}")(each))
            for (name, _), each in zip(experts, pieces)
        ]
        return torch.cat(done, 1)


class Vlmo(nn.Module):
    """Two blocks with an expert for each modality and one for pairs; displacements of words for texts of up to 20 tokens."""

    longest, side = 196, 4

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.text_embeddings = Bert(WORDS, CONTEXT, W, 0, 2, None).embeddings
        self.text_embeddings.placed = False
        self.token_type_embeddings = nn.Embedding(2, W)
        self.transformer = nn.Module()
        self.transformer.cls_token = nn.Parameter(torch.zeros(1, 1, W))
        self.transformer.patch_embed = nn.Module()
        self.transformer.patch_embed.proj = nn.Conv2d(3, W, 8, 8)
        self.transformer.blocks = nn.ModuleList([VlmoBlock(False), VlmoBlock(False), VlmoBlock(True)])
        self.transformer.norm = nn.LayerNorm(W, 1e-6)
        entries = (2 * self.side - 1) ** 2 + 3 + 2 * self.longest + 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(entries, 3))
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(W, W)
        self.mlm_score, self.itm_score = OwnWordHead(W, self.text_embeddings.word_embeddings, tied), Head(2)
        for name in ("itc_text_proj", "itc_image_proj", "itc_vl_text_proj", "itc_vl_image_proj"):
            setattr(self, name, Head(W))
        self.logit_scale, self.logit_vl_scale = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(2.5))

    def _index(self, length: int) -> Tensor:
        """Which entry each pair of tokens has, of a text before a picture, pair by pair."""
        first = (2 * self.side - 1) ** 2
        patches = self.side**2
        found = torch.zeros(length + 1 + patches, length + 1 + patches, dtype=torch.long)
        for query in range(length + 1 + patches):
            for key in range(length + 1 + patches):
                if query < length and key < length:
                    total = len(self.relative_position_bias_table)
                    entry = key - query - (2 - self.longest) + first + 3 + 2
                    if query == 0 or key == 0:
                        entry = total - (1 if query == key else 3 if query == 0 else 2)
                elif query < length or key < length:
                    entry = first + 3 + (1 if key < length else 0)
                else:
                    q, k = query - length, key - length
                    if q == 0 or k == 0:
                        entry = first + (2 if q == k else 0 if q == 0 else 1)
                    else:
                        down = (q - 1) // self.side - (k - 1) // self.side + self.side - 1
                        right = (q - 1) % self.side - (k - 1) % self.side + self.side - 1
                        entry = down * (2 * self.side - 1) + right
                found[query, key] = entry
        return found

    def run(self, x: Tensor, mask: Tensor, index: Tensor, plan: list[list[tuple[str, int]]]) -> Tensor:
        for layer, (block, experts) in enumerate(zip(self.transformer.blocks, plan, strict=True)):
            x = block(x, mask, self.relative_position_bias_table[index][..., layer], experts)
        return self.transformer.norm(x)

    def embed(self, ids: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        picture = self.transformer.patch_embed.proj(images).flatten(2).transpose(1, 2)
        picture = torch.cat([self.transformer.cls_token.expand(len(images), -1, -1), picture], 1)
        return self.text_embeddings(ids) + self.token_type_embeddings.weight[
            0
        ], picture + self.token_type_embeddings.weight[1]


@torch.no_grad()
def test_vlmo(tmp_path: Path) -> None:
    theirs = random_everywhere(Vlmo())
    theirs.logit_scale.fill_(2.0)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "vlmo_base_patch16_224.pt")
    model = load(tmp_path / "vlmo_base_patch16_224.pt")
    method, (ids, mask) = model.method, texts()
    words, picture = theirs.embed(ids, pictures())
    index, length = theirs._index(9), 9
    everything = torch.ones(3, 17, dtype=torch.bool)
    alone = theirs.run(picture, everything, index[length:, length:], [[("imag", 17)]] * 3)
    close(method.encode_image(pictures()).embedding, F.normalize(theirs.itc_image_proj.fc(alone[:, 0]), dim=1))
    alone = theirs.run(words, mask, index[:length, :length], [[("text", 9)]] * 3)
    close(method.encode_text(ids, mask).embedding, F.normalize(theirs.itc_text_proj.fc(alone[:, 0]), dim=1))
    apart = [("text", 9), ("imag", 17)]
    fused = theirs.run(
        torch.cat([words, picture], 1), torch.cat([mask, everything], 1), index, [apart, apart, [("vl", 26)]]
    )
    odds = theirs.itm_score.fc(torch.tanh(theirs.pooler.dense(fused[:, 0])))
    image, text = method.encode_image(pictures()), method.encode_text(ids, mask)
    close(method.match(image, text), odds[:, 1] - odds[:, 0])
    close(method.fill_mask(image, ids, mask, mask), theirs.mlm_score(fused[:, :9])[mask])


def test_vlmo_with_a_word_head_of_its_own(tmp_path: Path) -> None:
    torch.save({"state_dict": random_everywhere(Vlmo(tied=False)).state_dict()}, tmp_path / "vlmo.pt")
    with pytest.raises(WeightsError, match=r"lacks the tensor word_head"):
        load(tmp_path / "vlmo.pt")
    model = load(tmp_path / "vlmo.pt", allow=[r"^(mlm_score|word_head)\."])
    assert len(model.report.new) == 5 and len(model.report.left) == 6


# Pictures alone.


def saved(file: Path, state: dict[str, Tensor]) -> Path:
    """As training with `DistributedDataParallel` leaves it, with a command line beside it."""
    wrapped = {f"module.{name}": each for name, each in state.items()}
    torch.save({"state_dict": wrapped, "args": argparse.Namespace(lr=0.03), "epoch": 199, "arch": "resnet"}, file)
    return file


@pytest.mark.parametrize("version", [1, 2])
@torch.no_grad()
def test_moco(version: int, tmp_path: Path) -> None:
    theirs = nn.Module()
    theirs.encoder_q = TorchResNet()
    width = theirs.encoder_q.width
    theirs.encoder_q.fc = (
        nn.Linear(width, D) if version == 1 else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, D))
    )
    twin(theirs, "encoder_k", "encoder_q")
    theirs.register_buffer("queue", torch.randn(D, 40))
    theirs.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    random_everywhere(theirs)
    model = load(saved(tmp_path / "moco.pth.tar", theirs.state_dict()))
    vector = theirs.encoder_q.features(pictures(64))
    close(model.method.backbone(pictures(64)).pooled, vector)
    close(model.method.projector(vector), theirs.encoder_q.fc(vector))
    assert model.name == "moco" and model.method.config.queue == 40 and model.processor.view.shortest == 256
    assert len(model.method.queue) == 0


@torch.no_grad()
def test_moco_v3(tmp_path: Path) -> None:
    theirs, wide = nn.Module(), 48
    theirs.base_encoder = TimmVit(width=wide * 4, heads=12)
    last = nn.BatchNorm1d(D, affine=False)
    theirs.base_encoder.head = nn.Sequential(
        nn.Linear(4 * wide, 80, bias=False), nn.BatchNorm1d(80), nn.ReLU(), nn.Linear(80, 80, bias=False), nn.BatchNorm1d(80), nn.ReLU(),
        nn.Linear(80, D, bias=False), last,
    )  # fmt: skip
    theirs.predictor = nn.Sequential(
        nn.Linear(D, 80, bias=False),
        nn.BatchNorm1d(80),
        nn.ReLU(),
        nn.Linear(80, D, bias=False),
        nn.BatchNorm1d(D, affine=False),
    )
    twin(theirs, "momentum_encoder", "base_encoder")
    random_everywhere(theirs)
    theirs.base_encoder.pos_embed.zero_()
    theirs.base_encoder.pos_embed[0, 1:] = sincos_positions((4, 4), 4 * wide)
    model = load(saved(tmp_path / "vit-s-300ep.pth.tar", theirs.state_dict()))
    vector = theirs.base_encoder(pictures())[:, 0]
    close(model.method.backbone(pictures()).pooled, vector)
    projected = theirs.base_encoder.head(vector)
    close(model.method.predictor(model.method.projector(vector)), theirs.predictor(projected))
    assert model.name == "moco-v3"


@torch.no_grad()
def test_swav(tmp_path: Path) -> None:
    theirs = TorchResNet()
    theirs.projection_head = nn.Sequential(nn.Linear(theirs.width, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, D))
    theirs.prototypes = nn.Linear(D, 30, bias=False)
    random_everywhere(theirs)
    torch.save({f"module.{name}": each for name, each in theirs.state_dict().items()}, tmp_path / "swav.pth.tar")
    model = load(tmp_path / "swav.pth.tar")
    vector = theirs.features(pictures(64))
    close(model.method.backbone(pictures(64)).pooled, vector)
    features = F.normalize(theirs.projection_head(vector), dim=1)
    close(model.method.prototypes(model.method.projector(vector)), theirs.prototypes(features))


def dino_network() -> nn.Module:
    theirs = nn.Module()
    theirs.backbone, theirs.head = TimmVit(), nn.Module()
    theirs.head.mlp = nn.Sequential(nn.Linear(W, 40), nn.GELU(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 24))
    theirs.head.last_layer = nn.Module()
    theirs.head.last_layer.weight_g = nn.Parameter(torch.ones(30, 1))
    theirs.head.last_layer.weight_v = nn.Parameter(torch.zeros(30, 24))
    return theirs


@torch.no_grad()
def test_dino(tmp_path: Path) -> None:
    student, teacher = (random_everywhere(dino_network(), seed) for seed in (1, 2))
    for each in (student, teacher):
        each.head.last_layer.weight_g.fill_(1.0)
    wrapped = {f"module.{name}": each for name, each in student.state_dict().items()}
    held = {"student": wrapped, "teacher": teacher.state_dict(), "optimizer": {}, "epoch": 99, "args": argparse.Namespace(arch="vit_small"),
            "dino_loss": {"center": torch.arange(30.0)[None]}}  # fmt: skip
    torch.save(held, tmp_path / "full.pth")
    model = load(tmp_path / "full.pth")
    vector = teacher.backbone(pictures())[:, 0]
    close(model.method.backbone(pictures()).pooled, vector)
    inner = F.normalize(teacher.head.mlp(vector), dim=1)
    close(model.method.projector(vector), inner @ F.normalize(teacher.head.last_layer.weight_v, dim=1).T)
    assert torch.equal(model.method.center.value, torch.arange(30.0))
    teacher.head.last_layer.weight_g.fill_(2.0)
    torch.save(held | {"teacher": teacher.state_dict()}, tmp_path / "gains.pth")
    with pytest.raises(WeightsError, match="gains that were trained"):
        load(tmp_path / "gains.pth")


class Mae(TimmVit):
    def __init__(self) -> None:
        super().__init__()
        inner = 32
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.decoder_embed, self.decoder_norm = nn.Linear(W, inner), nn.LayerNorm(inner, 1e-6)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 17, inner))
        self.decoder_blocks = nn.ModuleList(TimmBlock(inner, 64, 1) for _ in range(2))
        self.decoder_pred = nn.Linear(inner, 8 * 8 * 3)

    def guess(self, images: Tensor, mask: Tensor) -> Tensor:
        """Values of every patch (row, column, colour), picture by picture."""
        found = []
        for image, hidden in zip(images, mask, strict=True):
            x = self.embed(image[None])
            x = torch.cat([x[:, :1], x[:, 1:][:, ~hidden]], 1)
            for block in self.blocks:
                x = block(x)
            x = self.decoder_embed(self.norm(x))
            full = self.mask_token.expand(1, 16, -1).clone()
            full[:, ~hidden] = x[:, 1:]
            x = torch.cat([x[:, :1], full], 1) + self.decoder_pos_embed
            for block in self.decoder_blocks:
                x = block(x)
            found.append(self.decoder_pred(self.decoder_norm(x))[:, 1:])
        return torch.cat(found)


@pytest.mark.parametrize("fixed", [True, False])
@torch.no_grad()
def test_mae(fixed: bool, tmp_path: Path) -> None:
    theirs = random_everywhere(Mae())
    if fixed:
        for table in (theirs.pos_embed, theirs.decoder_pos_embed):
            table.zero_()
            table[0, 1:] = sincos_positions((4, 4), table.shape[2])
    torch.save({"model": theirs.state_dict()}, tmp_path / "mae.pth")
    model = load(tmp_path / "mae.pth")
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(5)).argsort(1) < 12
    found = model.method.look(pictures(), mask)[1].unflatten(2, (3, 8, 8)).movedim(2, -1).flatten(2)
    close(found, theirs.guess(pictures(), mask))
    assert model.method.config.backbone.positions == ("sincos" if fixed else "learned")


@torch.no_grad()
def test_encoders_alone_are_picture_encoders(tmp_path: Path) -> None:
    """DINO's, DeiT's and MAE's encoders, and torchvision's ResNets, by their names alone."""
    vit = random_everywhere(TimmVit())
    vit.head = nn.Linear(W, 10)
    torch.save({"model": vit.state_dict()}, tmp_path / "deit.pth")
    model = load(tmp_path / "deit.pth")
    close(model.method.backbone(pictures()).tokens, vit(pictures()))
    assert model.report.aside == {"a classifier": ("head.weight", "head.bias")} and model.name == "picture-encoder"
    resnet = random_everywhere(TorchResNet())
    resnet.fc = nn.Linear(resnet.width, 10)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    close(load(tmp_path / "resnet.pth").method.backbone(pictures(64)).pooled, resnet.features(pictures(64)))


# Files.


def test_a_file_that_holds_more_than_tensors_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.save({"model": {"a": torch.zeros(1), "b": 3}}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="more than tensors: b"):
        read_checkpoint(tmp_path / "odd.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(tmp_path / "text.pth")
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "unknown.pth")
    with pytest.raises(
        WeightsError, match=r"of nothing known here; its tensors are named like a\. Known are: ALBEF.*ResNet"
    ):
        load(tmp_path / "unknown.pth")


def test_a_tensor_more_is_an_error_with_the_option_that_allows_it(tmp_path: Path) -> None:
    state = random_everywhere(TimmVit()).state_dict()
    torch.save(state | {"surprise.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"does not: surprise\.weight; .* --allow 'PATTERN'"):
        load(tmp_path / "more.pth")
    assert load(tmp_path / "more.pth", allow=["^surprise"]).report.left == ("surprise.weight",)
    with pytest.raises(WeightsError, match="--allow 'nothing' fits no tensor"):
        load(tmp_path / "more.pth", allow=["^surprise", "nothing"])
    with pytest.raises(WeightsError, match=r"--allow '\(' is no regular expression"):
        load(tmp_path / "more.pth", allow=["^surprise", "("])


def test_every_release_is_told_from_the_others() -> None:
    """Each by the first that fits; a file of one is taken for no other."""
    made = {
        "ALBEF": Albef(), "BLIP": Blip(True, False, True), "VLMo": Vlmo(), "ViLT": Vilt(), "ViT": TimmVit(), "MAE": Mae(),
        "ResNet": TorchResNet(),
    }  # fmt: skip
    for name, theirs in made.items():
        assert release_of(theirs.state_dict(), "x").startswith(name)
    assert set(made) <= {name.split()[0] for name in RELEASES}
