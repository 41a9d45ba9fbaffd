"""Heads fitted on features, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize

from jaxood.errors import UsageError
from jaxood.probes import linear
from jaxood.probes.class_mean import cosine_class_means, linear_class_means
from jaxood.probes.linear import STRENGTHS, Labelled, choose_linear, cross_entropy, fit_linear

CLASSES, CHANNELS, DEAD = 4, 12, 3


def rows(count: int, seed: int) -> Labelled:
    """Channels of very different sizes, one that never moves; classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    labels[:CLASSES] = np.arange(CLASSES)
    centres = np.random.default_rng(0).normal(size=(CLASSES, CHANNELS))
    found = (centres[labels] + 1.5 * rng.normal(size=(count, CHANNELS))) * np.geomspace(
        0.01, 30, CHANNELS
    ) + np.linspace(-20, 20, CHANNELS)
    found[:, DEAD] = 7.0
    return Labelled(found.astype(np.float32), labels)


def neighbours(train: Labelled, test: Labelled):
    """The class of the nearest mean, by scikit-learn; it warns of channels that never move."""
    alive = np.arange(CHANNELS) != DEAD
    found = NearestCentroid().fit(np.float64(train.rows[:, alive]), train.labels)
    return found.predict(np.float64(test.rows[:, alive]))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def reference(data: Labelled, l2: float):
    """scikit-learn's coefficients, for features as they are."""
    scaler = StandardScaler().fit(np.float64(data.rows))
    network = LogisticRegression(C=1 / (l2 * len(data.labels)), tol=1e-10, max_iter=10_000)
    network.fit(scaler.transform(np.float64(data.rows)), data.labels)
    kernel = network.coef_.T / scaler.scale_[:, None]
    return kernel, network.intercept_ - scaler.mean_ @ kernel


def probabilities(kernel, bias, data):
    return softmax(np.float64(data.rows) @ kernel + bias)


@pytest.mark.parametrize("l2", [1.0, 1e-3])
@pytest.mark.parametrize("block", [linear.BLOCK, 64])
def test_the_linear_probe_is_scikit_learns(l2, block, monkeypatch):
    monkeypatch.setattr(linear, "BLOCK", block)  # 200 rows: the last block has eight
    train, test = rows(200, 1), rows(100, 2)
    found = fit_linear(train, CLASSES, l2)
    assert found.converged and not found.kernel[DEAD].any()
    expected = probabilities(*reference(train, l2), test)
    np.testing.assert_allclose(
        probabilities(found.kernel, found.bias, test), expected, rtol=0, atol=2e-3
    )
    again = fit_linear(train, CLASSES, l2, fit_linear(train, CLASSES, 0.1))
    np.testing.assert_allclose(
        probabilities(again.kernel, again.bias, test), expected, rtol=0, atol=2e-3
    )


@pytest.mark.long
def test_the_strength_is_the_best_on_validation_images():
    train, validation = rows(60, 1), rows(200, 2)
    losses = {}
    for l2 in STRENGTHS:
        p = probabilities(*reference(train, l2), validation)
        losses[l2] = -np.log(p[np.arange(200), validation.labels]).mean()
    found = choose_linear(train, validation, CLASSES)
    assert found.l2 == min(losses, key=losses.__getitem__)
    assert STRENGTHS[0] > found.l2 > STRENGTHS[-1]
    loss = cross_entropy(found.kernel, found.bias, validation)
    np.testing.assert_allclose(loss, losses[found.l2], rtol=1e-3)


def test_class_means_are_scikit_learns_nearest_centroid():
    train, validation = rows(300, 1), rows(200, 2)
    found = linear_class_means(train, validation)
    means = np.stack([train.rows[train.labels == k].mean(axis=0) for k in range(CLASSES)])
    logits = np.float64(validation.rows) @ found.kernel + found.bias
    np.testing.assert_array_equal(logits.argmax(axis=1), neighbours(train, validation))
    # The shares of Gaussians of the variance within classes, but for the scale.
    within = np.mean((np.float64(train.rows) - means[train.labels]) ** 2)
    squares = ((np.float64(validation.rows)[:, None] - means[None]) ** 2).sum(axis=-1)
    gaussians = -found.scale * squares / (2 * within)
    np.testing.assert_allclose(softmax(logits), softmax(gaussians), rtol=1e-4, atol=1e-6)
    losses = [
        -np.log(softmax(gaussians * factor)[np.arange(200), validation.labels]).mean()
        for factor in (0.9, 1.0, 1.1)
    ]
    assert np.argmin(losses) == 1 and 1e-4 < found.scale < 1
    same = linear_class_means(train, None, found.scale)
    np.testing.assert_array_equal(same.kernel, found.kernel)


def test_class_means_far_from_zero_lose_no_digits():
    train = rows(300, 1)
    far = Labelled(np.float32(np.float64(train.rows) / 30 + 2000), train.labels)
    found = linear_class_means(far, None, 1.0)
    head = np.float32(found.kernel), np.float32(found.bias)
    here = (far.rows @ head[0] + head[1]).argmax(axis=1)
    assert np.mean(here == neighbours(far, far)) > 0.98


def test_cosine_class_means():
    train, validation = rows(300, 1), rows(200, 2)
    found = cosine_class_means(train, validation)
    unit = normalize(np.float64(train.rows))
    means = normalize(np.stack([unit[train.labels == k].mean(axis=0) for k in range(CLASSES)]))
    np.testing.assert_allclose(found.kernel, means.T, rtol=1e-5)
    assert not found.bias.any()
    cosines = normalize(np.float64(validation.rows)) @ means.T
    scales = np.geomspace(1, 100, 2001)
    losses = [
        -np.log(softmax(scale * cosines)[np.arange(200), validation.labels]).mean()
        for scale in scales
    ]
    np.testing.assert_allclose(found.scale, scales[np.argmin(losses)], rtol=0.02)


def test_images_all_alike_within_their_class():
    data = Labelled(np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], np.array([0, 1, 0, 1]))
    with pytest.raises(UsageError, match="train: got images whose features do not differ within"):
        linear_class_means(data, data)
