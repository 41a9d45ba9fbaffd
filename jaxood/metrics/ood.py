"""How well scores tell in-distribution (positive, higher) from out-of-distribution data.

FPR at 95 % TPR has three other definitions in use, which differ widely on small sets; each is
offered by the name of the code that reports it (`FPR_CONVENTIONS`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxood.errors import choose, require

Counts = Int[np.ndarray, " d"]  # images at each distinct score of both sets, in rising order

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
    id_ranks, ood_ranks, distinct = _ranks(id_scores, ood_scores)
    id_counts = np.bincount(id_ranks, minlength=distinct)
    ood_counts = np.bincount(ood_ranks, minlength=distinct)
    passed, total = FPR_CONVENTIONS[convention](id_counts, ood_counts)
    return passed / total


def threshold_at(id_scores: Float[np.ndarray, " n"], tpr: float) -> float:
    """The highest threshold that at least the fraction `tpr` of the ID scores reach."""
    return float(np.sort(id_scores)[len(id_scores) - _kept(len(id_scores), tpr)])


def _kept(count: int, tpr: float) -> int:
    """The least number out of `count` that is at least the fraction `tpr` of it."""
    return int(np.ceil(round(tpr * count, 9)))  # 0.95 * 20 is 19 and a rounding error


def _plain(id_counts: Counts, ood_counts: Counts) -> FalsePositives:
    """The lowest FPR among the thresholds that keep at least 95 % of the ID scores."""
    missed = np.cumsum(id_counts) - id_counts
    images = int(missed[-1] + id_counts[-1])
    highest = np.searchsorted(missed, images - _kept(images, TPR), side="right") - 1
    return FalsePositives(int(ood_counts[highest:].sum()), int(ood_counts.sum()))


def _openood(id_counts: Counts, ood_counts: Counts) -> FalsePositives:
    """As OpenOOD and pytorch-ood: OOD positive, the first threshold with a TPR of at least 95 %.

    Their ROC curve is scikit-learn's, which drops points between two others on one line.
    """
    there = (id_counts > 0) | (ood_counts > 0)
    false, true = np.cumsum(id_counts[there]), np.cumsum(ood_counts[there])
    if len(true) > 2:
        bends = (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0)
        corners = np.concatenate([[True], bends, [True]])
        false, true = false[corners], true[corners]
    return FalsePositives(int(false[np.argmax(true / true[-1] >= TPR)]), int(false[-1]))


def _nnguide(id_counts: Counts, ood_counts: Counts) -> FalsePositives:
    """As the NNGuide code: ID positive, the ROC point nearest to 95 %, the first of equals."""
    true = np.concatenate([[0], np.cumsum(id_counts[::-1])])
    false = np.concatenate([[0], np.cumsum(ood_counts[::-1])])
    nearest = np.argmin(np.abs(true / true[-1] - TPR))
    return FalsePositives(int(false[nearest]), int(false[-1]))


def _sfp(id_counts: Counts, ood_counts: Counts) -> FalsePositives:
    """As the SFP code: ID positive, the nearest recall, scanned from full recall down.

    Of the thresholds with full recall, only the highest is looked at.
    """
    kept = np.cumsum(id_counts[::-1])[::-1]
    full = np.flatnonzero(kept == kept[0])[-1]
    nearest = full + np.argmin(np.abs(kept[full:] / kept[0] - TPR))
    return FalsePositives(int(ood_counts[nearest:].sum()), int(ood_counts.sum()))


FPR_CONVENTIONS: dict[str, Callable[[Counts, Counts], FalsePositives]] = {
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

    A resample is a count for each distinct score, from which both are read.
    """
    generator = np.random.default_rng(seed)
    false_positives = FPR_CONVENTIONS[convention]
    id_ranks, ood_ranks, distinct = _ranks(id_scores, ood_scores)
    pairs = 2 * len(id_ranks) * len(ood_ranks)
    aurocs, fprs = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        id_counts, ood_counts = (
            np.bincount(ranks[generator.integers(0, len(ranks), len(ranks))], minlength=distinct)
            for ranks in (id_ranks, ood_ranks)
        )
        ood_upto = np.cumsum(ood_counts)
        aurocs[draw] = id_counts @ (2 * ood_upto - ood_counts) / pairs
        passed, total = false_positives(id_counts, ood_counts)
        # Not passed / total, whose last digit differs: published intervals stay what they were.
        fprs[draw] = 1 - (total - passed) / total
    return _interval(aurocs), _interval(fprs)


def _ranks(
    id_scores: Float[np.ndarray, " n"], ood_scores: Float[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """The rank of each score among the distinct scores of both sets, and how many those are."""
    values, ranks = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
    return ranks[: len(id_scores)], ranks[len(id_scores) :], len(values)


def _interval(values: Float[np.ndarray, " r"]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
