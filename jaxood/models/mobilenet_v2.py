"""MobileNetV2 (Sandler et al., CVPR 2018), width 1.0, as torchvision has it."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, pads_of, relu6, with_shortcut

# expansion, output channels, repeats, stride of the first (table 2 of the paper)
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Numbers of a wide map that are computed at once: the block on 112 x 112 takes 4.8 MB, and in bands
# MobileNetV2 takes 0.98 of its time, where two programs share a cache.
BAND = 1 << 20


class InvertedResidual(nnx.Module):
    """Widen by 1x1, convolve each channel alone, narrow by 1x1 without activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        size: int = 3,
        stride: int = 1,
        padding: int | str | None = None,
    ):
        width = inputs * expansion
        self.expand = Conv(inputs, width, activation=relu6) if expansion > 1 else None
        self.depthwise = Conv(width, width, size, stride, padding, width, relu6)
        self.project = Conv(width, outputs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        wide = self.expand(x) if self.expand else x
        narrow = self.project(self.depthwise(wide))
        return with_shortcut(narrow, x) if self.residual else narrow

    def in_bands(self, x: Float[Array, "1 h w c"]) -> Array:
        """The same for a CPU, in bands of rows where the wide map is larger than its cache."""
        (size, _, _, width), stride = self.depthwise.kernel.shape, self.depthwise.stride
        above, below = pads_of(x.shape[1], size, stride, self.depthwise.padding)
        height = (x.shape[1] + above + below - size) // stride + 1
        wanted = min(-(-x.shape[1] * x.shape[2] * width // BAND), height)
        bands = next((some for some in range(wanted, 2 * wanted) if height % some == 0), 1)
        if self.residual or not self.expand or bands == 1:
            return self(x)
        parts, rows = [], height // bands
        for start in range(0, height, rows):
            first = start * stride - above
            end = first + (rows - 1) * stride + size
            wide = self.expand(x[:, max(first, 0) : end])
            zeros = max(-first, 0), max(end - x.shape[1], 0)
            parts.append(self.project(self.depthwise(wide, zeros)))
        return jnp.concatenate(parts, axis=1)


def mobilenet_v2(num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    stages: dict[str, nnx.Module] = {"features.0": Conv(3, 32, 3, 2, activation=relu6)}
    inputs = 32
    for expansion, outputs, repeats, stride in BLOCKS:
        for index in range(repeats):
            block = InvertedResidual(inputs, outputs, expansion, stride=stride if index == 0 else 1)
            stages[f"features.{len(stages)}"] = block
            inputs = outputs
    stages[f"features.{len(stages)}"] = Conv(inputs, 1280, activation=relu6)
    ends = [f"features.{index}" for index in (1, 3, 6, 13, 18)]
    return Backbone(stages, LinearClassifier(1280, num_classes), block_ends=ends)
