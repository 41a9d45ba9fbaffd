"""Rows over eight devices: what travels between them, and that scores are those of one."""

import re

import jax
import numpy as np
import pytest
import toy_detection as toy

from jaxood.detectors import scoring
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.scoring import score_rows
from jaxood.parallel import data_mesh, replicate, shard

GATHER = re.compile(r"= (\w+)\[([\d,]*)\]\S* all-gather\(")
OTHERS = ("all-reduce(", "all-to-all(", "reduce-scatter(", "collective-permute(")


def fitted(name):
    head, train, labels, _, test = toy.data()
    method = parse_method(name)
    state = method.fit_state(train if method.needs_train else None, labels, head)
    return method, state, head, test._replace(extras={})


def gathers(name) -> list[tuple[int, ...]]:
    """The shapes of what every device gets of all others, in the compiled score of 32 rows."""
    method, state, head, test = fitted(name)
    mesh = data_mesh()
    state, head = replicate(state, mesh), replicate(head, mesh)
    outputs = shard(scoring.restricted(test, method.reads, ()), mesh)
    rows_mesh = scoring._rows_mesh(state, mesh)
    score = jax.jit(lambda s, rows: scoring._score_block(method, rows_mesh, s, head, rows))
    text = score.lower(state, outputs).compile().as_text()
    assert not any(word in text for word in OTHERS)
    return [tuple(map(int, shape.split(","))) for _, shape in GATHER.findall(text)]


@pytest.mark.parametrize(
    "name", ["knn", *(pytest.param(n, marks=pytest.mark.long) for n in ("nnguide", "react+vim"))]
)
def test_nothing_travels_where_each_device_has_the_bank(name):
    assert gathers(name) == []


@pytest.mark.cpu
def test_a_bank_that_is_shared_out_sends_the_queries_and_the_best_of_each_device():
    """Whatever its size: 480 rows here, of which a device has 60."""
    assert sorted(gathers("knn[memory=shared]")) == [(32, 24), (32, 8 * 10, 2)]


def scores(name, devices):
    method, state, head, test = fitted(name)
    return score_rows(method, state, test, head, data_mesh(jax.devices()[:devices]))


@pytest.mark.parametrize("name", ["knn", "nnguide", "knn[memory=host]"])
def test_scores_are_those_of_one_device_to_the_bit(name):
    np.testing.assert_array_equal(scores(name, 1), scores(name, 8))


def test_scores_by_a_bank_in_parts_are_those_by_the_whole():
    """To rounding: the products are of blocks of other sizes."""
    found, expected = scores("knn[memory=shared]", 8), scores("knn", 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
