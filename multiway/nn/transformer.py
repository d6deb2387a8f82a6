"""One transformer for pictures and text: ViT, BERT, CLIP's text tower, cross-attending and causal decoders."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiway.nn.attention import ALL_VISIBLE, Visibility
from multiway.nn.block import Activation, Block, TransformerConfig
from multiway.nn.cache import Cache

__all__ = ["Activation", "Block", "Transformer", "TransformerConfig", "clip_init", "init_weights"]


class Transformer(nn.Module):
    """A stack of blocks over tokens that are already embedded."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        last = config.final_norm and config.norm == "pre"
        self.norm: nn.Module = nn.LayerNorm(config.width, config.epsilon) if last else nn.Identity()
        init_weights(self)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        memory_rows: Tensor | None = None,
        rows: Tensor | None = None,
        at: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool | None = None,
        cache: Cache | None = None,
        instead: Sequence[nn.ModuleDict] | None = None,
        record: MutableMapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run all blocks.

        Args:
            tokens: (B, N, W).
            mask: (B, N) bool, True at real tokens; None when all are.
            memory: (B, M, cross_width) for the blocks that attend to it.
            memory_mask: (B, M) bool.
            memory_rows: (B,) int64, where the memory has other rows than the tokens: which of them each row attends to.
            rows: (R,) int64, for R results over fewer texts: `tokens[rows]` and `mask[rows]` are meant, and B is R everywhere
                else. What comes before the first look at the memory, where equal texts are still equal, is computed once for
                each text. The result is the same; where parts are dropped out, each of the R rows has its own.
            at: (B,) or (B, P), the one position per row or the P that are wanted. The last block then computes nothing
                else that the result does not depend on, which saves most of it; the result is exactly the same.
            bias: added to the scores of self-attention in every block, broadcastable to (B, H, N, N); or with the blocks first,
                (layers, 1 or B, H, N, N), a bias for each.
            causal: overrides the config's, for weights that serve as encoder and decoder both.
            cache: keys and values of earlier calls, which the tokens see as positions before them, and to which theirs are
                added; `mask` is then (B, past + N). The memory and its mask are read at the first call alone. Blocks are
                not recomputed then, whatever `checkpoint` says.
            instead: for every block the parts that stand in for its own; see `Block.forward`.
            record: a dict that receives, by path, the embedded tokens (`embedded`), the output of every block
                (`blocks.3`), its attention maps (`blocks.3.attention`, `blocks.3.cross`) and the last tokens
                (`tokens`). Attention is then computed in its written-out form.

        Returns:
            (B, N, W), after the final norm; (B, P, W) with `at`, P being 1 for one position per row.
        """
        causal = self.config.causal if causal is None else causal
        past = 0 if cache is None else cache.length
        if rows is not None and not (bias is None and cache is None and record is None and self._shares_start()):
            tokens, mask, rows = tokens[rows], None if mask is None else mask[rows], None
        visibility = Visibility.of(mask, past + tokens.shape[1], tokens.device, causal=causal, past=past)
        memory_visibility = ALL_VISIBLE
        if cache is not None:
            if not cache.seen:
                cache.memory_mask = memory_mask
            memory_mask = cache.memory_mask
        if cache is not None and memory is None and memory_mask is not None:
            memory_visibility = Visibility.of(memory_mask, memory_mask.shape[1], tokens.device)
        elif memory is not None:
            if memory_mask is not None and memory_rows is not None:
                memory_mask = memory_mask[memory_rows]
            memory_visibility = Visibility.of(memory_mask, memory.shape[1], memory.device)
        if record is not None:
            record["embedded"] = tokens
        recompute = (
            self.config.checkpoint and self.training and record is None and cache is None and torch.is_grad_enabled()
        )
        for index, block in enumerate(self.blocks):
            path = "" if record is None else f"blocks.{index}"  # a compiled block would be made anew for every name
            wanted = at if index == len(self.blocks) - 1 else None
            run = partial(
                block,
                memory_rows=memory_rows,
                at=wanted,
                bias=bias[index] if bias is not None and bias.dim() == 5 else bias,
                cache=None if cache is None else cache.blocks[index],
                instead=None if instead is None else instead[index],
                record=record,
                path=path,
                rows=rows,
            )
            seen = (tokens, memory, visibility, memory_visibility)
            tokens = checkpoint(run, *seen, use_reentrant=False) if recompute else run(*seen)
            if rows is not None:
                mask, rows = None if mask is None else mask[rows], None
                visibility = Visibility.of(mask, tokens.shape[1], tokens.device, causal=causal)
            if record is not None:
                record[path] = tokens
        tokens = self.norm(tokens)
        if record is not None:
            record["tokens"] = tokens
        return tokens

    def _shares_start(self) -> bool:
        """Whether rows that begin alike are alike until they look at a memory: in the first of several blocks, if no chance is in it."""
        config = self.config
        chance = self.training and (config.dropout or config.attention_dropout or config.drop_path)
        return not chance and len(self.blocks) > 1


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """The field's standard start (BERT, ViT): linear and embedding weights from a normal of `std` cut at two of it,
    biases zero, norms at identity.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def clip_init(transformer: Transformer) -> None:
    """CLIP's start (arXiv:2103.00020, its released code): widths of the normals fall with width and depth, so that
    the residual stream keeps its scale.
    """
    width, layers = transformer.config.width, transformer.config.layers
    into, out = width**-0.5, width**-0.5 * (2 * layers) ** -0.5
    for block in transformer.blocks:
        for name, part in block.named_modules():
            if isinstance(part, nn.Linear):
                leaf = name.rpartition(".")[2]
                std = (2 * width) ** -0.5 if leaf == "up" else into if leaf in ("qkv", "query", "key_value") else out
                nn.init.normal_(part.weight, std=std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
