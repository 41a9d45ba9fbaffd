"""OpenMax: the odds against the unknown class that extreme-value theory adds to the softmax.

  d_k = ||logits - mu_k||, mu_k the mean logits of the rightly classified training images of k
  w_k = Weibull_k(d_k), fitted to the `tail` largest d_k of those images
  v_k' = v_k (1 - w_k omega_k),  omega = (alpha + 1 - rank) / alpha for the alpha largest logits
  v_0' = sum_k v_k w_k omega_k,  the unknown class
  score = logsumexp(v_1'..v_k') - v_0'

Bendale & Boult: "Towards Open Set Deep Networks", CVPR 2016. Paper's defaults: alpha 10, tail 20;
OpenOOD has alpha 3. Euclidean distance, as OpenOOD. The score is the logit of the known classes'
probability together: the order of minus the unknown's probability, but not saturated.

The Weibull fit is the one of libMR, the original's library: maximum likelihood, two parameters,
on distances moved so that the tail begins at 10,000.

A class whose training images are all misclassified takes all of them; a class without any has no
distance and counts as far from every image (w = 1).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import require

TRANSLATION = 10_000.0


class OpenMaxState(NamedTuple):
    """`w = 1 - exp(-exp(shape * log1p((d - least) / 10000) - offset))`."""

    means: Float[Array, "k k"]
    least: Float[Array, " k"]
    shape: Float[Array, " k"]
    offset: Float[Array, " k"]


def fit_weibull(tails: Float[np.ndarray, "k t"]) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood of shape and `shape * log(scale / 10000)` for rows of `d - least`.

    NaN fills rows up to the longest. The profile likelihood's derivative rises with the shape, so
    halving the interval of its logarithm finds the root; a tail of equal values takes the end.
    """
    logs = np.log1p(tails / TRANSLATION)
    count = np.sum(~np.isnan(logs), axis=1)
    average = np.nansum(logs, axis=1) / count
    top = np.nanmax(logs, axis=1)
    centred = np.nan_to_num(logs - top[:, None], nan=-np.inf)
    finite = np.where(np.isfinite(centred), centred, 0.0)
    low, high = np.full(len(tails), -5.0), np.full(len(tails), 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        shape = np.exp(middle)
        weights = np.exp(shape[:, None] * centred)
        slope = (weights * finite).sum(axis=1) / weights.sum(axis=1) + top - average - 1 / shape
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    weights = np.exp(shape[:, None] * centred)
    return shape, shape * top + np.log(weights.sum(axis=1) / count)


@dataclass(frozen=True)
class OpenMax(Detector):
    """Log-odds of the known classes after the Weibull revision of the largest logits."""

    name: ClassVar[str] = "openmax"
    paper: ClassVar[str] = "Bendale, Boult, CVPR 2016"
    State: ClassVar[type] = OpenMaxState
    needs_train: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("logits",)

    alpha: int = 10
    tail: int = 20

    def __post_init__(self):
        require(self.alpha > 0, "openmax.alpha", self.alpha, "a positive number of classes")
        require(self.tail > 1, "openmax.tail", self.tail, "at least 2 distances")

    def fit(self, train, labels, head):
        logits, labels = np.asarray(train.logits, np.float64), np.asarray(labels)
        k = logits.shape[1]
        right = logits.argmax(axis=1) == labels
        means, least = np.zeros((k, k)), np.full(k, -TRANSLATION)
        shape, offset = np.full(k, 1e6), np.zeros(k)  # far from everything: w = 1
        tails, present = [], np.unique(labels)
        for label in present:
            members = labels == label
            chosen = logits[members & right] if (members & right).any() else logits[members]
            means[label] = chosen.mean(axis=0)
            distances = np.sort(np.linalg.norm(chosen - means[label], axis=1))[-self.tail :]
            least[label] = distances[0]
            tails.append(
                np.pad(
                    distances - distances[0],
                    (0, self.tail - len(distances)),
                    constant_values=np.nan,
                )
            )
        shape[present], offset[present] = fit_weibull(np.stack(tails))
        return OpenMaxState(*(jnp.asarray(x, jnp.float32) for x in (means, least, shape, offset)))

    def score(self, state, outputs, head):
        logits = jnp.asarray(outputs.logits)
        alpha = min(self.alpha, logits.shape[1])
        largest, top = jax.lax.top_k(logits, alpha)
        distance = jnp.linalg.norm(logits[:, None, :] - state.means[top], axis=2)
        beyond = jnp.maximum(distance - state.least[top], 1.0 - TRANSLATION)
        exponent = state.shape[top] * jnp.log1p(beyond / TRANSLATION) - state.offset[top]
        outlying = -jnp.expm1(-jnp.exp(exponent))
        omega = (alpha - jnp.arange(alpha, dtype=jnp.float32)) / alpha
        unknown = largest * outlying * omega[None, :]
        rows = jnp.arange(len(logits))[:, None]
        revised = logits.at[rows, top].add(-unknown)
        return jax.nn.logsumexp(revised, axis=1) - unknown.sum(axis=1)
