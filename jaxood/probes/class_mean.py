"""The nearest class mean as a head.

Linear, by squared Euclidean distance to the means mu_k of the classes' features:

  logit_k = t/s^2 (mu_k^T z - |mu_k|^2 / 2)  =  -t |z - mu_k|^2 / (2 s^2) + a term without k

s^2 the variance within classes, mean over channels: with t = 1 softmax gives the classes'
probabilities under Gaussians of that variance around their means, which is too sure where channels
vary together; t below 1 is chosen by the cross-entropy on validation images. Cosine, for a head of
columns: the means of features of length 1, and a scale of at most 100, CLIP's, chosen the same way.

Mensink, Verbeek, Perronnin, Csurka: "Distance-Based Image Classification", TPAMI 2013.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.detectors import statistics
from jaxood.detectors.statistics import l2_normalised
from jaxood.errors import require
from jaxood.probes.linear import Labelled, cross_entropy

SHARES = (1e-4, 1.0)  # of the Gaussians' own
SCALES = (1.0, 100.0)


class ClassMeans(NamedTuple):
    """Attributes:
    scale: what was chosen: the share t of the linear head, the scale of the cosine head.
    """

    kernel: Float[np.ndarray, "c k"]
    bias: Float[np.ndarray, " k"]
    scale: float


def linear_class_means(
    train: Labelled, validation: Labelled | None, scale: float | None = None
) -> ClassMeans:
    """Means as a linear layer; `scale` is used where there are no validation images."""
    group, counts, means = statistics.class_means(train.rows, train.labels)
    centre = counts @ means / counts.sum()  # cancels between classes, and would cost digits
    within = sum(
        ((block - means[group[part]]) ** 2).sum() for part, block in statistics.blocks(train.rows)
    ) / (train.rows.size)
    between = ((means - centre) ** 2).mean()
    require(
        within > statistics.SMALLEST**2 * between,
        "train",
        "images whose features do not differ within their class",
        "several images a class",
    )
    apart = means - centre
    kernel = apart.T / within
    bias = -((apart**2).sum(axis=1) / 2 + apart @ centre) / within
    if validation is not None:
        scale = _chosen(kernel, bias, validation, SHARES)
    assert scale is not None
    return ClassMeans(scale * kernel, scale * bias, scale)


def cosine_class_means(
    train: Labelled, validation: Labelled | None, scale: float | None = None
) -> ClassMeans:
    """Columns of length 1, and the scale of their cosines; see `linear_class_means`."""
    _, _, means = statistics.class_means(train.rows, train.labels, l2_normalised)
    kernel = np.asarray(l2_normalised(means)).T
    bias = np.zeros(kernel.shape[1])
    if validation is not None:
        unit = Labelled(l2_normalised(np.asarray(validation.rows)), validation.labels)
        scale = _chosen(kernel, bias, unit, SCALES)
    assert scale is not None
    return ClassMeans(kernel, bias, scale)


def _chosen(kernel, bias, validation: Labelled, bounds: tuple[float, float]) -> float:
    """The factor of the logits, within bounds, of the lowest cross-entropy: convex in it."""
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        return cross_entropy(np.exp(power) * kernel, np.exp(power) * bias, validation)

    limits = np.log(bounds)
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-3})
    ends = [(loss(power), power) for power in (*limits, found.x)]
    return float(np.exp(min(ends)[1]))
