"""ConvNeXt (Liu et al., CVPR 2022), as torchvision has it; timm's is the same network.

Blocks of a 7x7 depthwise convolution, LayerNorm, a two-layer network, and a learnt scale of each
channel. The LayerNorm after pooling belongs to the head.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, NormLinearClassifier
from jaxood.models.layers import Conv
from jaxood.models.transformer import Dense, LayerNorm, PatchStem, gelu, patches, scaled

EPSILON = 1e-6  # of every LayerNorm


@dataclass(frozen=True)
class Design:
    """Blocks and channels of the four groups."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]


DESIGNS = {
    "convnext_tiny": Design((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_base": Design((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class Downsample(nnx.Module):
    """LayerNorm, linear embedding of patches of 2 x 2 positions."""

    def __init__(self, inputs: int, outputs: int):
        self.norm = LayerNorm(inputs, EPSILON)
        self.projection = Dense(2 * 2 * inputs, outputs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        return self.projection(patches(self.norm(x), 2))


class Block(nnx.Module):
    """Each channel convolved alone, LayerNorm, widen, narrow, scale, add the shortcut."""

    def __init__(self, width: int):
        self.depthwise = Conv(width, width, 7, groups=width, normed=True)
        self.norm = LayerNorm(width, EPSILON)
        self.fc1 = Dense(width, 4 * width)
        self.fc2 = Dense(4 * width, width)
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        branch = self.fc2(gelu(self.fc1(self.norm(self.depthwise(x)))))
        return x + scaled(branch, self.scale[...])


def convnext(design: Design, num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    width = design.widths[0]
    stages: dict[str, nnx.Module] = {"features.0": PatchStem(width, EPSILON)}
    ends = []
    for group, depth in enumerate(design.depths):
        if group:
            inputs, width = width, design.widths[group]
            stages[f"features.{2 * group}"] = Downsample(inputs, width)
        for index in range(depth):
            stages[f"features.{2 * group + 1}.{index}"] = Block(width)
        ends.append(f"features.{2 * group + 1}.{depth - 1}")
    return Backbone(stages, NormLinearClassifier(width, num_classes, EPSILON), block_ends=ends)
