"""NAC-UE: how often training images brought the neurons of several layers to the same state.

  state  = sigmoid(alpha mean_positions(z * dKL(uniform || softmax) / dz))     of each channel
  score  = sum over layers of mean over channels of min(count / filled, 1)

count: of the training images whose state of that channel lies in the same of `bins` intervals.

Liu, Tian, Li, Ma, Wang: "Neuron Activation Coverage: Rethinking Out-of-distribution Detection and
Generalization", ICLR 2024: intervals of equal length ("equal"). pytorch-ood's are narrower towards
0 and 1 ("geometric"), and its alpha, bins and filled are the defaults here; the paper tunes them
for every layer (its borders are rounded to float32, which may count a state within 3e-8 of 0 on
the other side of it). Channels that are 0 for every training image have no say. By default the last
layer of each block; `layers=all`, or names joined by "/"; a model without named layers has one,
its feature map. Of tokens without the class token.

The gradient runs from the logits back to the first of the layers, and no further.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxood.attribution.rewrite import with_plain_kernels
from jaxood.compiling import images_a_step, in_steps
from jaxood.context import Context, Extractor, StagedModel, as_map, layers_of
from jaxood.detectors.contract import Detector
from jaxood.detectors.layers import side_by_side
from jaxood.detectors.statistics import BLOCK
from jaxood.errors import require

Spacing = Literal["equal", "geometric"]
EDGE = 1e-6  # where the first geometric interval begins, as if there were nothing below


@dataclass(frozen=True)
class NeuronStates(Extractor):
    """The mean over positions of value times gradient of the divergence, a row a layer."""

    name: ClassVar[str] = "neuron-states"

    layers: str = "ends"

    def stages(self, model: StagedModel) -> tuple[str, ...]:
        return layers_of(model, self.layers)[:1]

    def __call__(self, context: Context) -> Float[Array, "n l c"]:
        model = context.model
        if not isinstance(model, StagedModel):
            context.require_mean_pooling("nac")
            (values,) = context.maps(self.layers)
            gradient = jax.grad(partial(_divergence, context.at().tail))(values)
            return side_by_side([(values * gradient).mean(axis=(1, 2))])
        names = layers_of(model, self.layers)
        first = context.at(names[0]).activation
        states = partial(_products, model, names)
        return in_steps(states, (first,), images_a_step(*context.images.shape[1:3]))


def _products(
    model: StagedModel, names: Sequence[str], first: Float[Array, "n ..."]
) -> Float[Array, "n l c"]:
    """From what the first of the layers gave."""

    def products(first):
        activations, backwards = [first], []
        for before, name in pairwise(names):
            run = partial(model.run, start=before, stop=name)
            activation, backward = jax.vjp(run, activations[-1])
            activations.append(activation)
            backwards.append(backward)

        def tail(activation):
            return model.outputs(model.run(activation, start=names[-1])).logits

        gradients = [jax.grad(partial(_divergence, tail))(activations[-1])]
        for backward in reversed(backwards):
            gradients.append(*backward(gradients[-1]))
        pairs = zip(activations, reversed(gradients), strict=True)
        products = [as_map(model, values) * as_map(model, slope) for values, slope in pairs]
        return side_by_side([product.mean(axis=(1, 2)) for product in products])

    return with_plain_kernels(products)(first)


def _divergence(
    tail: Callable[[Float[Array, "n ..."]], Float[Array, "n k"]], activation: Float[Array, "n ..."]
) -> Float[Array, ""]:
    """KL(uniform || softmax) but for a constant, added up over images."""
    return -jax.nn.log_softmax(tail(activation), axis=1).mean(axis=1).sum()


class NACState(NamedTuple):
    """What a state in each interval adds to the score."""

    covered: Float[Array, "l c m"]


@dataclass(frozen=True)
class NAC(Detector):
    """How well the training images cover the states of the neurons."""

    name: ClassVar[str] = "nac"
    paper: ClassVar[str] = "Liu, Tian, Li, Ma, Wang, ICLR 2024"
    State: ClassVar[type] = NACState
    needs_train: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("alpha", "filled")

    alpha: float = 100.0
    bins: int = 50
    filled: int = 50
    spacing: Spacing = "equal"
    layers: str = "ends"

    def __post_init__(self):
        require(self.alpha > 0, "nac.alpha", self.alpha, "a positive number")
        require(self.bins > 1, "nac.bins", self.bins, "at least 2")
        require(self.filled > 0, "nac.filled", self.filled, "a positive number of images")

    @property
    def extractors(self):
        return (NeuronStates(self.layers),)

    def _rows(self, outputs):
        return outputs.extras[self.extractors[0].key]

    def _interval(self, rows: Float[Array, "n l c"]) -> Int[Array, "n l c"]:
        # Without the sigmoid, of which float32 has nothing left to tell near 1.
        borders = jnp.asarray(_logits_of_borders(self.bins, self.spacing))
        return jnp.searchsorted(borders, self.alpha * rows, side="right")

    def fit(self, train, labels, head):
        rows = np.asarray(self._rows(train))
        if len(rows) < self.filled:
            line = "method %s: %d training images, of which no interval gets %d; better more"
            logging.getLogger("jaxood").warning(line, self.name, len(rows), self.filled)
        _, layers, channels = rows.shape
        neurons, m = layers * channels, self.bins
        counts, alive = np.zeros(neurons * m, np.int64), np.zeros((layers, channels), bool)
        offsets = m * np.arange(neurons)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            alive |= (block != 0).any(axis=0)
            intervals = np.asarray(self._interval(jnp.asarray(block))).reshape(len(block), -1)
            counts += np.bincount((intervals + offsets).ravel(), minlength=neurons * m)
        covered = np.minimum(counts.reshape(layers, channels, m) / self.filled, 1.0)
        shares = alive / np.maximum(alive.sum(axis=1, keepdims=True), 1)
        return NACState(jnp.asarray(covered * shares[..., None], jnp.float32))

    def score(self, state, outputs, head):
        rows = jnp.asarray(self._rows(outputs))
        _, layers, channels = rows.shape
        at = jnp.arange(layers)[None, :, None], jnp.arange(channels)[None, None, :]
        return state.covered[*at, self._interval(rows)].sum(axis=(1, 2))


def _logits_of_borders(bins: int, spacing: Spacing) -> Float[np.ndarray, " b"]:
    """Where one interval of states ends and the next begins, before the sigmoid."""
    borders = np.arange(1, bins) / bins
    if spacing == "geometric":
        left, right = (np.geomspace(EDGE, 0.5, n + 1)[1:] for n in (bins // 2, bins - bins // 2))
        borders = np.concatenate([left, 1 - right[-2::-1]])
    return np.log(borders / (1 - borders)).astype(np.float32)
