"""A small model with random weights, and images that tell when they are read."""

from dataclasses import dataclass, field

import jax

from jaxood.data.images import Arrays
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.preprocessing import Preprocessing


def untrained_digits() -> LoadedModel:
    """Six classes of images of 8 x 8."""
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    return LoadedModel(network, Preprocessing(8, 8), "digits_cnn", "digits", "hash")


@dataclass(frozen=True, eq=False)
class Watched(Arrays):
    """Writes down its name when it is read."""

    read: list[str] = field(default_factory=list)

    def batches(self, preprocessing, batch_size, start=0):
        self.read.append(self.name)
        return super().batches(preprocessing, batch_size, start)
