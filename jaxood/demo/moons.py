"""Two moons in a plane, and a network that tells one from the other.

The network is a multilayer perceptron; its last hidden layer gives the features. Its units are
sines: beyond the data, rectified ones would go on in straight lines, with the same direction
however far, so that no cosine between features could tell far from near.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxood.heads import LinearHead
from jaxood.outputs import ModelOutputs, model_outputs

WIDTH = 64  # of the hidden layers
STEPS = 2000
LEARNING_RATE = 3e-3
POINTS = 1000  # a moon pair for training, as many more for the threshold
NOISE = 0.1  # standard deviation; a moon has radius 1


def two_moons(seed: int) -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Twice `POINTS` noisy points on two interleaved half circles, and which of them."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(2 * POINTS, noise=NOISE, random_state=seed)
    return points.astype(np.float32), labels


def train(points: Float[Array, "n 2"], labels: Int[Array, " n"], seed: int) -> list[LinearHead]:
    """The layers of the network, fitted to all points at once with Adam."""
    import optax

    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = (2, WIDTH, WIDTH, 2)
    layers = [
        LinearHead(jax.random.normal(key, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b))
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adam(LEARNING_RATE)

    def loss(layers):
        logits = forward(layers, points).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, _):
        layers, state = carry
        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return (optax.apply_updates(layers, updates), state), None

    start = layers, optimizer.init(layers)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction promotes
        return jax.jit(lambda: jax.lax.scan(step, start, length=STEPS)[0][0])()


def forward(layers: Sequence[LinearHead], points: Float[Array, "n 2"]) -> ModelOutputs:
    """Features and logits of points; the last layer is the head."""
    hidden = points
    for layer in layers[:-1]:
        hidden = jnp.sin(layer(hidden))
    return model_outputs(layers[-1], hidden)
