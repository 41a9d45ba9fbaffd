"""How well scores tell in-distribution (positive, higher) from out-of-distribution data.

FPR at 95 % TPR has three other definitions in use, which differ widely on small sets; each is
offered by the name of the code that reports it (`FPR_CONVENTIONS`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.errors import choose, require
from jaxood.metrics.resamples import Below, Near, ranks, resample

TPR = 0.95
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A bootstrap interval: percentiles of the resampled values."""

    low: float
    high: float


class Metrics(NamedTuple):
    """All in [0, 1]; `fpr95` and its interval follow the convention that was asked for."""

    auroc: float
    auroc_interval: Interval
    fpr95: float
    fpr95_interval: Interval
    aupr_in: float
    aupr_out: float
    dtacc: float


class FalsePositives(NamedTuple):
    """Negatives that pass the threshold of a convention, and how many there are in all."""

    passed: int
    total: int


def measure(
    id_scores: Float[np.ndarray, " n"],
    ood_scores: Float[np.ndarray, " m"],
    convention: str = "plain",
    seed: int = 0,
) -> Metrics:
    """All metrics of one detector on one pair of sets.

    Args:
      convention: of FPR95, one of `FPR_CONVENTIONS`.
      seed: of the bootstrap.

    Raises:
      UsageError: for scores that are not finite, or none at all.
    """
    choose("convention", convention, FPR_CONVENTIONS)
    for argument, scores in (("id_scores", id_scores), ("ood_scores", ood_scores)):
        require(len(scores) > 0, argument, "none", "at least one score")
        broken = len(scores) - int(np.isfinite(scores).sum())
        got = f"{broken} of {len(scores)} that are NaN or infinite"
        require(not broken, argument, got, "finite scores", "Metrics of them would mean nothing")
    auroc_interval, fpr_interval = bootstrap(id_scores, ood_scores, convention, seed)
    return Metrics(
        auroc(id_scores, ood_scores),
        auroc_interval,
        fpr95(id_scores, ood_scores, convention),
        fpr_interval,
        average_precision(id_scores, ood_scores),
        average_precision(-ood_scores, -id_scores),
        dtacc(id_scores, ood_scores),
    )


def auroc(id_scores: Float[np.ndarray, " n"], ood_scores: Float[np.ndarray, " m"]) -> float:
    """Probability that an ID score is above an OOD score; ties count one half."""
    ordered = np.sort(ood_scores)
    below = np.searchsorted(ordered, id_scores, side="left")
    upto = np.searchsorted(ordered, id_scores, side="right")
    return float((below + upto).sum(dtype=np.float64) / (2 * len(id_scores) * len(ood_scores)))


def fpr95(
    id_scores: Float[np.ndarray, " n"],
    ood_scores: Float[np.ndarray, " m"],
    convention: str = "plain",
) -> float:
    """False positive rate at 95 % TPR, by the definition of that name."""
    *both, distinct = ranks(id_scores, ood_scores)
    id_below, ood_below = (
        np.concatenate([[0], np.cumsum(np.bincount(one, minlength=distinct))]) for one in both
    )
    passed, total = FPR_CONVENTIONS[convention](id_below, ood_below)
    return passed / total


def threshold_at(id_scores: Float[np.ndarray, " n"], tpr: float) -> float:
    """The highest threshold that at least the fraction `tpr` of the ID scores reach."""
    return float(np.sort(id_scores)[len(id_scores) - _kept(len(id_scores), tpr)])


def _kept(count: int, tpr: float) -> int:
    """The least number out of `count` that is at least the fraction `tpr` of it."""
    return int(np.ceil(round(tpr * count, 9)))  # 0.95 * 20 is 19 and a rounding error


def _plain(id_below: Below, ood_below: Below) -> FalsePositives:
    """The lowest FPR among the thresholds that keep at least 95 % of the ID scores."""
    images, total = int(id_below[-1]), int(ood_below[-1])
    missed = images - _kept(images, TPR)
    highest = np.searchsorted(id_below[:-1], missed, side="right") - 1
    return FalsePositives(total - int(ood_below[highest]), total)


def _openood(id_below: Below, ood_below: Below) -> FalsePositives:
    """As OpenOOD and pytorch-ood: OOD positive, the first threshold with a TPR of at least 95 %.

    Their ROC curve is scikit-learn's, which drops points between two others on one line.
    """
    total = int(ood_below[-1])
    least = int(np.ceil(TPR * total))
    least -= (least - 1) / total >= TPR  # the product was rounded up
    point = int(np.searchsorted(ood_below, least))
    while True:
        false, true = id_below[point], ood_below[point]
        come = false - id_below[point - 1], true - ood_below[point - 1]
        after = min(
            np.searchsorted(id_below, false, side="right"),
            np.searchsorted(ood_below, true, side="right"),
        )
        at_an_end = come == (false, true) or after == len(id_below)
        if at_an_end or come != (id_below[after] - false, ood_below[after] - true):
            return FalsePositives(int(false), int(id_below[-1]))
        point = after


def _nnguide(id_below: Below, ood_below: Below) -> FalsePositives:
    """As the NNGuide code: ID positive, the ROC point nearest to 95 %, the first of equals."""
    true, false = (below[-1] - below[::-1] for below in (id_below, ood_below))
    nearest = np.argmin(np.abs(true / true[-1] - TPR))
    return FalsePositives(int(false[nearest]), int(false[-1]))


def _sfp(id_below: Below, ood_below: Below) -> FalsePositives:
    """As the SFP code: ID positive, the nearest recall, scanned from full recall down.

    Of the thresholds with full recall, only the highest is looked at.
    """
    kept, total = id_below[-1] - id_below[:-1], int(ood_below[-1])
    full = np.flatnonzero(kept == kept[0])[-1]
    nearest = full + np.argmin(np.abs(kept[full:] / kept[0] - TPR))
    return FalsePositives(total - int(ood_below[nearest]), total)


FPR_CONVENTIONS: dict[str, Callable[[Below, Below], FalsePositives]] = {
    "plain": _plain,
    "openood": _openood,
    "nnguide": _nnguide,
    "sfp": _sfp,
}


def average_precision(
    positive: Float[np.ndarray, " n"], negative: Float[np.ndarray, " m"]
) -> float:
    """Area under the precision-recall curve by steps (average precision)."""
    thresholds = np.unique(positive)[::-1]
    hits = len(positive) - np.searchsorted(np.sort(positive), thresholds)
    alarms = len(negative) - np.searchsorted(np.sort(negative), thresholds)
    gains = np.diff(hits, prepend=0) / len(positive)
    return float(np.sum(gains * hits / (hits + alarms)))


def dtacc(id_scores: Float[np.ndarray, " n"], ood_scores: Float[np.ndarray, " m"]) -> float:
    """Detection accuracy: the largest mean of TPR and 1 - FPR over all thresholds."""
    thresholds = np.unique(np.concatenate([id_scores, ood_scores]))
    missed = np.searchsorted(np.sort(id_scores), thresholds) / len(id_scores)
    rejected = np.searchsorted(np.sort(ood_scores), thresholds) / len(ood_scores)
    return float(max(0.5, np.max(1 - missed + rejected) / 2))


def bootstrap(
    id_scores: Float[np.ndarray, " n"],
    ood_scores: Float[np.ndarray, " m"],
    convention: str,
    seed: int,
) -> tuple[Interval, Interval]:
    """95 % percentile intervals of AUROC and FPR95, ID and OOD images resampled separately.

    As many images are resampled alike whatever their scores: intervals of two methods on the same
    sets can be compared.
    """

    def fpr(id_below: Below, ood_below: Below) -> float:
        passed, total = FPR_CONVENTIONS[convention](id_below, ood_below)
        return passed / total

    near = Near(1, TPR) if convention == "openood" else Near(0, 1 - TPR)
    aurocs, fprs = resample(id_scores, ood_scores, seed, near, fpr)
    return _interval(aurocs), _interval(fprs)


def _interval(values: Float[np.ndarray, " r"]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
