"""Module trees with the names of their authors' code, small and written the obvious way: what the readers of releases are held against.

They compute what the papers say with torch's own parts, an attention written out, and no fusing of anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def random_everywhere(part: nn.Module, seed: int = 0) -> nn.Module:
    """Every tensor at random, statistics too: what begins at zero or one would hide that it is not read."""
    make = torch.Generator().manual_seed(seed)
    for name, each in part.state_dict().items():
        if each.is_floating_point():
            noise = torch.randn(each.shape, generator=make)
            kept = 1.0 + 0.1 * noise if each.ndim == 1 and name.endswith("weight") else 0.15 * noise
            each.copy_(0.5 + noise.abs() if "running_var" in name else kept)
    return part.eval()


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """(B, N, W) -> (B, H, N, W / H)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Softmax of scaled products, written out; `mask` (B, N) is True at keys that are seen."""
    q, k, v = (heads_apart(each, heads) for each in (query, key, value))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class TimmBlock(nn.Module):
    """A pre-norm block by timm's names."""

    def __init__(self, width: int, hidden: int, heads: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.attn.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.attn.proj(attend(query, key, value, self.heads, mask))
        return x + self.mlp(self.norm2(x))


class TimmVit(nn.Module):
    """A ViT by timm's names: tokens (B, 1 + N, W), normed."""

    def __init__(
        self, size: int = 32, patch: int = 8, width: int = 64, layers: int = 2, heads: int = 1, epsilon: float = 1e-6
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.ModuleList(TimmBlock(width, 96, heads, epsilon) for _ in range(layers))
        self.norm = nn.LayerNorm(width, epsilon)

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], 1) + self.pos_embed

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class BertEmbeddings(nn.Module):
    def __init__(self, words: int, context: int, width: int, types: int, placed: bool = True) -> None:
        super().__init__()
        self.placed = placed
        self.word_embeddings = nn.Embedding(words, width)
        self.position_embeddings = nn.Embedding(context, width)
        if types:
            self.token_type_embeddings = nn.Embedding(types, width)
        self.LayerNorm = nn.LayerNorm(width, 1e-12)
        self.register_buffer("position_ids", torch.arange(context)[None])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids)
        if hasattr(self, "token_type_embeddings"):
            x = x + self.token_type_embeddings.weight[0]
        if self.placed:
            x = x + self.position_embeddings(self.position_ids[0, : ids.shape[1]])
        return self.LayerNorm(x)


def _looks(width: int, memory: int) -> nn.Module:
    part = nn.Module()
    part.self, part.output = nn.Module(), nn.Module()
    part.self.query, part.self.key, part.self.value = (
        nn.Linear(width, width),
        nn.Linear(memory, width),
        nn.Linear(memory, width),
    )
    part.output.dense, part.output.LayerNorm = nn.Linear(width, width), nn.LayerNorm(width, 1e-12)
    return part


class BertLayer(nn.Module):
    """BERT's block, and where it says so one that looks at a picture (xbert, med)."""

    def __init__(self, width: int, hidden: int, heads: int, memory: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.attention = _looks(width, width)
        if memory is not None:
            self.crossattention = _looks(width, memory)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.output.dense = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.output.LayerNorm = nn.LayerNorm(width, 1e-12)

    def _look(self, part: nn.Module, x: Tensor, seen: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        bias = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1) if causal else None
        mixed = attend(part.self.query(x), part.self.key(seen), part.self.value(seen), self.heads, mask, bias)
        return part.output.LayerNorm(x + part.output.dense(mixed))

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor | None = None, causal: bool = False) -> Tensor:
        x = self._look(self.attention, x, x, mask, causal)
        if memory is not None and hasattr(self, "crossattention"):
            x = self._look(self.crossattention, x, memory, None)
        return self.output.LayerNorm(x + self.output.dense(F.gelu(self.intermediate.dense(x))))


class Bert(nn.Module):
    """An encoder or a decoder; `memory` is the width of the picture's tokens, `looks_from` the first block that looks at them."""

    def __init__(
        self, words: int, context: int, width: int, layers: int, types: int, memory: int | None, looks_from: int = 0
    ) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(words, context, width, types)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(
            BertLayer(width, 96, 1, memory if layer >= looks_from else None) for layer in range(layers)
        )

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        memory: Tensor | None = None,
        causal: bool = False,
        stop: int | None = None,
    ) -> Tensor:
        x = self.embeddings(ids)
        for layer in self.encoder.layer[:stop]:
            x = layer(x, mask, memory, causal)
        return x


class WordHead(nn.Module):
    """BERT's head on masked words: `predictions` of `cls`."""

    def __init__(self, width: int, words: nn.Embedding) -> None:
        super().__init__()
        self.transform = nn.Module()
        self.transform.dense, self.transform.LayerNorm = nn.Linear(width, width), nn.LayerNorm(width, 1e-12)
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))
        self.decoder = nn.Linear(width, words.num_embeddings)
        self.decoder.weight, self.decoder.bias = words.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform.LayerNorm(F.gelu(self.transform.dense(x))))


class TorchBasicBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        self.downsample = None
        if stride > 1 or inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    """A small ResNet by torchvision's names: the mean of its last map."""

    def __init__(self, base: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, base, 7, 2, 3, bias=False), nn.BatchNorm2d(base)
        inside = base
        for stage in range(4):
            outside = base * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(TorchBasicBlock(inside, outside, 2 if stage else 1)))
            inside = outside
        self.width = inside

    def features(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))
