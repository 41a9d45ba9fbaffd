"""Density of a mixture of Gaussians, one a class, over the penultimate features.

  score = log sum_k pi_k N(z; mu_k, S_k)

pi_k, mu_k: the share and mean of class k. `covariance="tied"`: all S_k the covariance of all rows
around the mean of their class, the form that OpenOOD's GMM takes. "full": a covariance for each
class, as pytorch-ood's, which needs k c^2 floats. No one paper brought it.

OpenOOD finds its components by expectation maximisation without labels, a few of them; here they
are the classes. `ridge` is added to the diagonal of every covariance.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.detectors.contract import Depth, Detector
from jaxood.detectors.statistics import (
    class_means,
    covariance,
    mean,
    pseudo_whitener,
    require_spread,
    warn_of_few_rows,
)
from jaxood.errors import require

FULL_BYTES = 4 << 30


class GMMState(NamedTuple):
    """One whitener a class, or a single one for all; `offsets` is what no feature changes."""

    shift: Float[Array, " c"]
    whiteners: Float[Array, "g c c"]
    means: Float[Array, "k c"]
    offsets: Float[Array, " k"]


@dataclass(frozen=True)
class GMM(Detector):
    """Log-density of the class-conditional mixture."""

    name: ClassVar[str] = "gmm"
    paper: ClassVar[str] = "as OpenOOD and pytorch-ood have it"
    State: ClassVar[type] = GMMState
    needs_train: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[Depth, ...]] = ("penultimate",)
    numbers: ClassVar[tuple[str, ...]] = ("ridge",)

    covariance: Literal["tied", "full"] = "tied"
    ridge: float = 1e-6

    def __post_init__(self):
        require(self.ridge > 0, "gmm.ridge", self.ridge, "a positive number")

    def fit(self, train, labels, head):
        rows, c = train.penultimate, train.penultimate.shape[1]
        shift, square = mean(rows), mean(rows, np.square).sum()

        def centred(block):
            return block - shift

        group, counts, means = class_means(rows, labels, centred)
        k, ridge = len(counts), self.ridge * np.eye(c)
        full = self.covariance == "full"
        if full:
            size = 4 * k * c * c
            wanted = f"at most {FULL_BYTES >> 30} GiB of covariances"
            got = f"{k} classes of {c} channels, {size / 2**30:.1f} GiB"
            require(size <= FULL_BYTES, "gmm.covariance=full", got, wanted, "Use tied")
            order, ends = np.argsort(group, kind="stable"), np.cumsum(counts)
            matrices = (
                np.cov(centred(np.asarray(rows)[members].astype(np.float64)).T, bias=True).reshape(
                    c, c
                )
                for members in np.split(order, ends[:-1])
            )
        else:
            weights = np.full(k, 1 / counts.sum())
            matrices = [covariance(rows, means, group, weights, centred)]
        fitted = [pseudo_whitener(matrix + ridge, 0.0) for matrix in matrices]
        traces = [values.sum() - self.ridge * c for _, values in fitted]
        within = max(float(np.average(traces, weights=counts if full else None)), 0.0)
        require_spread(self.name, within, square)
        warn_of_few_rows(self.name, int(counts.min()) if full else len(rows), c)
        log_det = np.array([np.log(values).sum() for _, values in fitted])
        offsets = np.log(counts / counts.sum()) - 0.5 * (log_det + c * math.log(2 * math.pi))
        whiteners = np.stack([whiten for whiten, _ in fitted])
        means = np.einsum("kc,kcd->kd", means, np.broadcast_to(whiteners, (k, c, c)))
        parts = (shift, whiteners, means, offsets)
        return GMMState(*(jnp.asarray(part, jnp.float32) for part in parts))

    def score(self, state, outputs, head):
        rows = outputs.penultimate - state.shift[None, :]
        if len(state.whiteners) == 1:
            white = jnp.matmul(rows, state.whiteners[0], precision="highest")
            product = jnp.matmul(white, state.means.T, precision="highest")
            lengths = jnp.sum(state.means**2, axis=1)[None, :]
            log_density = product - 0.5 * (lengths + jnp.sum(white**2, axis=1)[:, None])
        else:

            def one_class(parts):
                whiten, centre = parts
                white = jnp.matmul(rows, whiten, precision="highest")
                return -0.5 * jnp.sum((white - centre[None, :]) ** 2, axis=1)

            log_density = jax.lax.map(one_class, (state.whiteners, state.means)).T
        return jax.nn.logsumexp(log_density + state.offsets[None, :], axis=1)
