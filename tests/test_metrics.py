"""Metrics against naive loops over every threshold, scikit-learn and values by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jaxood.evaluation import metrics


def draws():
    generator = np.random.default_rng(0)
    yield generator.normal(1, 1, 20), generator.normal(0, 1, 20)
    yield generator.normal(1, 1, 57), generator.normal(0, 1, 33)
    yield generator.integers(0, 6, 200) * 1.0, generator.integers(0, 5, 90) * 1.0  # many ties
    yield np.ones(7), np.ones(5)
    yield np.arange(10.0) + 20, np.arange(10.0)


@pytest.fixture(params=list(draws()), ids=["20+20", "57+33", "ties", "constant", "apart"])
def scores(request):
    return request.param


def labelled(positive, negative):
    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return labels, np.concatenate([positive, negative])


def points(positive, negative):
    """(threshold, TPR, FPR) at every distinct score, from the highest down."""
    for threshold in sorted(set(positive) | set(negative), reverse=True):
        yield (
            threshold,
            sum(s >= threshold for s in positive) / len(positive),
            sum(s >= threshold for s in negative) / len(negative),
        )


def test_auroc_counts_pairs(scores):
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[0] for b in scores[1]]
    assert metrics.auroc(*scores) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert metrics.auroc(*scores) == pytest.approx(roc_auc_score(*labelled(*scores)), abs=1e-12)


def test_fpr_plain_is_the_lowest_over_allowed_thresholds(scores):
    expected = min(fpr for _, tpr, fpr in points(*scores) if tpr >= 0.95)
    assert metrics.fpr_plain(*scores) == expected


def test_fpr_openood_takes_ood_as_positive(scores):
    expected = next(fpr for _, tpr, fpr in points(-scores[1], -scores[0]) if tpr >= 0.95)
    fpr, tpr, _ = roc_curve(*labelled(-scores[1], -scores[0]))
    assert metrics.fpr_openood(*scores) in (expected, fpr[tpr >= 0.95][0])


def test_fpr_sfp_scans_from_full_recall(scores):
    best = None
    lowest = min(scores[0])
    for threshold, tpr, fpr in sorted(points(*scores)):
        if threshold >= lowest and (best is None or abs(tpr - 0.95) < best[0] - 1e-12):
            best = abs(tpr - 0.95), fpr
    assert metrics.fpr_sfp(*scores) == best[1]


def test_fpr_nnguide_takes_the_first_of_the_nearest(scores):
    fpr, tpr, _ = roc_curve(*labelled(*scores))
    distances = [abs(rate - 0.95) for rate in tpr]
    assert metrics.fpr_nnguide(*scores) == fpr[distances.index(min(distances))]


def test_conventions_differ_by_hand():
    """20 ID scores 1..20: 95 % TPR is reached at 2, exactly; OOD scores lie about that point."""
    id_scores = np.arange(1.0, 21)
    ood_scores = np.array([0.5, 1.5, 1.6, 2.5])
    assert metrics.fpr_plain(id_scores, ood_scores) == 0.25  # threshold 2: 2.5 alone passes
    assert metrics.fpr_sfp(id_scores, ood_scores) == 0.75  # threshold 1.5: recall is 0.95 too
    assert metrics.fpr_openood(id_scores, ood_scores) == 2 / 20  # all four OOD: threshold 2.5


def test_threshold_at_is_reached_by_the_fraction(scores):
    for tpr in (0.5, 0.9, 0.95, 1.0):
        threshold = metrics.threshold_at(scores[0], tpr)
        assert np.mean(scores[0] >= threshold) >= tpr
        assert np.mean(scores[0] > threshold) < tpr


def test_average_precision(scores):
    for positive, negative in (scores, (-scores[1], -scores[0])):
        expected = average_precision_score(*labelled(positive, negative))
        assert metrics.average_precision(positive, negative) == pytest.approx(expected, abs=1e-12)


def test_dtacc(scores):
    expected = max(0.5, *((tpr + 1 - fpr) / 2 for _, tpr, fpr in points(*scores)))
    assert metrics.dtacc(*scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("convention", metrics.FPR_CONVENTIONS)
def test_bootstrap_agrees_with_plain_resampling(scores, convention, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 50)
    generator = np.random.default_rng(3)
    aurocs, fprs = [], []
    for _ in range(50):
        own = [generator.choice(part, len(part)) for part in scores]
        aurocs.append(metrics.auroc(*own))
        fprs.append(metrics.FPR_CONVENTIONS[convention](*own))
    intervals = metrics.bootstrap(*scores, convention, seed=3)
    np.testing.assert_allclose(intervals[0], np.quantile(aurocs, [0.025, 0.975]), atol=1e-12)
    np.testing.assert_allclose(intervals[1], np.quantile(fprs, [0.025, 0.975]), atol=1e-12)


def test_bootstrap_interval_covers_the_truth():
    """Of 100 samples of two normals one apart (AUROC 0.760), about 95 intervals hold it."""
    truth = 0.7602499
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        interval, _ = metrics.bootstrap(
            generator.normal(1, 1, 100), generator.normal(0, 1, 100), "plain", seed=0
        )
        held += interval.low <= truth <= interval.high
    assert 88 <= held <= 100
