"""Training images that no method can learn from: refused, told of, or numbers that make sense."""

import functools

import jax
import numpy as np
import pytest
import toy_detection as toy

from jaxood.detectors.grammar import parse_method
from jaxood.errors import UsageError

VARIANTS = ["knn[k=1]", "vim[dim=4]", "vim-nnguide[dim=4]", "residual[dim=4]"]
VARIANTS += ["gmm[covariance=full]", "react+mahalanobis"]
LEARNING = [name for name in [*toy.NAMES, *VARIANTS] if parse_method(name).needs_train]


def alike(train, rounding=0.0):
    """Every image the same, but for rounding."""
    generator = np.random.default_rng(0)
    noise = 1 + rounding * generator.uniform(-1, 1, (len(train.pooled), 1)).astype(np.float32)
    return jax.tree.map(lambda rows: np.float32(0.5) * np.ones_like(rows) * noise, train)


@functools.cache
def cases():
    """Outputs on training images, and their labels."""
    head, train, labels, _, _ = toy.data()
    c, classes = toy.CHANNELS, np.arange(toy.CLASSES)

    def rows(index):
        return jax.tree.map(lambda array: array[index], train), labels[index]

    firsts = np.asarray([np.flatnonzero(labels == label)[0] for label in classes])
    return {
        "one image": rows(slice(1)),
        "two images": rows(slice(2)),
        "an image a class": rows(firsts),
        "fewer images than channels": rows(slice(c - 1)),
        "one image a class many times": rows(np.tile(firsts, 20)),
        "a class without images": rows(labels != 2),
        "one class only": rows(labels == 2),
        "constant features": (alike(train), labels),
        "features of zeros": (jax.tree.map(np.zeros_like, train), labels),
        "constant but for rounding": (alike(train, 1e-7), labels),
    }


def outcome(name, case, records):
    """What came of it: "refused", "warned", or "scored"."""
    head, _, _, _, test = toy.data()
    train, labels = cases()[case]
    method = parse_method(name)
    del records[:]

    def with_extras(outputs):
        return outputs._replace(extras={key: outputs.extras[key] for key in method.extractors})

    try:
        state = method.fit_state(with_extras(train), labels, head)
    except UsageError as error:
        assert "\n" not in str(error)
        return "refused"
    scores = np.asarray(method.score(state, with_extras(test), head))
    assert np.isfinite(scores).all(), (name, case)
    if records:
        (record,) = records
        assert record.levelname == "WARNING"
        named = getattr(method.detector, "detector", method.detector)  # of one layer, or of all
        assert record.getMessage().startswith(f"method {named.name}: ")
        return "warned"
    assert np.abs(scores).max() < 1e6, (name, case)
    assert len(np.unique(scores)) > toy.BATCH // 2, (name, case)
    return "scored"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if n == "weiper" else n for n in LEARNING]
)
def test_every_method(name, caplog):
    """A method that is registered is among them."""
    found = {case: outcome(name, case, caplog.records) for case in cases()}
    assert "refused" == found["one image"] == found["constant features"], found
