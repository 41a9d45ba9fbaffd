"""Swin Transformer (Liu et al., ICCV 2021), as torchvision has it.

Blocks that attend within windows of 7 x 7 positions, every other one within windows moved by half
of that, with a bias for each offset between two positions. The last LayerNorm comes before the
pooling: it is a stage, and the feature map what it gives.
"""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.transformer import (
    Dense,
    LayerNorm,
    PatchStem,
    attend,
    from_windows,
    gelu,
    to_windows,
)

EPSILON = 1e-5  # of every LayerNorm
WINDOW = 7
APART = -100.0  # added to the scores of positions that only the roll has brought together


@dataclass(frozen=True)
class Design:
    """Blocks and heads of the four groups, channels of the first; each next has twice as many."""

    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    width: int


DESIGNS = {"swin_t": Design((2, 2, 6, 2), (3, 6, 12, 24), 96)}


class Merging(nnx.Module):
    """The channels of 2 x 2 positions side by side, LayerNorm, half as many of them."""

    def __init__(self, width: int):
        self.norm = LayerNorm(4 * width, EPSILON)
        self.reduction = Dense(4 * width, 2 * width, bias=False)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        _, height, width, _ = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(jnp.concatenate(corners, axis=-1)))


def offset_indices() -> np.ndarray:
    """Which entry of the bias table each pair of positions in a window takes.

    Entries lie in the row-major order of the offsets (rows, columns), from -6, -6 to 6, 6.
    """
    positions = np.array(list(itertools.product(range(WINDOW), repeat=2)))
    rows, columns = np.moveaxis(positions[:, None] - positions[None] + WINDOW - 1, -1, 0)
    return rows * (2 * WINDOW - 1) + columns


def apart(height: int, width: int, shifts: tuple[int, int]) -> Float[np.ndarray, "w t t"]:
    """For each window of a rolled map, `APART` where two positions were not neighbours before."""
    regions = [
        np.digitize(np.arange(size), [size - WINDOW, size - shift] if shift else [size - WINDOW])
        for size, shift in zip((height, width), shifts, strict=True)
    ]
    number = 3 * regions[0][:, None] + regions[1][None]
    squares = number.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    windows = squares.transpose(0, 2, 1, 3).reshape(-1, WINDOW * WINDOW)
    return np.where(windows[:, :, None] == windows[:, None, :], 0.0, APART).astype(np.float32)


class Block(nnx.Module):
    """Window attention and a two-layer network, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int, shifted: bool):
        self.norm1 = LayerNorm(width, EPSILON)
        self.qkv = Dense(width, 3 * width)
        self.position_bias = nnx.Param(jnp.zeros(((2 * WINDOW - 1) ** 2, heads)))
        self.projection = Dense(width, width)
        self.norm2 = LayerNorm(width, EPSILON)
        self.fc1 = Dense(width, 4 * width)
        self.fc2 = Dense(4 * width, width)
        self.heads, self.shifted = heads, shifted

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))

    def attention(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        _, height, width, _ = x.shape
        padded = height + -height % WINDOW, width + -width % WINDOW
        below, right = padded[0] - height, padded[1] - width
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
        # One window over the whole of an axis has nowhere to move.
        down, across = (WINDOW // 2 if self.shifted and size > WINDOW else 0 for size in padded)
        x = jnp.roll(x, (-down, -across), axis=(1, 2))
        windows = to_windows(x, WINDOW)
        qkv = self.qkv(windows).reshape(*windows.shape[:2], 3, self.heads, -1)
        bias = self.position_bias[...][offset_indices()].transpose(2, 0, 1)
        if down or across:
            bias = bias[None] + jnp.asarray(apart(*padded, (down, across)), bias.dtype)[:, None]
        query, key, value = (qkv[:, :, part] for part in range(3))
        mixed = attend(query, key, value, bias)
        x = from_windows(self.projection(mixed.reshape(windows.shape)), WINDOW, *padded)
        return jnp.roll(x, (down, across), axis=(1, 2))[:, :height, :width]


def swin(design: Design, num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    width = design.width
    stages: dict[str, nnx.Module] = {"features.0": PatchStem(width, EPSILON)}
    ends = []
    for group, (depth, heads) in enumerate(zip(design.depths, design.heads, strict=True)):
        if group:
            stages[f"features.{2 * group}"] = Merging(width)
            width *= 2
        for index in range(depth):
            stages[f"features.{2 * group + 1}.{index}"] = Block(width, heads, index % 2 == 1)
        ends.append(f"features.{2 * group + 1}.{depth - 1}")
    stages["norm"] = LayerNorm(width, EPSILON)
    ends[-1] = "norm"
    return Backbone(stages, LinearClassifier(width, num_classes), block_ends=ends)
