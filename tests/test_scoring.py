"""Many methods on the same features: what is read again, put on the devices again, and lost."""

import itertools
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from untrained import Watched, untrained_digits

import jaxood
from jaxood.data.suite import Suite
from jaxood.detectors import scoring
from jaxood.detectors.grammar import parse_methods
from jaxood.detectors.scoring import host_outputs, score_by_all, score_rows
from jaxood.errors import UsageError
from jaxood.flows import scoring as flow
from jaxood.heads import LinearHead
from jaxood.metrics import resamples

METHODS = ["msp", "energy", "knn", "nnguide", "vim", "react+energy", "ash-s+knn"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(resamples, "RESAMPLES", 5)


@pytest.fixture(scope="module")
def model():
    return untrained_digits()


def pictures(count, seed, name):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Watched(images, np.arange(count) % 6, name)


@pytest.fixture(scope="module")
def suite():
    ood = {name: pictures(20, seed, name) for seed, name in enumerate(("near", "far"))}
    return Suite("pictures", pictures(80, 7, "train"), pictures(30, 8, "test"), ood)


def test_training_images_give_what_is_fitted_on_them(model, suite):
    """SFP learns nothing: its purified features of the training images would be for nobody."""
    result = jaxood.evaluate(model, suite, ["sfp", "knn"])
    assert [*result.train.features.extras] == []
    assert [*result.id_test.features.extras] == ["positions", "sfp"]
    result = jaxood.evaluate(model, suite, ["sfp", "sfp+knn"])
    assert [*result.train.features.extras] == ["sfp"]
    assert jaxood.evaluate(model, suite, ["sfp", "ash-s"]).train is None


# What each asks of the pass: the model's outputs, and those of extractors.
COMMANDS = {
    ("sfp", "msp"): {"outputs", "sfp"},
    ("msp", "gen"): {"outputs"},
    ("odin", "sfp"): {"outputs", "odin", "sfp"},
}


@pytest.mark.parametrize("order", [*itertools.permutations(COMMANDS)])
def test_images_are_read_for_what_no_earlier_command_has_asked(model, suite, order, tmp_path):
    sets = (suite.id_test, *suite.ood.values())
    known: set[str] = set()
    first = {}
    for methods in (*order, *order[::-1]):
        for images in sets:
            images.read.clear()
        found = jaxood.evaluate(model, suite, list(methods), batch_size=16, store=tmp_path)
        new = COMMANDS[methods] - known
        assert [images.read for images in sets] == [[images.name] * bool(new) for images in sets]
        known |= new
        for result in found.results:
            values = first.setdefault((methods, result.method), result.scores)
            np.testing.assert_array_equal(values.id, result.scores.id)


def toy(count, seed):
    generator = np.random.default_rng(seed)
    head = LinearHead(*map(jax.numpy.asarray, draw_head()))
    return host_outputs(head, generator.gamma(0.5, size=(count, 24)).astype(np.float32)), head


def draw_head():
    generator = np.random.default_rng(9)
    return generator.standard_normal((24, 6), np.float32), np.zeros(6, np.float32)


def test_a_block_goes_to_the_devices_once_for_all_methods(monkeypatch):
    train, head = toy(200, 0)
    test, _ = toy(2500, 1)
    methods = parse_methods(METHODS, {}, {})
    states = {method: method.fit_state(train, None, head) for method in methods}
    alone = {method: score_rows(method, states[method], test, head) for method in methods}
    put = []
    shard = scoring.shard
    monkeypatch.setattr(scoring, "shard", lambda *given: put.append(given) or shard(*given))
    together = score_by_all(states, test, head)
    assert len(put) == 2  # blocks of 2,048
    for method, scores in together.items():
        np.testing.assert_array_equal(scores, alone[method])
        assert scores.shape == (2500,)


@dataclass(frozen=True)
class Odd(jaxood.Detector):
    """Refuses to score, or scores what is not finite."""

    reads = ("logits",)
    refuses: bool = False

    def score(self, state, outputs, head):
        if self.refuses:
            raise UsageError("odd", "this", "that")
        return outputs.logits[:, 0] / 0


@pytest.mark.parametrize("room", [0, 1 << 29])
def test_methods_that_fail_leave_the_others(model, suite, room, monkeypatch):
    """Whether fitted states are on the devices one by one or all together."""
    expected = jaxood.evaluate(model, suite, METHODS)
    monkeypatch.setattr(flow, "STATES", room)
    methods = [Odd(), METHODS[0], "knn[k=5000]", *METHODS[1:], Odd(refuses=True)]
    found = jaxood.evaluate(model, suite, methods)
    reasons = list(found.failures.values())
    assert "30 of 30 scores that are not finite" in reasons[0]
    assert "knn.k: got 5000" in reasons[1]
    assert reasons[2] == "odd: got this, wanted that"
    for one, other in zip(found.results, expected.results, strict=True):
        assert one.method == other.method
        assert one.metrics == other.metrics
        np.testing.assert_array_equal(one.scores.id, other.scores.id)


@pytest.mark.parametrize("room", [1 << 29, 0])
def test_work_after_the_pass_is_told(model, suite, room, monkeypatch):
    """A bar a set, then one for fits and scores: as many images as there are, a time a method."""
    monkeypatch.setattr(flow, "STATES", room)
    told = {}

    def progress(name):
        calls = told.setdefault(name, [])
        return lambda done, total: calls.append((done, total))

    jaxood.evaluate(model, suite, ["msp", "knn", "knn[k=5000]"], progress=progress)
    assert list(told) == ["train", "test", "near", "far", "fits and scores of 3 methods"]
    for calls in told.values():
        done = [one for one, _ in calls]
        assert done == sorted(done) and len({total for _, total in calls}) == 1
        assert calls[-1][0] == calls[-1][1]
    fitted = len(suite.train)
    assert told["fits and scores of 3 methods"][0] == (0, 3 * (fitted + 30 + 20 + 20))
    assert (fitted, 3 * (fitted + 70)) in told["fits and scores of 3 methods"]


def test_what_was_resampled_is_not_kept(model, suite):
    jaxood.evaluate(model, suite, ["msp"])
    assert resamples._kept.cache_info().currsize == 0
