"""The forward pass in steps over the batch: the same numbers, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_networks
from flax import nnx
from untrained import drawn_network

import jaxood
from jaxood import compiling
from jaxood.models import blocked, mobilenet_v2
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.layers import Conv
from jaxood.models.loading import own_model
from jaxood.models.mobilenet_v2 import InvertedResidual
from jaxood.models.registry import ARCHITECTURES, LoadedModel
from jaxood.parallel import replicate, shard
from jaxood.runner import runner as runners
from jaxood.runner.runner import Runner


def noise(n):
    return jnp.asarray(torch_networks.noise(n, 8))


@pytest.fixture
def model():
    network = digits_cnn()
    initialise(network, jax.random.key(0))
    return network


def loaded(network):
    preprocessing = ARCHITECTURES["digits_cnn"].tags["digits"].preprocessing
    return LoadedModel(network, preprocessing, "digits_cnn", "digits", "0" * 64)


def compiled(model, images, stages=()):
    graphdef, state = nnx.split(model)

    def step(state, images):
        return blocked.forward(nnx.merge(graphdef, state), images, stages)[:2]

    return jax.jit(step).lower(state, images).compile(), state


@pytest.mark.cpu
@pytest.mark.parametrize("n", [1, 7, 8, 16, 24])
@pytest.mark.parametrize("together", [2, 4])
def test_steps_give_what_one_pass_gives(model, monkeypatch, n, together):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 8 // together)
    model.together = together
    images = noise(n)
    step, state = compiled(model, images)
    assert ("while" in step.as_text()) == (n not in (1, 8))
    outputs, layers = step(state, images)
    assert layers == {}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        outputs,
        model(images),
    )


@pytest.mark.cpu
def test_the_classifier_is_read_once_for_all_steps(model, monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 4)
    step, _ = compiled(model, noise(24))
    text = step.as_text()
    assert "while" in text and "f32[24,6]" in text and "f32[8,6]" not in text


@pytest.mark.parametrize("n", [4, 12])
@pytest.mark.parametrize("large", [64, 65])  # the first stage, none
def test_layers_are_what_their_stages_give_whatever_their_order(model, monkeypatch, n, large):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 2)
    monkeypatch.setattr(blocked, "LARGE", large)
    images, names = noise(n), ("conv2", "conv1", "conv2")
    step, state = compiled(model, images, names)
    outputs, layers = step(state, images)
    assert set(layers) == {"conv1", "conv2"}
    first = model.stages["conv1"](images)
    assert first.shape != model.stages["conv2"](first).shape
    for name, wanted in (("conv1", first), ("conv2", model.stages["conv2"](first))):
        np.testing.assert_allclose(layers[name], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs.logits, model(images).logits, rtol=1e-5, atol=1e-6)


def test_every_stage_runs_once_where_layers_are_asked_for(model, monkeypatch):
    calls = []
    plain = Conv.__call__

    def counted(self, x):
        calls.append(self)
        return plain(self, x)

    monkeypatch.setattr(Conv, "__call__", counted)
    outputs, layers, _ = blocked.forward(model, noise(2), model.stage_names)
    assert len(layers) == len(calls) == 3
    np.testing.assert_array_equal(outputs.feature_map, layers["conv3"])


def drawn_block(*how):
    block, rng = InvertedResidual(*how), np.random.default_rng(0)
    _, state = nnx.split(block)
    values = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), state)
    nnx.update(block, values)
    return block


# inputs, outputs, expansion, size, stride, padding
@pytest.mark.parametrize(
    "how",
    [
        (4, 6, 3, 3, 2, None),
        (4, 6, 3, 3, 1, None),
        (4, 6, 3, 5, 2, "SAME"),
        (4, 6, 3, 5, 1, "SAME"),
        (4, 4, 3, 3, 1, None),  # with a shortcut
        (4, 6, 1, 3, 1, None),  # nothing is widened
    ],
)
@pytest.mark.parametrize("height", [9, 12])
@pytest.mark.parametrize("held", [1, 150, 350, 1 << 20])
def test_a_block_in_bands_gives_what_it_gives_whole(monkeypatch, how, height, held):
    monkeypatch.setattr(mobilenet_v2, "BAND", held)
    block = drawn_block(*how)
    x = np.random.default_rng(1).standard_normal((1, height, 7, 4), np.float32)
    wanted = block(jnp.asarray(x))
    np.testing.assert_allclose(block.in_bands(jnp.asarray(x)), wanted, rtol=1e-5, atol=1e-5)
    rows = []
    monkeypatch.setattr(block.project, "activation", lambda x: rows.append(x.shape[1]) or x)
    block.in_bands(jnp.asarray(x))
    whole = held > height * 7 * 12 or block.residual or not block.expand
    assert sum(rows) == wanted.shape[1] and len(set(rows)) == 1 and (len(rows) == 1) == whole


@pytest.mark.cpu
def test_a_cpu_takes_single_images_in_bands_and_others_whole(monkeypatch):
    monkeypatch.setattr(mobilenet_v2, "BAND", 1 << 10)
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 2)
    network = drawn_network("mobilenet_v2").module
    images = jnp.asarray(torch_networks.noise(4, 64))
    monkeypatch.setattr(blocked, "LARGE", 8 * 8)
    calls = []
    plain = InvertedResidual.in_bands
    monkeypatch.setattr(
        InvertedResidual, "in_bands", lambda self, x: calls.append(len(x)) or plain(self, x)
    )
    graphdef, state = nnx.split(network)
    step = jax.jit(lambda state, x: blocked.forward(nnx.merge(graphdef, state), x)[0].logits)
    logits = step(state, images)
    wanted = network(images).logits
    assert set(calls) == {1} and len(calls) == 7  # given 32 x 32 to 8 x 8
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.cpu
def test_on_a_mesh_each_device_works_on_its_images_alone(model, monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 1)
    runner = Runner(loaded(model))
    assert runner.mesh.size == jax.local_device_count() == 8
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    step = runner.step()
    rows = shard((images, np.full(32, -1, np.int32)), runner.mesh)
    shared = replicate((jax.random.key(0),), runner.mesh)
    lowered = runners._on_mesh.compiled().lower(
        step, runner._network, runner.mesh, runner._weights, rows, shared
    )
    text = lowered.compile().as_text()
    assert "while" in text and "u8[4,8,8,3]" in text  # four images a device, in two steps
    for word in ("all-gather", "all-to-all", "all-reduce", "reduce-scatter", "permute"):
        assert word not in text, word
    found = runner.run(step, rows, shared)
    assert len(found.logits.devices()) == 8 and not found.logits.is_fully_replicated
    wanted = model(runner.model.preprocessing.normalise(jnp.asarray(images)))
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-5, atol=1e-6)


def test_larger_images_and_fewer_cores_make_smaller_steps(monkeypatch):
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: 2)
    sides = {8: 1024, 32: 64, 224: 2, 384: 1, 1024: 1}
    assert {side: compiling.images_a_step(side, side) for side in sides} == sides


class BatchMean(nnx.Module):
    """Depends on the batch it is called with."""

    preprocessing = jaxood.Preprocessing(8, 8)

    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((3, 2)))

    @property
    def head(self):
        return jaxood.LinearHead(self.kernel[...], jnp.zeros(2))

    def __call__(self, images):
        centred = images - images.mean()
        return jaxood.model_outputs(self.head, centred.mean(axis=(1, 2)), centred)


def test_a_users_model_is_called_once_with_what_a_device_has(monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 2)
    images = noise(4)
    outputs, layers, reduced = blocked.forward(BatchMean(), images)
    assert layers == reduced == {}
    np.testing.assert_array_equal(outputs.feature_map, images - images.mean())
    assert own_model(BatchMean(), "batch mean").pooling == "mean"


def test_gradients_pass_through_the_steps(model, monkeypatch):
    monkeypatch.setattr(blocked, "images_a_step", lambda height, width: 2)
    monkeypatch.setattr(blocked, "LARGE", 64)
    images = noise(8)
    found, wanted = (
        jax.grad(lambda x: jnp.sum(f(x).logits ** 2))(images)  # noqa: B023
        for f in (lambda x: blocked.forward(model, x)[0], model)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
