"""SimVLM: Simple Visual Language Model Pretraining with Weak Supervision.

Wang, Yu, Yu, Dai, Tsvetkov, Cao; ICLR 2022; arXiv 2108.10904.

One objective, prefix language modelling (section 3.1). The picture's tokens and the first words of its caption are the prefix:
an encoder reads them, all seeing all. A decoder writes the rest, each word from those before it and the prefix:

    L = - E_D [ sum over t >= T_p of log P(y_t | y_[T_p, t), y_<T_p, x) ],        T_p drawn evenly for every text

The picture comes as a convolutional stage makes it (section 3.2): the first three blocks of a ResNet, then positions, no
patches cut. There is no space that pictures and texts share, and no matching: what it knows of a pair is how likely its words
are.

Departures from the paper: positions are learned and absolute; its further relative attention between patches is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import CaptionScores, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.lm import lm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.writing import Writing, caption_scores, resolved, write
from multiway.nn.conv_stage import ConvStage, ConvStageConfig
from multiway.nn.generate import Generation, Texts
from multiway.nn.pick import uniform
from multiway.nn.pool import last_positions, take
from multiway.nn.prefix import PrefixDecoding, Split, split
from multiway.nn.text import TextConfig, TextEmbed
from multiway.nn.transformer import Transformer, TransformerConfig
from multiway.world import World

__all__ = ["Simvlm", "SimvlmConfig"]


@dataclass(frozen=True)
class SimvlmConfig:
    """Sizes of SimVLM.

    Attributes:
        image: the convolutional stage.
        text: embeddings, and the encoder's and the decoder's blocks, `layers` of them each (section 4.1: as the ViT's).
        prefix: whether texts have a prefix of words, drawn evenly in length; without, the picture is all of it, and the
            objective is language modelling of captions.
        blind_steps: share of the steps in which the pictures are left out, and the words are all there is: the place of the
            paper's batches of text alone.
        start, end, pad: ids of the tokeniser's start and end tokens and of padding; -1 is left to the data.
    """

    image: ConvStageConfig = ConvStageConfig(size=64, patch=8, depths=())
    text: TextConfig = TextConfig(context=0, width=128, layers=3, heads=2, causal=False, pool="last")
    prefix: bool = True
    blind_steps: float = 0.0
    start: int = -1
    end: int = -1
    pad: int = -1

    def resolve(self, data: DataInfo) -> SimvlmConfig:
        """The config with vocabulary, context and special ids filled in from the data; what was given is kept."""
        return resolved(self, data)

    @classmethod
    def preset(cls, name: str) -> SimvlmConfig:
        """`tiny`, with a small convolutional stem; `base`, `large`, `huge`: the ViT's widths and layers in encoder and decoder,
        224 pixels, ResNet-101's blocks (`huge`: ResNet-152's), 32,000 tokens (section 4.1).

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        # width, layers, heads, ResNet blocks.
        sizes = {
            "base": (768, 12, 12, (3, 4, 23)),
            "large": (1024, 24, 16, (3, 4, 23)),
            "huge": (1280, 32, 16, (3, 8, 36)),
        }
        if name not in sizes:
            raise KeyError(f"SimVLM has no preset `{name}`; there are: tiny, {', '.join(sizes)}")
        width, layers, heads, depths = sizes[name]
        text = TextConfig(
            vocabulary=32_000,
            context=256,
            width=width,
            layers=layers,
            heads=heads,
            causal=False,
            pool="last",
            dropout=0.1,
        )
        return cls(image=ConvStageConfig(size=224, patch=16, depths=depths), text=text)

    @property
    def blocks(self) -> TransformerConfig:
        """Of the encoder; the decoder's look at its tokens too."""
        return replace(TransformerConfig.of(self.text), causal=False, cross_width=None)


class Simvlm(Method):
    """A convolutional stage, an encoder of the prefix and a decoder of the rest."""

    name = "simvlm"
    config_class = SimvlmConfig
    config: SimvlmConfig

    def __init__(self, config: SimvlmConfig) -> None:
        super().__init__()
        text = config.text
        if text.vocabulary < 1 or text.context < 2 or min(config.start, config.end, config.pad) < 0:
            raise ValueError("the text lacks vocabulary, context or ids; call config.resolve(data_info) first")
        if not 0.0 <= config.blind_steps < 1.0:
            raise ValueError(f"blind_steps is {config.blind_steps}; expected a share from 0 to below 1")
        self.config = config
        # Without pictures in a step, nothing reaches their stage.
        self.rests = config.blind_steps > 0  # type: ignore[misc]
        self.image = ConvStage(config.image, text.width)
        self.text = TextEmbed(text)
        self.encoder = Transformer(config.blocks)
        self.decoder = Transformer(replace(config.blocks, causal=True, cross_width=text.width))
        # Scores of unit size: narrow models begin to look at the picture sooner than with the usual 0.02.
        for name, parameter in self.decoder.named_parameters():
            if name.endswith(("cross.query.weight", "cross.key_value.weight")):
                nn.init.normal_(parameter, std=text.width**-0.5)

    # Section 3.2: the architecture.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> (B, N, W) tokens for the encoder, which reads them with the words; no embedding."""
        tokens = self.image(images)
        return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens)

    def image_to_fuse(self, images: Tensor) -> Encoded:
        """As `encode_image`, and read by the encoder, which `fuse` does without words: once, whatever is asked about the picture."""
        found = self.encode_image(images)
        return replace(found, memory=self.encoder(found.tokens))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> (B, L, W) embedded words, as the decoder takes them; no embedding of the text."""
        words = self.text(ids)
        return Encoded(words.new_zeros(words.shape[0], 0), words, mask, ids)

    @property
    def fused_width(self) -> int:
        """Of the decoder."""
        return self.config.text.width

    def fuse(self, image: Encoded | None, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the decoder's output at the last token of the text, which has seen the others and the picture.

        As the paper tunes for VQA, SNLI-VE and NLVR2, and CoCa after it (arXiv 2205.01917, appendix B): the picture alone is
        the encoder's, the text the decoder's, and a linear classifier reads the text's last token. Of two pictures the order
        makes no difference: the encoder sees the tokens of both as one set, with positions in them. Without a picture the words
        are all there is.
        """
        assert text.tokens is not None and text.mask is not None and text.ids is not None
        memory = None if image is None else image.memory
        if image is not None and memory is None:
            memory = self.encoder(image.tokens)
        last = last_positions(text.mask)
        if not tokens:
            return Fused(self.decoder(text.tokens, None, memory, at=last)[:, 0])
        words = self.decoder(text.tokens, None, memory)
        return Fused(take(words, last), words, text.mask)

    def caption_likelihood(self, image: Encoded | None, ids: Tensor, mask: Tensor) -> CaptionScores:
        """What is said of each token of (B, L) given captions by those before it and the picture, which is all the prefix."""
        parts = split(ids, mask, torch.zeros(len(ids), dtype=torch.int64, device=ids.device))
        return caption_scores(self._guess(None if image is None else image.tokens, parts), ids, mask)

    def generate(
        self,
        image: Encoded | None,
        settings: Generation,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Texts:
        """Write captions; see `nn.generate.generate`.

        Args:
            image: B pictures, tokens kept; None for texts alone.
            prompts, prompt_mask: (B, L) ids to go on from, the start token first, and (B, L) bool: the words of the prefix,
                which the encoder reads (section 4.3: "A picture of"). None for no words.
        """
        return write(self.writing(image, prompts, prompt_mask), settings, prompts, prompt_mask, generator)

    def writing(
        self, image: Encoded | None, prompts: Tensor | None = None, prompt_mask: Tensor | None = None
    ) -> Writing:
        """Texts about to be written after what the encoder reads; arguments as of `generate`."""
        config, first = self.config, 0
        if prompts is None:
            rows = 1 if image is None else image.embedding.shape[0]
            prompts = torch.full((rows, 1), config.start, device=self.text.positions.device)
            lengths, mask = torch.zeros_like(prompts[:, 0]), torch.ones_like(prompts, dtype=torch.bool)
        else:
            mask = torch.ones_like(prompts, dtype=torch.bool) if prompt_mask is None else prompt_mask.bool()
            lengths = mask.sum(1) - 1
            first = int(lengths.min())
        if (
            prompts.shape[1] == 1 and image is not None and image.memory is not None
        ):  # has been read, see `image_to_fuse`
            memory: Tensor | None = image.memory
            memory_mask: Tensor | None = None
        else:
            memory, memory_mask = self.read(None if image is None else image.tokens, prompts[:, 1:], mask[:, 1:])
        decoding = PrefixDecoding(self.text, self.decoder, memory, memory_mask, config.start, lengths, first)
        return Writing(decoding, config.start, config.end, config.pad, config.text.context, prompted=False)

    def read(self, image: Tensor | None, words: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The encoder over the prefix.

        Args:
            image: (B, N, W) of the convolutional stage; None where there is no picture.
            words: (B, P) the text's first tokens after the start token, padded on the right.
            mask: (B, P) bool.

        Returns:
            (B, N + P, W) and its mask, None where all count; None twice for a prefix of nothing.
        """
        if image is None and words.shape[1] == 0:
            return None, None
        if words.shape[1] == 0:
            return self.encoder(image), None
        # The start token has position 0 and is the decoder's.
        embedded = self.text(words, past=1)
        if image is None:
            return self.encoder(embedded, mask), mask
        seen = torch.cat([mask.new_ones(image.shape[:2]), mask], 1)
        return self.encoder(torch.cat([image, embedded.to(image.dtype)], 1), seen), seen

    def _guess(self, image: Tensor | None, parts: Split) -> Tensor:
        """(P, V) logits of the words that are to be written, row by row."""
        memory, memory_mask = self.read(image, parts.prefix, parts.prefix_mask)
        given = torch.cat([torch.full_like(parts.given[:, :1], self.config.start), parts.given[:, 1:]], 1)
        embedded = self.text.norm(self.text.words(given) + self.text.positions[parts.places])
        tokens = self.decoder(embedded, None, memory, memory_mask)
        return F.linear(tokens[parts.written], self.text.words.weight)

    # Section 3.1: prefix language modelling.

    def prefix_lengths(self, batch: Batch, blind: bool = False) -> Tensor:
        """(B,) words of each text that are given, from 0 to all of them: the end token at least is left to write.

        A function of the sample and the epoch, so that a replay draws the same and ranks change nothing. A text without a
        picture is given one word at least.
        """
        assert batch.text_mask is not None
        words = batch.text_mask.sum(1) - 2
        if not self.config.prefix or batch.sample_index is None:
            return torch.zeros_like(words)
        draw = uniform(batch.sample_index, batch.place.epoch)
        least = int(blind)
        lengths = least + (draw * (words + 1 - least).clamp(min=0)).long()
        return lengths.minimum(words).clamp(min=0)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The words after the prefix, and those alone."""
        assert batch.text is not None and batch.text_mask is not None
        share = self.config.blind_steps
        blind = batch.images is None or bool(uniform(torch.tensor([step.index]), -1) < share)
        image = None if blind or batch.images is None else self.image(batch.images)
        lengths = self.prefix_lengths(batch, blind)
        parts = split(batch.text, batch.text_mask, lengths)
        said = lm(self._guess(image, parts), parts.targets)
        return Losses(
            {"lm": Term(said.loss, chance=said.chance, formula=said.formula)},
            report={"lm_accuracy": said.accuracy, "prefix_words": lengths.float().mean()},
            counts=said.over("lm"),
        )

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Nothing: no loss crosses rows."""
        return {}
