"""Training of the digits network: seconds on two cores, cached."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxood.data.digits import ID_CLASSES, digits_train_and_test
from jaxood.files import make_folder
from jaxood.models.backbone import Backbone

EPOCHS = 60
BATCH = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
SEED = 0
VERSION = 1  # of this recipe: part of the cached file's name


def digits_weights(cache: Path) -> Path:
    """The weights file of the digits network, trained into `cache` when it is not there."""
    from jaxood.models.loading import save_weights
    from jaxood.models.weights_file import is_whole

    path = cache / f"digits_cnn-v{VERSION}.safetensors"
    if not is_whole(path):
        make_folder(cache)  # before a minute is spent
        save_weights(path, train_digits(), "digits_cnn", "digits")
    return path


def train_digits() -> Backbone:
    """Trains on digits 0 to 5, each image moved by up to one pixel; AdamW, cosine schedule."""
    from jaxood.models.digits_cnn import digits_cnn, initialise
    from jaxood.models.registry import ARCHITECTURES

    key = jax.random.key(SEED)
    model = digits_cnn(ID_CLASSES)
    initialise(model, key)
    train, _ = digits_train_and_test()
    (tag,) = ARCHITECTURES["digits_cnn"].tags.values()
    images = tag.preprocessing.normalise(jnp.asarray(train.images))
    labels = jnp.asarray(train.labels)

    generator = np.random.default_rng(SEED)
    orders = [generator.permutation(len(train)) for _ in range(EPOCHS)]
    steps = len(train) // BATCH
    batches = np.stack(orders)[:, : steps * BATCH].reshape(EPOCHS * steps, BATCH)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, len(batches))
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    graphdef, weights = nnx.split(model)

    # A step a call: XLA's convolutions are many times slower inside a compiled loop on a CPU.
    @jax.jit
    def step(weights, state, key, chosen):
        batch = shift(images[chosen], key)

        def loss(weights):
            logits = nnx.merge(graphdef, weights)(batch).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

        updates, state = optimizer.update(jax.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    state = optimizer.init(weights)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction promotes
        for step_key, chosen in zip(jax.random.split(key, len(batches)), batches, strict=True):
            weights, state = step(weights, state, step_key, chosen)
    return nnx.merge(graphdef, weights)


def shift(images: jax.Array, key: jax.Array) -> jax.Array:
    """Moves each image by -1, 0 or 1 pixels along both axes; edges repeat."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (len(images), 2), 0, 3)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, offsets)
