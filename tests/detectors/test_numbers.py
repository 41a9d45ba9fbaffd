"""Methods that differ in numbers only are compiled once, and each scores by its own."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import toy_detection as toy

from jaxood.detectors import scoring
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.method import Method
from jaxood.spelling import parameters_of


def with_other(method, factor):
    """All numbers of its parts moved."""

    def moved(step):
        values = parameters_of(step)
        kept = {name: type(values[name])(values[name] * factor) for name in step.numbers}
        return replace(step, **kept)

    return Method(moved(method.detector), tuple(map(moved, method.transforms)), method.view)


NUMBERED = [name for name in toy.NAMES if any(step.numbers for step in parse_method(name).steps)]
QUICK = ("gen", "relation")


def test_there_are_some():
    assert {"gen", "react", "vra", "mahalanobis", "weiper", "nac"} < {*NUMBERED}


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in NUMBERED]
    + ["react+gen", "scale+gen"],
)
def test_compiled_once(name):
    head, train, labels, _, test = toy.data(toy.home(name))
    methods = [parse_method(name), *(with_other(parse_method(name), by) for by in (0.9, 1.05))]
    assert len({*methods}) == 3
    states = {method: method.fit_state(train, labels, head) for method in methods}
    jax.clear_caches()
    scores = scoring.score_by_all(states, test, head)
    assert scoring._compiled_score._cache_size() == 1
    for method, state in states.items():
        plain = np.asarray(method.score(state, test, head))
        scale = np.abs(plain).max()
        np.testing.assert_allclose(scores[method], plain, rtol=1e-5, atol=1e-5 * scale)
    values = [np.asarray(found) for found in scores.values()]
    assert name in SAME or not np.array_equal(values[0], values[1])


# What numerics alone decide: the cut of eigenvalues, in the middle of a gap.
SAME = ("mahalanobis", "mahalanobis++", "mahalanobis-nnguide", "ssd", "rmds", "rmds++")
SAME += ("multi-mahalanobis", "pnml")
