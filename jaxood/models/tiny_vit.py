"""TinyViT (Wu et al., ECCV 2022), as timm has it.

A convolutional stage, then three of transformer blocks that attend within windows, with a bias
for each offset between two positions, and a depthwise convolution between attention and MLP.
The LayerNorm after pooling belongs to the head.
"""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, NormLinearClassifier
from jaxood.models.layers import Conv
from jaxood.models.transformer import Dense, LayerNorm, attend, from_windows, gelu, to_windows

EPSILON = 1e-5  # of every LayerNorm
DEPTHS = (2, 2, 6, 2)


@dataclass(frozen=True)
class Design:
    """Channels, heads and window sides of the four stages; the first has no attention."""

    widths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)


DESIGNS = {
    "tiny_vit_5m_224": Design((64, 128, 160, 320), (2, 4, 5, 10)),
    "tiny_vit_11m_224": Design((64, 128, 256, 448), (2, 4, 8, 14)),
    "tiny_vit_21m_224": Design((96, 192, 384, 576), (3, 6, 12, 18)),
    "tiny_vit_21m_384": Design((96, 192, 384, 576), (3, 6, 12, 18), (12, 12, 24, 12)),
}


class Chain(nnx.Module):
    """Convolutions one after the other."""

    def __init__(self, *convolutions: Conv):
        for index, convolution in enumerate(convolutions, 1):
            setattr(self, f"conv{index}", convolution)
        self.length = len(convolutions)

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        for index in range(1, self.length + 1):
            x = getattr(self, f"conv{index}")(x)
        return x


class MBConv(Chain):
    """Widen, convolve each channel alone, narrow, add the shortcut, activate."""

    def __init__(self, width: int):
        wide = 4 * width
        super().__init__(
            Conv(width, wide, activation=gelu),
            Conv(wide, wide, 3, groups=wide, activation=gelu),
            Conv(wide, width),
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        return gelu(super().__call__(x) + x)


def patch_merging(inputs: int, outputs: int) -> Chain:
    """Half the height and width, other channels."""
    return Chain(
        Conv(inputs, outputs, activation=gelu),
        Conv(outputs, outputs, 3, 2, groups=outputs, activation=gelu),
        Conv(outputs, outputs),
    )


def offset_indices(window: int) -> np.ndarray:
    """Which entry of the bias table each pair of positions in a window takes.

    Entries are numbered by their first use in row-major order, which is the order of the
    absolute offsets (rows, columns) from the first position.
    """
    positions = np.array(list(itertools.product(range(window), repeat=2)))
    rows, columns = np.moveaxis(np.abs(positions[:, None] - positions[None]), -1, 0)
    return rows * window + columns


class Block(nnx.Module):
    """Window attention, depthwise convolution, MLP."""

    def __init__(self, width: int, heads: int, window: int):
        self.norm = LayerNorm(width, EPSILON)
        self.qkv = Dense(width, 3 * width)
        self.attention_biases = nnx.Param(jnp.zeros((heads, window * window)))
        self.projection = Dense(width, width)
        self.local_conv = Conv(width, width, 3, groups=width)
        self.mlp_norm = LayerNorm(width, EPSILON)
        self.fc1 = Dense(width, 4 * width)
        self.fc2 = Dense(4 * width, width)
        self.heads, self.window = heads, window

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        x = self.local_conv(x + self.attention(x))
        return x + self.fc2(gelu(self.fc1(self.mlp_norm(x))))

    def attention(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        _, height, width, _ = x.shape
        side = self.window
        below, right = -height % side, -width % side
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
        x = to_windows(x, side)
        # Each head's query, key and value lie together.
        qkv = self.qkv(self.norm(x)).reshape(*x.shape[:2], self.heads, 3, -1)
        bias = jnp.take(self.attention_biases[...], offset_indices(side), axis=1)
        query, key, value = (qkv[:, :, :, part] for part in range(3))
        mixed = attend(query, key, value, bias)
        x = self.projection(mixed.reshape(x.shape))
        return from_windows(x, side, height + below, width + right)[:, :height, :width]


def tiny_vit(design: Design, num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    width = design.widths[0]
    stages: dict[str, nnx.Module] = {
        "patch_embed": Chain(
            Conv(3, width // 2, 3, 2, activation=gelu), Conv(width // 2, width, 3, 2)
        )
    }
    for index in range(DEPTHS[0]):
        stages[f"stages.0.blocks.{index}"] = MBConv(width)
    for group in range(1, 4):
        inputs, width = width, design.widths[group]
        stages[f"stages.{group}.downsample"] = patch_merging(inputs, width)
        for index in range(DEPTHS[group]):
            block = Block(width, design.heads[group], design.windows[group])
            stages[f"stages.{group}.blocks.{index}"] = block
    ends = [f"stages.{group}.blocks.{depth - 1}" for group, depth in enumerate(DEPTHS)]
    classifier = NormLinearClassifier(width, num_classes, EPSILON)
    return Backbone(stages, classifier, block_ends=ends)
