"""ETRIS's head (Xu et al., "Bridging Vision and Language Encoders", ICCV 2023, arXiv 2307.11545).

Modules are named as in the released checkpoints, so that those load by name.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, transposed: bool = False) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU; padded to keep the size where it has no stride and an odd kernel."""
    padding = kernel // 2 if stride == 1 else 0
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    return nn.Sequential(kind(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs),
                         nn.ReLU(inplace=True))


class GatedAttention(nn.Module):
    """Queries times what they find in a memory, with no residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, N, width) of queries (B, or 1 for all, N, width) and a memory (B, M, width)."""
        queries = queries.expand(len(memory), -1, -1)
        return queries * self.multihead_attn(queries, memory, memory, need_weights=False)[0]


class CoordConv(nn.Module):
    """A 3x3 convolution that also sees each place's column and row, from -1 to 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = convolution(width + 2, width, 3)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        batch, _, height, width = features.shape
        rows = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype).view(1, 1, -1, 1)
        columns = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype).view(1, 1, 1, -1)
        shape = (batch, 1, height, width)
        return self.conv1(torch.cat([features, columns.expand(shape), rows.expand(shape)], dim=1))


class HierarchicalAlignment(nn.Module):
    """Three vision maps on one grid, each gated by the sentence, joined into one (section 3.3 of the paper).

    Args:
        widths: channels of the three maps.
        sentence_dim: width of the sentence vector.
        width, heads: of the attention and of the joint map.
        strides: of the convolutions that bring the maps to one grid; the last one is transposed.
        sums: whether the joint map is added to what the last convolutions make of it, as in DETRIS.
    """

    def __init__(self, widths: Sequence[int], sentence_dim: int, width: int, heads: int,
                 strides: Sequence[int], sums: bool = False) -> None:
        super().__init__()
        self.sums = sums
        self.fusion3, self.fusion4, self.fusion5 = (GatedAttention(width, heads) for _ in range(3))
        self.txt_proj = nn.Linear(sentence_dim, width)
        self.f3_proj = convolution(widths[0], width, strides[0], strides[0])
        self.f4_proj = convolution(widths[1], width, strides[1], strides[1])
        self.f5_proj = convolution(widths[2], width, strides[2], strides[2], transposed=True)
        self.aggr = convolution(3 * width, width)
        self.coordconv = nn.Sequential(CoordConv(width), convolution(width, width, 3))

    def forward(self, maps: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """A map (B, width, h, w) of three maps (B, or 1 for all, C, h', w') and sentences (B, sentence_dim)."""
        memory = self.txt_proj(sentence).unsqueeze(1)
        projections, gates = (self.f3_proj, self.f4_proj, self.f5_proj), (self.fusion3, self.fusion4, self.fusion5)
        gated = []
        for features, project, gate in zip(maps, projections, gates, strict=True):
            features = project(features)
            states = gate(features.flatten(2).transpose(1, 2), memory)
            gated.append(states.transpose(1, 2).unflatten(2, features.shape[2:]))
        joint = self.aggr(torch.cat(gated, dim=1))
        return joint + self.coordconv(joint) if self.sums else self.coordconv(joint)


class LastMap(nn.Module):
    """In place of hierarchical alignment: the last vision map alone, on the common grid, without the sentence.

    Args:
        channels: of that map.
        width: of the result.
        stride: of the transposed convolution that enlarges it.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.f5_proj = convolution(channels, width, stride, stride, transposed=True)

    def forward(self, maps: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """A map (B, width, h, w) of the last of three maps (B, or 1 for all, C, h', w'), for B sentences."""
        return self.f5_proj(maps[-1]).expand(len(sentence), -1, -1, -1)


class AlignmentLayer(nn.Module):
    """Self-attention among places, cross-attention to the words, an MLP; each normalised on both sides."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_norm, self.cross_attn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(width, mlp), nn.ReLU(), nn.Dropout(dropout), nn.LayerNorm(mlp),
                                 nn.Linear(mlp, width))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, places: Tensor, words: Tensor, place_positions: Tensor, word_positions: Tensor,
                padding: Tensor) -> Tensor:
        """Places (B, N, width), having seen the words (B, L, width) where `padding` (B, L) is False."""
        inner = self.norm1(places)
        query = inner + place_positions
        attended = self.self_attn(query, query, inner, need_weights=False)[0]
        places = places + self.dropout(self.self_attn_norm(attended))
        query = self.norm2(places) + place_positions
        attended = self.multihead_attn(query, words + word_positions, words, padding, need_weights=False)[0]
        places = places + self.dropout(self.cross_attn_norm(attended))
        return places + self.dropout(self.ffn(self.norm3(places)))


class GlobalAlignment(nn.Module):
    """A transformer decoder over the places of a map, which attends to the words (section 3.3 of the paper)."""

    def __init__(self, width: int, heads: int, mlp: int, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AlignmentLayer(width, heads, mlp, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """A map (B, width, h, w) of a map of that shape, words (B, L, width) and their padding (B, L)."""
        _, width, rows, columns = features.shape
        place_positions = grid_positions(rows, columns, width, features.device).to(features)
        word_positions = sine_positions(words.shape[1], width, words.device).to(words)
        states = features.flatten(2).transpose(1, 2)
        for layer in self.layers:
            states = layer(states, words, place_positions, word_positions, padding)
        return self.norm(states).transpose(1, 2).unflatten(2, (rows, columns))


class NoAlignment(nn.Module):
    """In place of global alignment: the map as it is, without the words."""

    def forward(self, features: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """The map (B, width, h, w)."""
        return features


class Projector(nn.Module):
    """A 3x3 convolution whose weights and bias the sentence generates, on a grid four times as fine (CRIS)."""

    def __init__(self, sentence_dim: int, width: int) -> None:
        super().__init__()
        self.vis = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), convolution(2 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"), convolution(2 * width, width, 3), nn.Conv2d(width, width, 1))
        self.txt = nn.Linear(sentence_dim, 9 * width + 1)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Logits (B, 4h, 4w) of a map (B, 2 * width, h, w) and sentences (B, sentence_dim)."""
        features = self.vis(features)
        batch, width = features.shape[:2]
        generated = self.txt(sentence)
        kernel, bias = generated[:, :-1].reshape(batch, width, 3, 3), generated[:, -1]
        # one group a row of the batch, since each row has its own kernel
        return F.conv2d(features.flatten(0, 1).unsqueeze(0), kernel, bias, padding=1, groups=batch).squeeze(0)


class PlainProjector(nn.Module):
    """In place of the projector: one learned weight a channel, the same for all sentences, on the same grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Logits (B, 4h, 4w) of a map (B, width, h, w)."""
        return F.interpolate(self.out(features), scale_factor=4, mode="bilinear", align_corners=False).squeeze(1)


def sine_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of the places 0 to length - 1, (length, width)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def grid_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """The column's sine positions beside the row's, half of the width each, (rows * columns, width)."""
    across = sine_positions(columns, width // 2, device).expand(rows, -1, -1)
    down = sine_positions(rows, width // 2, device).unsqueeze(1).expand(-1, columns, -1)
    return torch.cat([across, down], dim=2).flatten(0, 1)
