"""Multinomial logistic regression on features: a linear head for a backbone.

  minimise over W, b:  mean_i -log softmax(W^T z_i + b)_{y_i} + l2/2 |W|^2

z the features, standardised channel by channel, so that one `l2` means the same for any backbone;
the standardisation is then folded into the head. Convex: L-BFGS (Liu and Nocedal, 1989) from zero
gives one answer. Loss and gradient are taken on the device in float32, a block of rows at a time,
and summed on the host in float64: memory does not grow with the number of images. Compared with
scikit-learn, `C = 1 / (l2 n)` on standardised features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxood.detectors import statistics
from jaxood.outputs import AnyArray

BLOCK = 4096
STEPS = 500
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # tried in turn, the strongest first


class Labelled(NamedTuple):
    """Features, and the class of each row."""

    rows: Float[AnyArray, "n c"]
    labels: Int[np.ndarray, " n"]


class LinearProbe(NamedTuple):
    """Attributes:
    l2: the strength that it was fitted with.
    converged: whether no further step lowers what is minimised.
    """

    kernel: Float[np.ndarray, "c k"]
    bias: Float[np.ndarray, " k"]
    l2: float
    converged: bool


@jax.jit
def _losses(
    kernel: Float[Array, "c k"], bias: Float[Array, " k"], rows, labels, valid: Bool[Array, " n"]
) -> Float[Array, ""]:
    logits = jnp.matmul(rows, kernel, precision="highest") + bias[None]
    of_class = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.sum(jnp.where(valid, jax.nn.logsumexp(logits, axis=1) - of_class, 0.0))


_slopes = jax.jit(jax.value_and_grad(_losses, argnums=(0, 1)))


def _blocks(data: Labelled, mean=0.0, deviation=1.0) -> Iterator[tuple]:
    """Standardised rows, labels, and which are valid: all blocks of one size."""
    size = min(BLOCK, len(data.labels))
    for start in range(0, len(data.labels), size):
        rows = (np.asarray(data.rows[start : start + size]) - mean) / deviation
        missing = size - len(rows)
        labels = np.pad(data.labels[start : start + size], (0, missing)).astype(np.int32)
        padded = np.pad(rows.astype(np.float32), [(0, missing), (0, 0)])
        yield padded, labels, np.arange(size) < size - missing


def cross_entropy(kernel: np.ndarray, bias: np.ndarray, data: Labelled) -> float:
    """Mean over the rows, in nats."""
    head = np.asarray(kernel, np.float32), np.asarray(bias, np.float32)
    total = sum(float(_losses(*head, *block)) for block in _blocks(data))
    return total / len(data.labels)


def fit_linear(
    data: Labelled, classes: int, l2: float, start: LinearProbe | None = None
) -> LinearProbe:
    """The probe of one strength; `start` saves steps, and changes nothing else."""
    from scipy.optimize import minimize

    n, c = data.rows.shape
    mean = statistics.mean(data.rows)
    squares = sum(((block - mean) ** 2).sum(axis=0) for _, block in statistics.blocks(data.rows))
    deviation = np.sqrt(np.asarray(squares) / n)
    deviation[deviation <= statistics.SMALLEST * np.abs(mean)] = np.inf  # of no use to any class

    def loss_and_gradient(flat):
        kernel, bias = flat[: c * classes].reshape(c, classes), flat[c * classes :]
        on_device = jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32)
        loss, slopes = 0.0, np.zeros_like(flat)
        for block in _blocks(data, mean, deviation):
            found, parts = jax.device_get(_slopes(*on_device, *block))
            loss += float(found)
            slopes += np.concatenate([np.ravel(part) for part in parts])
        slopes /= n
        slopes[: c * classes] += l2 * flat[: c * classes]
        return loss / n + l2 / 2 * float(np.sum(kernel**2)), slopes

    first = np.zeros(c * classes + classes)
    if start is not None:
        scaled = start.kernel * np.where(np.isfinite(deviation), deviation, 0.0)[:, None]
        first = np.concatenate([scaled.ravel(), start.bias + mean @ start.kernel])
    options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "ftol": 1e-9, "gtol": 1e-5}
    found = minimize(loss_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    kernel = found.x[: c * classes].reshape(c, classes) / deviation[:, None]
    bias = found.x[c * classes :] - mean @ kernel
    return LinearProbe(kernel, bias, l2, found.status != 1)


def choose_linear(train: Labelled, validation: Labelled, classes: int) -> LinearProbe:
    """The probe of the strength with the lowest cross-entropy on validation images.

    Strengths fall, each fit starting from the one before, until the cross-entropy rises.
    """
    best, lowest, probe = None, np.inf, None
    for l2 in STRENGTHS:
        probe = fit_linear(train, classes, l2, probe)
        found = cross_entropy(probe.kernel, probe.bias, validation)
        if found >= lowest:
            break
        best, lowest = probe, found
    assert best is not None
    return best
