"""One contract for every detector, transform and view."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detection as toy
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxood.detectors.methods import DETECTORS, TRANSFORMS, VIEWS, parse_method


@functools.partial(jax.jit, static_argnums=0)
def score(method, state, outputs, head):
    return method.score(state, outputs, head)


@functools.cache
def fitted(name: str, kind: str = "linear"):
    head, train, labels, _, _ = toy.data(kind)
    method = parse_method(name)
    needed = method.needs_train
    return method, method.fit(train if needed else None, labels, head)


def own_extras(method, outputs):
    return outputs._replace(extras={key: outputs.extras[key] for key in method.extractors})


def assert_close(actual, expected):
    scale = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("name", toy.NAMES)
def test_contract(name):
    head, _, _, _, test = toy.data()
    method, state = fitted(name)
    outputs = own_extras(method, test)

    scores = np.asarray(score(method, state, outputs, head))
    assert scores.shape == (toy.BATCH,) and scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > toy.BATCH // 2 or name == "gram"

    assert_close(method.score(state, jax.tree.map(jnp.asarray, outputs), head), scores)

    halves = [jax.tree.map(lambda a, s=s: a[s : s + 8], outputs) for s in (0, 8, 16, 24)]
    split = np.concatenate([score(method, state, half, head) for half in halves])
    assert_close(split, scores)

    mesh = Mesh(jax.devices(), "data")
    rows, all_of_it = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    shared = score(method, *jax.device_put((state, outputs, head), (all_of_it, rows, all_of_it)))
    assert_close(shared, scores)


@pytest.mark.parametrize("name", toy.NAMES)
def test_state_is_flat_arrays(name):
    """So that it can be written to a file and rebuilt from one."""
    method, state = fitted(name)
    for step, own in zip(method.steps, state, strict=True):
        assert type(own) is step.State
        for array in own:
            assert isinstance(array, (jax.Array, np.ndarray, np.integer)), type(array)
            assert array.dtype in (np.float32, np.int32)


@pytest.mark.parametrize("name", toy.NAMES)
@pytest.mark.parametrize("kind", ["norm", "negative"])
def test_other_heads(name, kind):
    """A norm in the head; logits and energies far below zero. Channels 3 and 5 never move."""
    head, _, _, _, test = toy.data(kind)
    method, state = fitted(name, kind)
    scores = np.asarray(score(method, state, own_extras(method, test), head))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", [name for name in toy.NAMES if name not in VIEWS])
def test_constant_and_zero_features(name):
    """Training features that are all alike, and test rows of zeros, give numbers all the same."""
    head, train, labels, _, test = toy.data()
    method = parse_method(name)

    def flat(outputs, value):
        pooled = np.full_like(outputs.pooled, value)
        extras = {key: np.full_like(outputs.extras[key], value) for key in method.extractors}
        return outputs._replace(pooled=pooled, logits=np.asarray(head(pooled)), extras=extras)

    state = method.fit(flat(train, 0.5), labels, head)
    for value in (0.0, 0.5, -0.5, 2.0):
        scores = np.asarray(score(method, state, flat(test, value), head))
        assert np.isfinite(scores).all(), value


def test_extractors_are_per_image():
    head, _, _, images, test = toy.data()
    others = toy.extract(np.concatenate([images[:20], images[::-1][:12]]), head)
    for name, rows in test.extras.items():
        assert_close(others.extras[name], np.concatenate([rows[:20], rows[::-1][:12]]))


def test_steps_are_frozen_and_hashable():
    for table in (DETECTORS, TRANSFORMS, VIEWS):
        for name, step in table.items():
            assert dataclasses.is_dataclass(step), name
            assert hash(step()) == hash(step()), name
            for field in dataclasses.fields(step):
                assert field.default is not dataclasses.MISSING, (name, field.name)


def test_in_distribution_scores_higher():
    """Direction: images like those of training against the same templates turned upside down."""
    head, _, _, _, _ = toy.data()
    near, labels = toy.images_of(96, 21, spread=0.6)
    noise = np.random.default_rng(22).normal(size=near.shape).astype(np.float32)
    far = toy.TEMPLATES[labels][:, ::-1, :, ::-1] + np.float32(0.3) * noise
    inside, outside = toy.extract(near, head), toy.extract(far, head)
    for name in toy.NAMES:
        method, state = fitted(name)

        def scores(outputs, method=method, state=state):
            parts = [slice(start, start + toy.BATCH) for start in range(0, 96, toy.BATCH)]
            blocks = [jax.tree.map(lambda a, own=own: a[own], outputs) for own in parts]
            return np.concatenate(
                [score(method, state, own_extras(method, block), head) for block in blocks]
            )

        known, new = scores(inside), scores(outside)
        auroc = np.mean(known[:, None] > new[None, :])
        assert auroc > 0.53, (name, auroc)
