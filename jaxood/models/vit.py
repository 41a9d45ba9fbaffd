"""Vision transformer (Dosovitskiy et al., ICLR 2021), as torchvision has it.

The class token, before the last LayerNorm, is what is pooled; that LayerNorm belongs to the head.
The patch tokens of the last block reach neither, so that the gradient of a logit with respect to
them is zero: class activation maps take the block before it (`cam_layer`).
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, NormLinearClassifier
from jaxood.models.layers import add_bias
from jaxood.models.transformer import Dense, LayerNorm, attend, gelu, patches, quarter_ends, scaled
from jaxood.outputs import ModelOutputs, model_outputs

EPSILON = 1e-6  # of every LayerNorm


class Tokens(nnx.Module):
    """Linear embedding of the patches, the class token before them, positions added.

    Registers (Darcet et al., ICLR 2024) are tokens between them, without positions.
    """

    def __init__(
        self, image_size: int, patch: int, width: int, bias: bool = True, registers: int = 0
    ):
        self.projection = Dense(patch * patch * 3, width, bias)
        self.class_token = nnx.Param(jnp.zeros(width))
        self.positions = nnx.Param(jnp.zeros((1 + (image_size // patch) ** 2, width)))
        self.registers = nnx.Param(jnp.zeros((registers, width))) if registers else None
        self.patch = patch

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n t c"]:
        n, width = len(images), self.class_token.shape[-1]
        x = self.projection(patches(images, self.patch)).reshape(n, -1, width)
        first = jnp.broadcast_to(self.class_token[...], (n, 1, width))
        x = add_bias(jnp.concatenate([first, x], axis=1), self.positions[...])
        if self.registers is None:
            return x
        registers = jnp.broadcast_to(self.registers[...], (n, *self.registers.shape))
        return jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)


class Block(nnx.Module):
    """Self-attention and a two-layer network, each after a LayerNorm and beside a shortcut.

    Where `scaled`, each channel of both is scaled (Touvron et al., ICCV 2021).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        scaled: bool = False,
        epsilon: float = EPSILON,
        activation: Callable[[Array], Array] = gelu,
    ):
        self.ln_1 = LayerNorm(width, epsilon)
        self.qkv = Dense(width, 3 * width)
        self.projection = Dense(width, width)
        self.ln_2 = LayerNorm(width, epsilon)
        self.fc1 = Dense(width, hidden)
        self.fc2 = Dense(hidden, width)
        self.scale_1 = nnx.Param(jnp.ones(width)) if scaled else None
        self.scale_2 = nnx.Param(jnp.ones(width)) if scaled else None
        self.heads = heads
        self.activation = activation

    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        n, tokens, width = x.shape
        qkv = self.qkv(self.ln_1(x)).reshape(n, tokens, 3, self.heads, -1)
        mixed = attend(*(qkv[:, :, part] for part in range(3)))
        x = x + _scaled(self.projection(mixed.reshape(n, tokens, width)), self.scale_1)
        return x + _scaled(self.fc2(self.activation(self.fc1(self.ln_2(x)))), self.scale_2)


def _scaled(branch: Float[Array, "n t c"], scale: nnx.Param | None) -> Float[Array, "n t c"]:
    return branch if scale is None else scaled(branch, scale[...])


class VisionTransformer(Backbone):
    """Stages pass tokens on; pooled is the class token, the feature map the patch tokens.

    Attributes:
      registers: how many tokens stand between the class token and the patches', and are neither.
    """

    registers = 0

    def outputs(self, features: Float[Array, "n t c"]) -> ModelOutputs:
        features = features.astype(jnp.float32)
        return model_outputs(self.head, features[:, 0], self.spatial(features))

    def spatial(self, activation: Float[Array, "n t c"]) -> Float[Array, "n h w c"]:
        grid = activation[:, 1 + self.registers :]
        side = round(grid.shape[1] ** 0.5)
        return grid.reshape(len(grid), side, side, -1)


def vit(
    num_classes: int = 1000,
    image_size: int = 224,
    patch: int = 16,
    depth: int = 12,
    width: int = 768,
    heads: int = 12,
) -> VisionTransformer:
    """Builds the network with zero weights; ViT-B/16 unless told otherwise."""
    stages: dict[str, nnx.Module] = {"conv_proj": Tokens(image_size, patch, width)}
    for index in range(depth):
        stages[f"encoder_layer_{index}"] = Block(width, heads, 4 * width)
    return VisionTransformer(
        stages,
        NormLinearClassifier(width, num_classes, EPSILON),
        cam_layer=f"encoder_layer_{depth - 2}",
        pooling="class token",
        block_ends=[f"encoder_layer_{index}" for index in quarter_ends(depth)],
    )
