"""A small classifier that can be followed in float64: patches, a ReLU layer, mean, head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxood.context import Context
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.detectors.scoring import host_outputs
from jaxood.heads import CosineHead, LinearHead, NormLinearHead
from jaxood.outputs import ModelOutputs, model_outputs

CHANNELS, CLASSES, SIZE = 24, 6, 8
BATCH = 32
DEAD, CONSTANT = 3, 5
NEGATIVES = 105  # of a cosine head: more than a hundred groups take
COSINE = ("mcm", "neglabel")  # what wants a cosine head
NAMES = [*DETECTORS, *TRANSFORMS, *VIEWS]
_RNG = np.random.default_rng(7)
PATCH_WEIGHTS = _RNG.normal(size=(12, CHANNELS)).astype(np.float32) * 0.6
PATCH_WEIGHTS[:, [DEAD, CONSTANT]] = 0.0
PATCH_BIAS = np.full(CHANNELS, 0.1, np.float32)
PATCH_BIAS[DEAD], PATCH_BIAS[CONSTANT] = -1.0, 0.5
TEMPLATES = _RNG.normal(size=(CLASSES, SIZE, SIZE, 3)).astype(np.float32)


def patches(images):
    """The four corners of every 2 x 2 patch; for NumPy, JAX and torch arrays alike."""
    return [images[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def images_of(count: int, seed: int, spread: float = 1.2):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    noise = rng.normal(size=(count, SIZE, SIZE, 3)).astype(np.float32)
    return TEMPLATES[labels] + np.float32(spread) * noise, labels


def feature_map(images):
    values = jnp.concatenate(patches(images), axis=-1)
    product = jnp.matmul(values, PATCH_WEIGHTS, precision="highest")
    return jax.nn.relu(product + PATCH_BIAS[None, None, None])


@functools.cache
def head_of(kind: str):
    """A head that classifies: least squares on one-hot targets; the cosine to the class means."""
    images, labels = images_of(600, 1)
    pooled = np.asarray(feature_map(images)).mean(axis=(1, 2)).astype(np.float64)
    rng = np.random.default_rng(3)
    scale, shift = rng.uniform(0.5, 1.5, CHANNELS), 0.1 * rng.normal(size=CHANNELS)
    if kind == "norm":
        centred = pooled - pooled.mean(axis=1, keepdims=True)
        pooled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        pooled = pooled * scale + shift
    if kind == "cosine":
        pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        means = [pooled[labels == label].mean(axis=0) for label in range(CLASSES)]
        negatives = jnp.asarray(rng.normal(size=(CHANNELS, NEGATIVES)), jnp.float32)
        return CosineHead(jnp.asarray(means, jnp.float32).T, 100.0, negatives)
    design = np.concatenate([pooled, np.ones((len(pooled), 1))], axis=1)
    ridge = 1e-2 * np.eye(CHANNELS + 1)
    targets = 5.0 * np.eye(CLASSES)[labels]
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ targets)
    bias = solution[-1] - (30.0 if kind == "negative" else 0.0)
    kernel, bias, scale, shift = (
        jnp.asarray(part, jnp.float32) for part in (solution[:-1], bias, scale, shift)
    )
    if kind == "norm":
        return NormLinearHead(scale, shift, kernel, bias)
    return LinearHead(kernel, bias)


class ToyModel:
    """The classifier, as extractors see it."""

    def __init__(self, head):
        self.head = head

    def __call__(self, images) -> ModelOutputs:
        features = feature_map(images)
        return model_outputs(self.head, features.mean(axis=(1, 2)), features)


def context_of(images, head) -> Context:
    model = ToyModel(head)
    outputs = model(images)
    return Context(images, outputs, model, jnp.argmax(outputs.logits, axis=1), jax.random.key(0))


def extractors() -> dict:
    return {key: one for name in NAMES for key, one in parse_method(name).extractors.items()}


@functools.partial(jax.jit, static_argnums=2)
def _extract(images, head, wanted):
    context = context_of(images, head)
    extras = {name: one(context) for name, one in wanted}
    return context.outputs.pooled, context.outputs.logits, extras


def extract(images, head) -> ModelOutputs:
    """One pass, as a run makes it: everything that any method reads, on the host."""
    wanted = tuple(extractors().items())
    if isinstance(head, CosineHead):  # refused by coalitions
        wanted = tuple((key, one) for key, one in wanted if not key.startswith("sfp"))
    found = [_extract(part, head, wanted) for part in np.split(images, len(images) // BATCH)]
    return host_outputs(head, *jax.tree.map(lambda *parts: np.concatenate(parts), *found))


def home(name: str) -> str:
    """A kind of head that the method works with."""
    return "cosine" if name in COSINE else "linear"


@functools.cache
def data(kind: str = "linear"):
    """(head, training outputs, labels with some of them wrong, test images, test outputs)."""
    head = head_of(kind)
    images, labels = images_of(480, 11)
    test_images, _ = images_of(BATCH, 12, spread=2.0)
    return head, extract(images, head), labels, test_images, extract(test_images, head)
