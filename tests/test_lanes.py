"""A batch in two programs at once: the same rows, whatever else each gets."""

import threading
from dataclasses import replace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from untrained import untrained_digits

from jaxood import lanes as module
from jaxood.attribution.registry import attribution
from jaxood.data.images import Arrays
from jaxood.detectors.sfp import SpatialPurification
from jaxood.lanes import divided, in_lanes, lanes
from jaxood.parallel import data_mesh
from jaxood.perturbation.road import Explained, RoadSettings, road_curves
from jaxood.runner.runner import Runner

EXTRACTORS = (SpatialPurification(coalitions=16), attribution("smoothgrad[samples=2]"))


@pytest.fixture(scope="module")
def model():
    return untrained_digits()


@pytest.fixture(scope="module")
def one_device():
    return data_mesh(jax.devices()[:1])


def test_where_there_are_lanes(one_device, monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    assert lanes(one_device, 32) == 2
    assert lanes(one_device, 2) == 2
    assert lanes(one_device, 1) == lanes(one_device, 31) == 1
    assert lanes(data_mesh(), 32) == 1  # a device has a program of its own already
    gpu = Mock(spec=Mesh, devices=np.array([Mock(platform="gpu")]))
    assert lanes(gpu, 32) == 1
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    assert lanes(one_device, 32) == 1


def test_each_part_is_dispatched_by_a_thread_that_keeps_its_lane():
    seen = []

    def call(rows):
        seen.append((threading.current_thread().name, len(rows["a"])))
        return {"twice": 2 * rows["a"], "keys": rows["b"]}

    rows = {"a": np.arange(6), "b": jax.random.split(jax.random.key(0), 6)}
    for _ in range(2):
        found = in_lanes(call, divided(rows, 2))
    assert [size for _, size in seen] == [3] * 4
    names = [name for name, _ in seen]
    assert names[:2] == names[2:] and len(set(names)) == 2
    assert threading.current_thread().name not in names
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(6))
    assert (found["keys"] == rows["b"]).all()


def test_an_error_of_a_lane_is_raised():
    def call(rows):
        raise ValueError(f"row {rows[0]}")

    with pytest.raises(ValueError, match="row 0"):
        in_lanes(call, divided(jnp.arange(4), 2))


def test_features_are_those_of_one_program(model, one_device, monkeypatch):
    """Two batches of 8, and the rest; attributions with draws and gradients among them."""
    pictures = np.random.default_rng(0).integers(0, 256, (19, 8, 8, 3), dtype=np.uint8)
    images, found = Arrays(pictures, np.arange(19) % 6, "pictures"), []
    for cores in (2, 1):
        monkeypatch.setattr(module.os, "cpu_count", lambda cores=cores: cores)
        dispatched = Mock(wraps=module._thread)
        monkeypatch.setattr(module, "_thread", dispatched)
        found.append(Runner(model, one_device).extract(images, EXTRACTORS, batch_size=8, seed=3))
        assert dispatched.call_count == (6 if cores == 2 else 0)
    two, one = found
    np.testing.assert_array_equal(two.indices, np.arange(19))
    np.testing.assert_allclose(two.logits, one.logits, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(two.pooled, one.pooled, rtol=1e-6, atol=1e-6)
    assert set(two.extras) == set(one.extras)
    for key, values in two.extras.items():
        np.testing.assert_allclose(values, one.extras[key], rtol=1e-5, atol=1e-6)


def test_road_is_that_of_one_program(model, one_device, monkeypatch):
    """Rows that are divided once, for every fraction."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    items = [Explained(f"{i}", one, i, "red", one[..., 0] / 255) for i, one in enumerate(pictures)]
    settings, found = RoadSettings((0.2, 0.5, 0.8)), []
    for cores in (2, 1):
        monkeypatch.setattr(module.os, "cpu_count", lambda cores=cores: cores)
        dispatched = Mock(wraps=module._thread)
        monkeypatch.setattr(module, "_thread", dispatched)
        curves = road_curves(Runner(model, one_device), items, settings, batch_size=4)
        found.append(np.stack([one.confidence for one in curves]))
        # Two batches of two images: pixels put in order, and three fractions.
        assert dispatched.call_count == (2 * 4 * 2 if cores == 2 else 0)
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


def test_a_model_of_the_users_own_is_one_program(model, one_device, monkeypatch):
    """It sees the whole batch, on whose rows it may depend."""

    class Centred(nnx.Module):
        def __init__(self, network):
            self.network = network

        @property
        def head(self):
            return self.network.head

        def __call__(self, images):
            return self.network(images - images.mean(axis=0, keepdims=True))

    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    own = replace(model, module=Centred(model.module))
    found = Runner(own, one_device).extract(Arrays(pictures, None, "pictures"), batch_size=8)
    images = model.preprocessing.normalise(jnp.asarray(pictures))
    wanted = model.module(images - images.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)


def test_the_account_is_of_both_lanes(model, one_device, monkeypatch):
    runner = Runner(model, one_device)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    both = runner._step_bytes(runner.step(), 32)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    assert both == 2 * runner._step_bytes(runner.step(), 16)
