"""Models with random weights, and images that tell when they are read."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from jaxood.data.images import Arrays
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.loading import abstract_model, fill, parameters
from jaxood.models.registry import ARCHITECTURES, LoadedModel
from jaxood.preprocessing import Preprocessing


def untrained_digits() -> LoadedModel:
    """Six classes of images of 8 x 8."""
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    return LoadedModel(network, Preprocessing(8, 8), "digits_cnn", "digits", "hash")


def drawn_network(architecture):
    """Random weights, of the size that keeps activations of order one."""
    tag, entry = next(iter(ARCHITECTURES[architecture].tags.items()))
    network, generator = abstract_model(architecture, 1000), np.random.default_rng(0)
    shapes = {path: leaf.shape for path, leaf in parameters(network).items()}

    def draw(path):
        shape = shapes[path]
        scale = np.sqrt(1 / np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        return jnp.asarray(generator.normal(0, scale, shape), "float32")

    return LoadedModel(fill(network, draw), entry.preprocessing, architecture, tag, "random")


@dataclass(frozen=True, eq=False)
class Watched(Arrays):
    """Writes down its name when it is read."""

    read: list[str] = field(default_factory=list)

    def batches(self, preprocessing, batch_size, start=0):
        self.read.append(self.name)
        return super().batches(preprocessing, batch_size, start)
