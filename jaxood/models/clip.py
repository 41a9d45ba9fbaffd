"""The image tower of CLIP (Radford et al., ICML 2021): ViT-B/16.

A vision transformer with a LayerNorm before its first block; the last LayerNorm and the projection
into the space that images and texts share are stages, so that pooled is the class token's embedding
and the feature map the patches', which reach no logit. The head is one of cosines, with a column a
text. A checkpoint holds none: see `jaxood.head`.

OpenAI's and MetaCLIP's networks have `quick` activations, x sigmoid(1.702 x) for GELU, with the
same weights otherwise: which it is, no checkpoint tells.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import CosineClassifier
from jaxood.models.transformer import Dense, LayerNorm, gelu, quarter_ends
from jaxood.models.vit import Block, Tokens, VisionTransformer

EPSILON = 1e-5  # of every LayerNorm


def quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


class Stem(nnx.Module):
    """Tokens, LayerNorm."""

    def __init__(self, image_size: int, patch: int, width: int):
        self.tokens = Tokens(image_size, patch, width, bias=False)
        self.norm = LayerNorm(width, EPSILON)

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n t c"]:
        return self.norm(self.tokens(images))


def clip(
    num_classes: int = 0,
    quick: bool = False,
    image_size: int = 224,
    patch: int = 16,
    depth: int = 12,
    width: int = 768,
    heads: int = 12,
    space: int = 512,
) -> VisionTransformer:
    """Builds the network with zero weights; ViT-B/16 unless told otherwise."""
    stages: dict[str, nnx.Module] = {"conv1": Stem(image_size, patch, width)}
    activation = quick_gelu if quick else gelu
    for index in range(depth):
        block = Block(width, heads, 4 * width, epsilon=EPSILON, activation=activation)
        stages[f"resblocks.{index}"] = block
    stages |= {"ln_post": LayerNorm(width, EPSILON), "proj": Dense(width, space)}
    ends = [f"resblocks.{index}" for index in quarter_ends(depth)]
    return VisionTransformer(
        stages,
        CosineClassifier(space, num_classes),
        cam_layer=f"resblocks.{depth - 2}",
        pooling="class token",
        block_ends=[*ends[:-1], "proj"],
    )
