"""The forward pass in steps over the batch: the same numbers, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from torch_networks import noise

from jaxood.models import blocked
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.parallel import data_mesh, replicate, shard


@pytest.fixture
def model():
    network = digits_cnn()
    initialise(network, jax.random.key(0))
    return network


def compiled(model, images):
    graphdef, state = nnx.split(model)
    mesh = images.sharding.mesh if isinstance(images, jax.Array) else None
    state = replicate(state, mesh) if mesh else state
    step = jax.jit(lambda state, images: blocked.forward(nnx.merge(graphdef, state), images))
    return step.lower(state, images).compile(), state


@pytest.mark.parametrize("n", [1, 7, 8, 16, 24])
def test_steps_give_what_one_pass_gives(model, monkeypatch, n):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 8)
    images = noise(n, 8)
    step, state = compiled(model, images)
    assert ("while" in step.as_text()) == (n not in (1, 8))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        step(state, images),
        model(images),
    )


def test_on_a_mesh_each_device_works_on_its_own_images(model, monkeypatch):
    monkeypatch.setattr(blocked, "PIXELS_A_CORE", 64 / blocked.os.cpu_count())
    assert blocked.images_a_step(8, 8) == jax.local_device_count() == 8
    images = noise(32, 8)
    step, state = compiled(model, shard(jnp.asarray(images), data_mesh()))
    text = step.as_text()
    assert "while" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "all-reduce", "permute"))
    logits = step(state, shard(jnp.asarray(images), data_mesh())).logits
    np.testing.assert_allclose(logits, model(images).logits, rtol=1e-5, atol=1e-6)


def test_larger_images_and_fewer_cores_make_smaller_steps(monkeypatch):
    monkeypatch.setattr(blocked.os, "cpu_count", lambda: 2)
    devices = jax.local_device_count()
    sides = {8: 2048, 32: 128, 224: 4, 384: 1, 1024: 1}
    assert {side: blocked.images_a_step(side, side) // devices for side in sides} == sides


def test_a_model_of_ones_own_is_called_once_with_the_whole_batch(monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 2)

    class Own(nnx.Module):
        def __call__(self, images):
            return images - images.mean()

    images = noise(4, 8)
    np.testing.assert_array_equal(blocked.forward(Own(), images), images - images.mean())


def test_gradients_pass_through_the_steps(model, monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 4)
    images = noise(8, 8)
    found, wanted = (
        jax.grad(lambda x: jnp.sum(f(x).logits ** 2))(images)  # noqa: B023
        for f in (lambda x: blocked.forward(model, x), model)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
