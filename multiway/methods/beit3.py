"""BEiT-3: Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks.

Wang, Bao, Dong, Bjorck, Peng, Liu, Aggarwal, Mohammed, Singhal, Som, Wei; CVPR 2023; arXiv 2208.10442.

One multiway transformer (section 2.1) and one objective, mask-then-predict, on pictures, on texts and on pairs (section
2.2). A third of each batch is used as pictures alone, a third as texts alone, a third as pairs:

    L = L_image + L_text + L_pair_image + L_pair_text

each the cross entropy of what was masked: codes of an image tokeniser (`multiway train vqkd`) for patches, words for words.
Nothing is contrasted and nothing matched. What needs more is tuned afterwards from such a run (section 3, `objective`):

    itc       the dual encoder, by contrast: retrieval
    caption   a decoder: pictures see pictures, words see the picture and the words before them; most words are masked,
              and texts are written by appending [MASK] and guessing it

Sequences are a picture and then a text, as in the released code. `blocks.attention` "shared" is the paper, "decoupled" the
release, which has projections and norms by modality, no expert for pairs, and norms within the blocks.

Departures: masked words are shown as in BERT (80 % [MASK], 10 % another word, 10 % as they are); the word head is tied (`word_head`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import ABILITIES, CaptionScores, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.itc import itc
from multiway.losses.lm import lm
from multiway.losses.mlm import mlm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.shared_space import SharedSpace
from multiway.methods.writing import Writing, write
from multiway.nn.attention import Visibility
from multiway.nn.generate import Generation, Recomputed, Texts
from multiway.nn.heads import MaskedWordHead
from multiway.nn.multiway import Multiway, MultiwayConfig
from multiway.nn.picture_embed import PictureEmbed
from multiway.nn.text import TextConfig, TextEmbed
from multiway.nn.transformer import init_weights
from multiway.nn.visual_tokeniser import VisualTokeniser, VisualTokeniserConfig
from multiway.world import World

__all__ = ["Beit3", "Beit3Config"]

_OF = {  # what a model of each objective can be asked
    "mdm": ("encode_image", "encode_text", "fuse", "fill_mask"),
    "itc": ("encode_image", "encode_text", "compare"),
    "caption": ("encode_image", "caption_likelihood", "generate"),
}


@dataclass(frozen=True)
class Beit3Config:
    """Sizes and choices of BEiT-3.

    Attributes:
        blocks: the multiway transformer.
        size, patch, stem: of pictures; see `VisionConfig`.
        vocabulary, context: of texts; 0 is left to the data.
        start_id, mask_id, end_id: of the words' tokeniser; filled in from the data.
        objective: `mdm` to pre-train, `itc` and `caption` to tune.
        tokeniser: of pictures; taken from the run that `codes` names.
        embedding: width of the space of `itc`; 0 for the blocks' width, as released.
        temperature: initial 1 / exp(t) of `itc`.
        smoothing: of the labels of `caption` (released: 0.1).
        word_head: `tied` to the words' embedding, as BERT's, or `linear`, a matrix of its own (released).
    """

    blocks: MultiwayConfig = MultiwayConfig(width=128, layers=4, heads=2, fusion_layers=1, key_bias=True, init_std=0.08)
    size: int = 64
    patch: int = 8
    stem: Literal["patch", "conv"] = "conv"
    vocabulary: int = 0
    context: int = 0
    start_id: int = -1
    mask_id: int = -1
    end_id: int = -1
    objective: Literal["mdm", "itc", "caption"] = "mdm"
    tokeniser: VisualTokeniserConfig | None = None
    embedding: int = 0
    temperature: float = 0.07
    smoothing: float = 0.1
    word_head: Literal["tied", "linear"] = "tied"

    def resolve(self, data: DataInfo) -> Beit3Config:
        """The config with what depends on the tokeniser of words filled in; sizes that were given are kept."""
        return replace(
            self,
            vocabulary=self.vocabulary or data.vocabulary,
            context=self.context or data.context,
            start_id=data.special.get("bos", data.special.get("cls", self.start_id)),
            mask_id=data.special.get("mask", self.mask_id),
            end_id=data.special.get("eos", data.special.get("sep", self.end_id)),
        )

    @property
    def text(self) -> TextConfig:
        """The words' embedding: no norm, no types."""
        return TextConfig(vocabulary=self.vocabulary, context=self.context, width=self.blocks.width)

    @classmethod
    def preset(cls, name: str) -> Beit3Config:
        """`tiny`; `giant`, the paper's 1.9 B parameters (table 2); `base` and `large` as released, with decoupled attention.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name == "giant":
            blocks = MultiwayConfig(1408, 40, 16, 6144 / 1408, fusion_layers=3, key_bias=True, drop_path=0.1)
            return cls(blocks, size=224, patch=14, stem="patch", vocabulary=64_010, context=128)
        sizes = {"base": (768, 12, 12), "large": (1024, 24, 16)}
        if name not in sizes:
            raise KeyError(f"BEiT-3 has no preset `{name}`; there are: tiny, {', '.join(sizes)}, giant")
        blocks = MultiwayConfig(
            *sizes[name], epsilon=1e-5, attention="decoupled", key_bias=True, sub_norm=True, drop_path=0.1
        )
        # Their table of positions has 1,024 rows, of which the first two are never read.
        return cls(blocks, size=224, patch=16, stem="patch", vocabulary=64_010, context=1022, word_head="linear")


class Beit3(SharedSpace, Method):
    """The multiway transformer, its embeddings, and a head for each kind of token."""

    name = "beit3"
    config_class = Beit3Config
    config: Beit3Config
    own_state: ClassVar[tuple[str, ...]] = ("tokeniser.", "code_head.")
    rests: ClassVar[bool] = True
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 100.0)}

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        if config.vocabulary < 1 or config.context < 2:
            raise ValueError("there is no vocabulary or context yet; call config.resolve(data_info) first")
        self.config = config
        width = config.blocks.width
        self.pictures = PictureEmbed(config.size, config.patch, width, config.stem)
        self.words = TextEmbed(config.text)
        init_weights(self.words, config.blocks.init_std)
        self.blocks = Multiway(config.blocks)
        if config.objective == "itc":
            shared = config.embedding or width
            self.image_projection = nn.Linear(width, shared, bias=False)
            self.text_projection = nn.Linear(width, shared, bias=False)
            init_weights(self.image_projection)
            init_weights(self.text_projection)
            self.log_scale = nn.Parameter(-torch.tensor(config.temperature).log())
        else:
            self.word_head: nn.Module = MaskedWordHead(width, config.vocabulary)
            if config.word_head == "linear":
                self.word_head = nn.Linear(width, config.vocabulary)
                init_weights(self.word_head)
        if config.objective == "mdm":
            if config.tokeniser is None:
                raise ValueError(
                    "masked patches are guessed as codes and there is no image tokeniser; name one: --codes RUN"
                )
            self.tokeniser = VisualTokeniser(config.tokeniser).requires_grad_(False)
            self.code_head = nn.Linear(width, config.tokeniser.codes)
            init_weights(self.code_head)
            if self.tokeniser.image.grid != self.pictures.grid:
                raise ValueError(
                    f"the image tokeniser sees {self.tokeniser.image.grid} patches and the model {self.pictures.grid}; they must agree"
                )

    def abilities(self) -> tuple[str, ...]:
        """What the objective of this run taught."""
        return tuple(name for name in ABILITIES if name in _OF[self.config.objective])

    # Section 2.1: the blocks over one modality or both.

    def _image(self, embedded: Tensor, first: bool = False) -> Tensor:
        """Pictures alone: (B, 1 + N, W) -> the same, or the class token."""
        return self.blocks(embedded, (("vision", embedded.shape[1]),), first=first)  # type: ignore[no-any-return]

    def _text(self, ids: Tensor, mask: Tensor, first: bool = False) -> Tensor:
        """Texts alone: (B, L) -> (B, L, W), or the class token (B, 1, W)."""
        visibility = Visibility.of(mask, ids.shape[1], ids.device)
        return self.blocks(self.words(ids), (("language", ids.shape[1]),), visibility, first=first)  # type: ignore[no-any-return]

    def _pair(self, image: Tensor, text: Tensor, visibility: Visibility, first: bool = False) -> tuple[Tensor, Tensor]:
        """Embedded pictures (B, N, W) and texts (B, L, W) together -> the same, or the first token alone and nothing of the text."""
        patches, length = image.shape[1], text.shape[1]
        tokens = torch.cat([image, text], 1)
        apart = (("vision", patches), ("language", length))
        if self.config.blocks.fusion_layers:
            tokens = self.blocks(tokens, apart, visibility, stop=self.blocks.top)
            both = (("fusion", patches + length),)
            tokens = self.blocks(tokens, both, visibility, start=self.blocks.top, first=first)
        else:
            tokens = self.blocks(tokens, apart, visibility, first=first)
        return tokens[:, :patches], tokens[:, patches:]

    def _both_ways(self, image: Tensor, ids: Tensor, mask: Tensor, first: bool = False) -> tuple[Tensor, Tensor]:
        """`_pair` where every token sees every other."""
        seen = torch.cat([mask.new_ones(image.shape[:2]), mask], 1)
        return self._pair(image, self.words(ids), Visibility.of(seen, seen.shape[1], seen.device), first)

    def _read(self, image: Tensor, ids: Tensor, probes: Tensor | None = None) -> Tensor:
        """Seq2seq (section 3.1, captioning): patches see patches, words see patches and the words up to themselves.

        Args:
            image: (B, N, W) embedded pictures.
            ids: (B, L).
            probes: (B, L) ids whose tokens stand at the places of `ids`, see the picture and the words *before* their place,
                and are seen by nothing: with [MASK] in all of them, every word is guessed at once.

        Returns:
            (B, L, W) of the words, or of the probes.
        """
        patches, length = image.shape[1], ids.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        words = self.words(ids)
        total = patches + length * (1 if probes is None else 2)
        allowed = torch.zeros(total, total, dtype=torch.bool, device=ids.device)
        allowed[:, :patches] = True
        allowed[patches : patches + length, patches : patches + length] = before
        if probes is not None:
            words = torch.cat([words, self.words(probes)], 1)
            allowed[patches + length :, patches : patches + length] = before.tril(-1)
            allowed[patches + length :, patches + length :] = torch.eye(length, dtype=torch.bool, device=ids.device)
        return self._pair(image, words, Visibility(allowed))[1][:, -length:]

    def _guess(self, tokens: Tensor) -> Tensor:
        """(P, W) -> (P, V) logits of words."""
        if isinstance(self.word_head, MaskedWordHead):
            return self.word_head(tokens, self.words.words.weight)  # type: ignore[no-any-return]
        return self.word_head(tokens)  # type: ignore[no-any-return]

    # What a trained model can be asked, by objective.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> embedding (B, D) where there is a shared space, else (B, 0); tokens enter the blocks: (B, 1 + N, W)."""
        embedded = self.pictures(images)
        if self.config.objective != "itc":
            return Encoded(embedded.new_empty(images.shape[0], 0), embedded)
        return Encoded(self._unit(self.image_projection, self._image(embedded, first=True)), embedded)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) -> embedding (B, D) where there is a shared space, else (B, 0)."""
        if self.config.objective != "itc":
            return Encoded(torch.empty(ids.shape[0], 0, device=ids.device), self.words(ids), mask, ids)
        return Encoded(self._unit(self.text_projection, self._text(ids, mask, first=True)), None, mask, ids)

    @property
    def fused_width(self) -> int:
        """Of the picture's class token."""
        return self.config.blocks.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the first token of the sequence, the picture's class token, fused: what the release's pooler reads (VQA).

        Of two pictures the order makes no difference: both begin with the same class token. The release reads them one by one
        and lays the class tokens of pictures and texts side by side (NLVR2).
        """
        assert text.ids is not None and text.mask is not None
        seen, words = self._both_ways(_tokens(image), text.ids, text.mask, first=not tokens)
        return Fused(seen[:, 0], *((words, text.mask) if tokens else ()))

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`, with the picture or from the words alone."""
        tokens = self._text(ids, mask) if image is None else self._both_ways(_tokens(image), ids, mask)[1]
        return self._guess(tokens[at])

    def caption_likelihood(self, image: Encoded, ids: Tensor, mask: Tensor) -> CaptionScores:
        """Every word guessed from the picture and the words before it, as it would be written."""
        logp = (
            self._guess(self._read(_tokens(image), ids, torch.full_like(ids, self.config.mask_id)))
            .float()
            .log_softmax(-1)
        )
        real = mask.clone()
        real[:, 0] = False
        own = logp.gather(2, ids[..., None])[..., 0]
        return CaptionScores(torch.where(real, own, 0.0), torch.where(real, logp.argmax(-1), -1))

    def generate(
        self,
        image: Encoded,
        settings: Generation,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Texts:
        """Texts for B pictures: [MASK] is appended and guessed, again and again; see `nn.generate.generate`."""
        return write(self.writing(image), settings, prompts, prompt_mask, generator)

    def writing(self, image: Encoded) -> Writing:
        """Texts about to be written about B pictures, tokens kept."""
        memory, mask_id = _tokens(image), self.config.mask_id

        def next_logits(ids: Tensor, rows: Tensor) -> Tensor:
            ids = F.pad(ids, (0, 1), value=mask_id)
            return self._guess(self._read(memory[rows], ids)[:, -1])

        decoding = Recomputed(next_logits, memory.shape[0], memory.device)
        room = self.config.context - 1  # one place is left for the [MASK] that asks
        return Writing(decoding, self.config.start_id, self.config.end_id, 0, room)

    @staticmethod
    def _unit(projection: nn.Module, tokens: Tensor) -> Tensor:
        return F.normalize(projection(tokens[:, 0]).float(), dim=-1)

    # Section 2.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Unit vectors, for the contrast; masked prediction knows no other rows."""
        if self.config.objective != "itc":
            return {}
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        image = self._unit(self.image_projection, self._image(self.pictures(batch.images), first=True))
        text = self._unit(self.text_projection, self._text(batch.text, batch.text_mask, first=True))
        return {"image": image, "text": text}

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The terms of the objective."""
        if self.config.objective == "itc":
            return self._contrast(reps, batch, world)
        if batch.masked is None or batch.masked_text is None:
            raise ValueError(
                "BEiT-3 guesses masked words and the batch has none; set the recipe's masking.ratio above 0"
            )
        return self._caption(batch) if self.config.objective == "caption" else self._masked(batch)

    def _masked(self, batch: Batch) -> Losses:
        """Masked data modelling: the batch's first third as pictures, the second as texts, the last as pairs."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        assert batch.masked_text is not None and batch.masked is not None
        if batch.patch_mask is None:
            raise ValueError(
                "BEiT-3 guesses masked patches and the batch has none; set the recipe's patches.ratios above 0"
            )
        if len(batch) < 3:
            raise ValueError(f"BEiT-3 divides its batch into pictures, texts and pairs; {len(batch)} rows are too few")
        # The same thirds as `Masking.ratios` means: row i of B is in part 3 i // B.
        first, second = -(-len(batch) // 3), -(-2 * len(batch) // 3)
        images, texts, both = slice(0, first), slice(first, second), slice(second, len(batch))
        codes = {
            part: self.tokeniser.tokenise(batch.images[rows]) for part, rows in (("image", images), ("pair", both))
        }

        hidden, paired = batch.patch_mask[images], batch.patch_mask[both]
        alone = self._image(self.pictures(batch.images[images], hidden))[:, 1:]
        read = self._text(batch.masked_text[texts], batch.text_mask[texts])
        seen, said = self._both_ways(
            self.pictures(batch.images[both], paired), batch.masked_text[both], batch.text_mask[both]
        )
        found = {
            "image": mlm(self.code_head(alone[hidden]), codes["image"][hidden]),
            "text": mlm(self._guess(read[batch.masked[texts]]), batch.text[texts][batch.masked[texts]]),
            "pair_image": mlm(self.code_head(seen[:, 1:][paired]), codes["pair"][paired]),
            "pair_text": mlm(self._guess(said[batch.masked[both]]), batch.text[both][batch.masked[both]]),
        }
        terms = {name: Term(each.loss, chance=each.chance, formula=each.formula) for name, each in found.items()}
        counts = {key: count for name, each in found.items() for key, count in each.over(name).items()}
        return Losses(terms, {f"{name}_accuracy": each.accuracy for name, each in found.items()}, counts=counts)

    def _contrast(self, reps: Reps, batch: Batch, world: World) -> Losses:
        """Retrieval tuning."""
        scale = self.log_scale.exp()
        found = itc(reps["image"], reps["text"], scale, world, batch.image_id, batch.text_id)
        report = {
            "temperature_scale": scale.detach(),
            "image_to_text_accuracy": found.image_to_text_accuracy,
            "text_to_image_accuracy": found.text_to_image_accuracy,
        }
        features = {name: each.detach() for name, each in reps.items()}
        return Losses({"itc": Term(found.loss, chance=found.chance, formula=found.formula)}, report, features=features)

    def _caption(self, batch: Batch) -> Losses:
        """Captioning by masked words that see only what comes before them."""
        assert batch.images is not None and batch.text is not None
        assert batch.masked_text is not None and batch.masked is not None
        # The end of a text is always guessed: nobody reads on from there, and without it no text would ever end.
        end = batch.text == self.config.end_id
        at = batch.masked | end
        tokens = self._read(self.pictures(batch.images), batch.masked_text.masked_fill(end, self.config.mask_id))
        found = lm(self._guess(tokens[at]), batch.text[at], self.config.smoothing)
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({"lm": term}, report={"lm_accuracy": found.accuracy}, counts=found.over("lm"))

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """The temperature's bound, as CLIP's: exp(t) is kept at or below 100."""
        if self.config.objective == "itc":
            self.log_scale.clamp_(max=4.6052)


def _tokens(image: Encoded) -> Tensor:
    assert image.tokens is not None
    return image.tokens
