"""Every score is a program for GPUs and TPUs, too, in which nothing waits for the host.

Nor are the factors of its products shortened, as these do unless they are told otherwise.
"""

import jax
import pytest
import toy_detection as toy
from products import precisions

from jaxood.detectors.grammar import parse_method

PLATFORMS = ("cuda", "tpu")
NAMES = [
    name if name == "knn" else pytest.param(name, marks=pytest.mark.long) for name in toy.NAMES
]


def program_of(name):
    head, train, labels, _, test = toy.data(toy.home(name))
    method = parse_method(name)
    state = method.fit_state(train if method.needs_train else None, labels, head)
    outputs = test._replace(extras={key: test.extras[key] for key in method.extractors})
    score = jax.jit(lambda state, outputs: method.score(state, outputs, head))
    return jax.export.export(score, platforms=PLATFORMS)(state, outputs)


@pytest.mark.parametrize("name", NAMES)
def test_scores_lower(name):
    program = program_of(name)
    text = program.mlir_module()
    assert program.platforms == PLATFORMS and "callback" not in text
    assert set(precisions(text)) <= {"HIGHEST"}


@pytest.mark.long
def test_the_one_score_that_waits_for_the_host():
    """A bank in the memory of the machine, fetched block by block."""
    with pytest.raises(NotImplementedError, match="multi-platform lowering for python_callback"):
        program_of("knn[memory=host]")
