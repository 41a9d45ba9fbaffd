"""A small network for 8x8 digits: three 3x3 convolutions, a 4x4 map of 64 channels."""

import jax
from flax import nnx

from jaxood.models.backbone import Backbone, LinearClassifier
from jaxood.models.layers import Conv, relu


def digits_cnn(num_classes: int = 6) -> Backbone:
    """Builds the network with zero weights; `initialise` prepares it for training."""
    stages = {
        "conv1": Conv(3, 32, 3, activation=relu),
        "conv2": Conv(32, 64, 3, 2, activation=relu),
        "conv3": Conv(64, 64, 3, activation=relu),
    }
    return Backbone(stages, LinearClassifier(64, num_classes), block_ends=("conv1", "conv3"))


def initialise(model: Backbone, key: jax.Array) -> None:
    """Fills the kernels in place: He et al., ICCV 2015, for the layers before a ReLU."""
    he = nnx.initializers.he_normal()
    assert isinstance(model.classifier, LinearClassifier)
    convolutions = [stage for stage in model.stages.values() if isinstance(stage, Conv)]
    kernels = [*(stage.kernel for stage in convolutions), model.classifier.kernel]
    for kernel, kernel_key in zip(kernels, jax.random.split(key, len(kernels)), strict=True):
        kernel[...] = he(kernel_key, kernel.shape)
