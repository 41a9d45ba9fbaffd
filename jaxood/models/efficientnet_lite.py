"""EfficientNet-Lite0: EfficientNet-B0 (Tan & Le, ICML 2019) with ReLU6, no squeeze-excitation.

Published by TensorFlow's authors, so its strided convolutions pad as TensorFlow does: the odd
zero goes after the image. timm's `tf_efficientnet_lite0` is the same network.
"""

from flax import nnx

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, relu6
from jaxood.models.mobilenet_v2 import InvertedResidual

# expansion, output channels, repeats, stride of the first, kernel size
BLOCKS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_lite0(num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    stages: dict[str, nnx.Module] = {"conv_stem": Conv(3, 32, 3, 2, "SAME", activation=relu6)}
    inputs = 32
    for expansion, outputs, repeats, stride, size in BLOCKS:
        for index in range(repeats):
            block = InvertedResidual(
                inputs, outputs, expansion, size, stride if index == 0 else 1, "SAME"
            )
            stages[f"blocks.{len(stages) - 1}"] = block
            inputs = outputs
    stages["conv_head"] = Conv(inputs, 1280, activation=relu6)
    ends = ("blocks.0", "blocks.2", "blocks.4", "blocks.10", "conv_head")
    return Backbone(stages, LinearClassifier(1280, num_classes), block_ends=ends)
