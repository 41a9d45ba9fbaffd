"""RegNetY (Radosavovic et al., CVPR 2020), as torchvision has it.

The published designs come from a rule (initial width, slope, step); what it gives is written
out here, so that a reader sees the network.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, SqueezeExcite, relu, with_shortcut

STEM_WIDTH = 32
TOGETHER = 4  # 400MF to 1.6GF take 0.95 to 0.97 of the time, for their many small operations


@dataclass(frozen=True)
class Design:
    """Blocks and channels of the four groups, and channels in each group of a convolution."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group_width: int


DESIGNS = {
    "regnet_y_400mf": Design((1, 3, 6, 6), (48, 104, 208, 440), 8),
    "regnet_y_800mf": Design((1, 3, 8, 2), (64, 144, 320, 784), 16),
    "regnet_y_1_6gf": Design((2, 6, 17, 2), (48, 120, 336, 888), 24),
    "regnet_y_3_2gf": Design((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    "regnet_y_8gf": Design((2, 4, 10, 1), (224, 448, 896, 2016), 56),
    "regnet_y_16gf": Design((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
}


class Block(nnx.Module):
    """1x1, grouped 3x3, squeeze-excitation, 1x1, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_width: int):
        groups = outputs // group_width
        self.proj = Conv(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else None
        self.a = Conv(inputs, outputs, activation=relu)
        self.b = Conv(outputs, outputs, 3, stride, groups=groups, activation=relu)
        self.se = SqueezeExcite(outputs, round(inputs / 4))  # of the inputs, as published
        self.c = Conv(outputs, outputs)
        self.activation = relu

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        branch = self.c(self.se(self.b(self.a(x))))
        return with_shortcut(branch, self.proj(x) if self.proj else x, self.activation)


def regnet(design: Design, num_classes: int = 1000) -> Backbone:
    """Builds the network with zero weights."""
    stages: dict[str, nnx.Module] = {"stem": Conv(3, STEM_WIDTH, 3, 2, activation=relu)}
    inputs = STEM_WIDTH
    for group, (depth, width) in enumerate(zip(design.depths, design.widths, strict=True), 1):
        for index in range(depth):
            stride = 2 if index == 0 else 1
            name = f"trunk_output.block{group}.block{group}-{index}"
            stages[name] = Block(inputs, width, stride, design.group_width)
            inputs = width
    ends = [
        f"trunk_output.block{group}.block{group}-{depth - 1}"
        for group, depth in enumerate(design.depths, 1)
    ]
    classifier = LinearClassifier(inputs, num_classes)
    return Backbone(stages, classifier, block_ends=ends, together=TOGETHER)
