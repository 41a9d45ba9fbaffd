"""ResNet (He et al., CVPR 2016), with the stride on the 3x3 convolution as torchvision has it.

timm's `resnet50` is the same network. The `_32x32` kind is OpenOOD's for CIFAR: a 3x3 stem
without stride, and no max pooling.
"""

from flax import nnx
from jaxtyping import Array, Float

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, MaxPool, relu, with_shortcut


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        self.conv1 = Conv(inputs, width, 3, stride, activation=relu)
        self.conv2 = Conv(width, width, 3)
        self.downsample = shortcut(inputs, width, stride)
        self.activation = relu

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        branch = self.conv2(self.conv1(x))
        return with_shortcut(branch, self.downsample(x) if self.downsample else x, self.activation)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        outputs = width * self.expansion
        self.conv1 = Conv(inputs, width, activation=relu)
        self.conv2 = Conv(width, width, 3, stride, activation=relu)
        self.conv3 = Conv(width, outputs)
        self.downsample = shortcut(inputs, outputs, stride)
        self.activation = relu

    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        branch = self.conv3(self.conv2(self.conv1(x)))
        return with_shortcut(branch, self.downsample(x) if self.downsample else x, self.activation)


def shortcut(inputs: int, outputs: int, stride: int) -> Conv | None:
    """A strided 1x1 convolution where the shape changes."""
    return None if inputs == outputs and stride == 1 else Conv(inputs, outputs, 1, stride)


def resnet(
    block: type[BasicBlock] | type[Bottleneck],
    depths: tuple[int, ...],
    num_classes: int,
    small_images: bool = False,
) -> Backbone:
    """Builds a ResNet of `depths` blocks in its four groups, with zero weights."""
    if small_images:
        stages: dict[str, nnx.Module] = {"conv1": Conv(3, 64, 3, activation=relu)}
    else:
        stages = {
            "conv1": Conv(3, 64, 7, 2, activation=relu),
            "maxpool": MaxPool(3, 2, 1),
        }
    inputs = 64
    for group, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if group > 0 and index == 0 else 1
            stages[f"layer{group + 1}.{index}"] = block(inputs, 64 * 2**group, stride)
            inputs = 64 * 2**group * block.expansion
    ends = [f"layer{group}.{depth - 1}" for group, depth in enumerate(depths, 1)]
    return Backbone(stages, LinearClassifier(inputs, num_classes), block_ends=ends)
