"""DINOv2 (Oquab et al., TMLR 2024) with its linear classifier on ImageNet, at 224 x 224 pixels.

A vision transformer of 14 x 14 patches, trained without labels, with registers (`_reg4`) or not.
Its last LayerNorm is a stage; what is pooled are the class token and the mean of the patch tokens,
side by side, which the linear layer of "layers=1" takes. As a checkpoint of both:

    model = torch.hub.load("facebookresearch/dinov2", "dinov2_vits14_lc", layers=1)
    torch.save(model.state_dict(), "dinov2_vits14_lc.pth")

The published backbones alone (`_pretrain.pth`), and timm's, get a head by `jaxood.head`.
It was trained on images of 518 x 518: its table of positions is resized as its own code does it.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import LinearClassifier
from jaxood.models.transformer import LayerNorm, quarter_ends
from jaxood.models.vit import EPSILON, Block, Tokens, VisionTransformer
from jaxood.outputs import ModelOutputs, model_outputs

SIDE, PATCH = 224, 14


class DINOv2(VisionTransformer):
    """Pooled are the class token and the mean of the patch tokens, after the norm."""

    def outputs(self, features: Float[Array, "n t c"]) -> ModelOutputs:
        features = features.astype(jnp.float32)
        grid = self.spatial(features)
        pooled = jnp.concatenate([features[:, 0], grid.mean(axis=(1, 2))], axis=1)
        return model_outputs(self.head, pooled, grid)


def dinov2(
    num_classes: int = 1000,
    depth: int = 12,
    width: int = 384,
    heads: int = 6,
    registers: int = 0,
) -> DINOv2:
    """Builds the network with zero weights; ViT-S/14 unless told otherwise."""
    tokens = Tokens(SIDE, PATCH, width, registers=registers)
    stages: dict[str, nnx.Module] = {"patch_embed": tokens}
    for index in range(depth):
        stages[f"blocks.{index}"] = Block(width, heads, 4 * width, scaled=True)
    stages["norm"] = LayerNorm(width, EPSILON)
    ends = [f"blocks.{index}" for index in quarter_ends(depth)]
    classifier = LinearClassifier(2 * width, num_classes)
    network = DINOv2(stages, classifier, pooling="other", block_ends=[*ends[:-1], "norm"])
    network.registers = registers
    return network
