"""How well scores tell in-distribution (positive, higher) from out-of-distribution data.

FPR at 95 % TPR has three other definitions in use, which differ widely on small sets; each is
offered by the name of the code that reports it (`FPR_CONVENTIONS`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Scores = Float[np.ndarray, " n"]

TPR = 0.95
RESAMPLES = 1000
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


def evaluate(
    id_scores: Scores, ood_scores: Scores, convention: str = "plain", seed: int = 0
) -> Metrics:
    """All metrics of one detector on one pair of sets."""
    auroc_interval, fpr_interval = bootstrap(id_scores, ood_scores, convention, seed)
    return Metrics(
        auroc(id_scores, ood_scores),
        auroc_interval,
        FPR_CONVENTIONS[convention](id_scores, ood_scores),
        fpr_interval,
        average_precision(id_scores, ood_scores),
        average_precision(-ood_scores, -id_scores),
        dtacc(id_scores, ood_scores),
    )


def auroc(id_scores: Scores, ood_scores: Scores) -> float:
    """Probability that an ID score is above an OOD score; ties count one half."""
    ordered = np.sort(ood_scores)
    below = np.searchsorted(ordered, id_scores, side="left")
    upto = np.searchsorted(ordered, id_scores, side="right")
    return float((below + upto).sum(dtype=np.float64) / (2 * len(id_scores) * len(ood_scores)))


def fpr_plain(id_scores: Scores, ood_scores: Scores) -> float:
    """The lowest FPR among the thresholds that keep at least 95 % of the ID scores."""
    return float(np.mean(ood_scores >= threshold_at(id_scores, TPR)))


def threshold_at(id_scores: Scores, tpr: float) -> float:
    """The highest threshold that at least the fraction `tpr` of the ID scores reach."""
    keep = int(np.ceil(round(tpr * len(id_scores), 9)))  # 0.95 * 20 is 19 and a rounding error
    return float(np.sort(id_scores)[len(id_scores) - keep])


def fpr_openood(id_scores: Scores, ood_scores: Scores) -> float:
    """As OpenOOD and pytorch-ood: OOD positive, the first threshold with a TPR of at least 95 %."""
    fpr, tpr, _ = _roc_curve(-ood_scores, -id_scores)
    return float(fpr[np.argmax(tpr >= TPR)])


def fpr_nnguide(id_scores: Scores, ood_scores: Scores) -> float:
    """As the NNGuide code: ID positive, the ROC point nearest to 95 %, the first of equals."""
    fpr, tpr, _ = _roc_curve(id_scores, ood_scores)
    return float(fpr[np.argmin(np.abs(tpr - TPR))])


def fpr_sfp(id_scores: Scores, ood_scores: Scores) -> float:
    """As the SFP code: ID positive, the nearest recall, scanned from full recall down."""
    thresholds = np.unique(id_scores)  # ascending: from full recall; others leave recall as it is
    thresholds = np.union1d(thresholds, ood_scores[ood_scores > thresholds[0]])
    recall = np.searchsorted(np.sort(id_scores), thresholds)
    nearest = np.argmin(np.abs(1 - recall / len(id_scores) - TPR))
    return float(np.mean(ood_scores >= thresholds[nearest]))


FPR_CONVENTIONS: dict[str, Callable[[Scores, Scores], float]] = {
    "plain": fpr_plain,
    "openood": fpr_openood,
    "nnguide": fpr_nnguide,
    "sfp": fpr_sfp,
}


def average_precision(positive: Scores, negative: Scores) -> float:
    """Area under the precision-recall curve by steps (average precision)."""
    thresholds = np.unique(positive)[::-1]
    hits = len(positive) - np.searchsorted(np.sort(positive), thresholds)
    alarms = len(negative) - np.searchsorted(np.sort(negative), thresholds)
    gains = np.diff(hits, prepend=0) / len(positive)
    return float(np.sum(gains * hits / (hits + alarms)))


def dtacc(id_scores: Scores, ood_scores: Scores) -> float:
    """Detection accuracy: the largest mean of TPR and 1 - FPR over all thresholds."""
    thresholds = np.unique(np.concatenate([id_scores, ood_scores]))
    missed = np.searchsorted(np.sort(id_scores), thresholds) / len(id_scores)
    rejected = np.searchsorted(np.sort(ood_scores), thresholds) / len(ood_scores)
    return float(max(0.5, np.max(1 - missed + rejected) / 2))


def bootstrap(
    id_scores: Scores, ood_scores: Scores, convention: str, seed: int
) -> tuple[Interval, Interval]:
    """95 % percentile intervals of AUROC and FPR95, ID and OOD images resampled separately.

    A resample is a count for each distinct score, so AUROC is a sum over running counts. FPR95 of
    the plain convention is read off the same counts; the others are computed anew on a resample.
    """
    generator = np.random.default_rng(seed)
    values, places = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
    id_places, ood_places = np.split(places, [len(id_scores)])
    aurocs, fprs = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        own_id = id_places[generator.integers(0, len(id_places), len(id_places))]
        own_ood = ood_places[generator.integers(0, len(ood_places), len(ood_places))]
        id_counts = np.bincount(own_id, minlength=len(values))
        ood_counts = np.bincount(own_ood, minlength=len(values))
        ood_upto = np.cumsum(ood_counts)
        wins = id_counts @ (2 * ood_upto - ood_counts)
        aurocs[draw] = wins / (2 * len(own_id) * len(own_ood))
        if convention == "plain":
            missed = np.cumsum(id_counts) - id_counts
            allowed = len(own_id) - int(np.ceil(round(TPR * len(own_id), 9)))
            threshold = np.searchsorted(missed, allowed, side="right") - 1
            fprs[draw] = 1 - (ood_upto - ood_counts)[threshold] / len(own_ood)
        else:
            fprs[draw] = FPR_CONVENTIONS[convention](values[own_id], values[own_ood])
    return _interval(aurocs), _interval(fprs)


def _interval(values: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _roc_curve(positive: Scores, negative: Scores):
    """As scikit-learn draws it, with its default of dropping collinear points."""
    from sklearn.metrics import roc_curve

    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return roc_curve(labels, np.concatenate([positive, negative]))
