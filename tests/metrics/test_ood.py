"""Metrics against naive loops over every threshold, scikit-learn and values by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jaxood.errors import UsageError
from jaxood.metrics import ood as metrics
from jaxood.metrics import resamples


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


def small_draws(count: int):
    """Pairs of 1 to 80 scores, most of them with ties."""
    generator = np.random.default_rng(7)
    for _ in range(count):
        n, m = generator.integers(1, 81, 2)
        known, foreign = generator.normal(1, 1, n), generator.normal(0, 1, m)
        digits = generator.integers(0, 4)
        yield np.round(known, digits), np.round(foreign, digits)


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


def reference_plain(known, foreign):
    """The lowest FPR over the thresholds that 95 % of the ID scores reach, in whole numbers."""
    allowed = [
        np.sum(foreign >= threshold)
        for threshold in np.concatenate([known, foreign])
        if 100 * np.sum(known >= threshold) >= 95 * len(known)
    ]
    return min(allowed) / len(foreign)


def reference_openood(known, foreign):
    """OpenOOD's `compute_all_metrics`: the OOD images are positive, their score minus ours."""
    false, true, _ = roc_curve(*labelled(-foreign, -known))
    return false[np.argmax(true >= 0.95)]


def reference_nnguide(known, foreign):
    """NNGuide's code keeps every point of the ROC curve."""
    false, true, _ = roc_curve(*labelled(known, foreign), drop_intermediate=False)
    return false[np.argmin(np.abs(true - 0.95))]


def reference_sfp(known, foreign):
    """`fpr_and_fdr_at_recall` of the code base that SFP's code took its metrics from."""
    labels, values = labelled(known, foreign)
    order = np.argsort(values, kind="mergesort")[::-1]
    labels, values = labels[order], values[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    true = np.cumsum(labels)[ends]
    false = 1 + ends - true
    recall = true / true[-1]
    last = int(true.searchsorted(true[-1]))
    recall = np.append(recall[last::-1], 1.0)
    false = np.append(false[last::-1], 0.0)
    return false[np.argmin(np.abs(recall - 0.95))] / len(foreign)


REFERENCES = {
    "plain": reference_plain,
    "openood": reference_openood,
    "nnguide": reference_nnguide,
    "sfp": reference_sfp,
}


def test_every_convention_has_a_reference():
    assert set(REFERENCES) == set(metrics.FPR_CONVENTIONS)


@pytest.mark.parametrize("convention", REFERENCES)
def test_fpr_is_what_that_code_reports(convention):
    """To the bit, on 2,000 small draws: a point of the curve taken otherwise is off by far."""
    for known, foreign in small_draws(2000):
        expected = REFERENCES[convention](known, foreign)
        assert metrics.fpr95(known, foreign, convention) == expected, (known, foreign)


def test_auroc_counts_pairs(scores):
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[0] for b in scores[1]]
    assert metrics.auroc(*scores) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert metrics.auroc(*scores) == pytest.approx(roc_auc_score(*labelled(*scores)), abs=1e-12)


def test_conventions_differ_by_hand():
    """20 ID scores 1..20: 95 % TPR is reached at 2, exactly; OOD scores lie about that point."""
    id_scores = np.arange(1.0, 21)
    ood_scores = np.array([0.5, 1.5, 1.6, 2.5])
    found = {name: metrics.fpr95(id_scores, ood_scores, name) for name in REFERENCES}
    assert found["plain"] == 0.25  # threshold 2: 2.5 alone passes
    assert found["nnguide"] == 0.25  # threshold 2, the first point with that recall from above
    assert found["sfp"] == 0.75  # threshold 1.5: recall is 0.95 too
    assert found["openood"] == 2 / 20  # all four OOD: threshold 2.5


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


def test_measure_puts_each_metric_under_its_name(scores):
    found = metrics.measure(*scores, "sfp", seed=5)
    assert found.auroc == metrics.auroc(*scores)
    assert found.fpr95 == reference_sfp(*scores)
    assert found.dtacc == metrics.dtacc(*scores)
    assert found.aupr_in == pytest.approx(average_precision_score(*labelled(*scores)), abs=1e-12)
    swapped = labelled(-scores[1], -scores[0])
    assert found.aupr_out == pytest.approx(average_precision_score(*swapped), abs=1e-12)
    assert (found.auroc_interval, found.fpr95_interval) == metrics.bootstrap(*scores, "sfp", 5)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("argument", ["id_scores", "ood_scores"])
def test_scores_that_are_not_finite_are_refused(broken, argument):
    scores = {"id_scores": np.arange(4.0), "ood_scores": np.arange(5.0)}
    scores[argument][2] = broken
    count = len(scores[argument])
    with pytest.raises(UsageError, match=f"{argument}: got 1 of {count} that are NaN or infinite"):
        metrics.measure(**scores)


def test_no_scores_and_unknown_conventions_are_refused():
    with pytest.raises(UsageError, match="ood_scores: got none"):
        metrics.measure(np.ones(3), np.ones(0))
    with pytest.raises(UsageError, match="convention: got 'odd', wanted one of nnguide, openood"):
        metrics.measure(np.ones(3), np.ones(2), "odd")


def reference_intervals(scores, convention, seed, count):
    """Images drawn one by one, and each resample measured by itself."""
    aurocs, fprs = [], []
    for number in range(count):
        drawn = [
            part[np.random.default_rng((seed, role, number)).integers(0, len(part), len(part))]
            for role, part in enumerate(scores)
        ]
        aurocs.append(roc_auc_score(*labelled(*drawn)))
        fprs.append(REFERENCES[convention](*drawn))
    return [np.quantile(values, [0.025, 0.975]) for values in (aurocs, fprs)]


@pytest.mark.parametrize("convention", REFERENCES)
def test_bootstrap_agrees_with_plain_resampling(scores, convention, monkeypatch):
    monkeypatch.setattr(resamples, "RESAMPLES", 50)
    expected = reference_intervals(scores, convention, 3, 50)
    found = metrics.bootstrap(*scores, convention, seed=3)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def many_scores(digits):
    generator = np.random.default_rng(5)
    parts = generator.normal(1.5, 1, 6000), generator.normal(0, 1, 2500)
    return [np.round(part, digits) for part in parts]


@pytest.mark.parametrize("convention", REFERENCES)
@pytest.mark.parametrize("digits", [9, 2, 0])
def test_scores_that_are_counted_together_change_nothing(convention, digits, monkeypatch):
    """Thousands of scores: all different, some equal, more than 256 equal ones."""
    monkeypatch.setattr(resamples, "RESAMPLES", 6)
    monkeypatch.setattr(resamples, "FAR", 6)
    scores = many_scores(digits)
    expected = reference_intervals(scores, convention, 0, 6)
    np.testing.assert_allclose(metrics.bootstrap(*scores, convention, 0), expected, atol=1e-12)


def test_blocks_and_what_is_kept_change_nothing(monkeypatch):
    monkeypatch.setattr(resamples, "RESAMPLES", 120)
    scores = many_scores(3)
    whole = metrics.bootstrap(*scores, "plain", 0)
    assert metrics.bootstrap(*scores, "plain", 0) == whole
    assert metrics.bootstrap(*scores, "plain", 1) != whole
    resamples.forget()
    monkeypatch.setattr(resamples, "CACHED", 900)
    assert metrics.bootstrap(*scores, "plain", 0) == whole


@pytest.mark.long
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
