"""The batched surrogate against the original procedure in torch, and against exact values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.attribution.coalitions import position_values
from jaxood.attribution.designs import draw_coalitions
from jaxood.attribution.surrogate import (
    RESNET50,
    TINY_VIT,
    SurrogateTraining,
    banzhaf_of_surrogate,
    exact_values,
    initial_weights,
    project,
    surrogate_values,
    train,
)
from jaxood.heads import LinearHead, NormLinearHead

SMALL = SurrogateTraining(
    learning_rate=0.05,
    epochs=5,
    coalitions=200,
    masks=99,
    batch=25,
    halve_after=(2, 4),
    precision="float32",
)
P, C, K, N = 9, 16, 6, 3


def make_problem(norm):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(N, P, C)), 0).astype(np.float32)
    kernel = rng.normal(size=(C, K)).astype(np.float32)
    bias, shift = rng.normal(size=K).astype(np.float32), rng.normal(size=C).astype(np.float32)
    scale = rng.normal(1, 0.2, C).astype(np.float32)
    head = LinearHead(jnp.asarray(kernel), jnp.asarray(bias))
    if norm:
        head = NormLinearHead(jnp.asarray(scale), jnp.asarray(shift), head.kernel, head.bias)
    return features, head


def torch_head(head):
    torch = pytest.importorskip("torch")
    linear = torch.nn.Linear(C, K)
    modules = [linear]
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(np.asarray(head.kernel).T))
        linear.bias.copy_(torch.tensor(np.asarray(head.bias)))
        if isinstance(head, NormLinearHead):
            modules.insert(0, torch.nn.LayerNorm(C, eps=head.epsilon))
            modules[0].weight.copy_(torch.tensor(np.asarray(head.scale)))
            modules[0].bias.copy_(torch.tensor(np.asarray(head.shift)))
    module = torch.nn.Sequential(*modules)
    return module.requires_grad_(False).double()


def train_in_torch(head, initial, masks, values, target, order, settings):
    """One image, as the original does it: the network itself, one batch after the other."""
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(P, C).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor(initial[:, :P]))
        network.bias.copy_(torch.tensor(initial[:, P]))
    masks, values = torch.tensor(masks).double(), torch.tensor(values).double()
    rate = settings.learning_rate
    for epoch, permutation in enumerate(order):
        if epoch in settings.halve_after:
            rate /= 2
        if epoch == 0 or epoch in settings.halve_after:
            optimiser = torch.optim.SGD(network.parameters(), rate, momentum=settings.momentum)
        for chosen in torch.tensor(permutation).split(settings.batch):
            optimiser.zero_grad()
            found = torch.softmax(head(network(masks[chosen])), dim=1)[:, target]
            torch.nn.functional.binary_cross_entropy(found, values[chosen]).backward()
            optimiser.step()
    weights = torch.cat([network.weight, network.bias[:, None]], dim=1).detach()
    return network, weights.numpy()


@pytest.mark.parametrize("norm", [False, pytest.param(True, marks=pytest.mark.long)])
def test_training_and_values_equal_the_original_procedure(norm):
    torch = pytest.importorskip("torch")
    features, head = make_problem(norm)
    module = torch_head(head)
    rng = np.random.default_rng(1)
    target = np.array([0, 3, 5], np.int32)
    masks = rng.random((90, P)) < 0.5  # a last batch of 15
    order = np.stack([rng.permutation(90) for _ in range(SMALL.epochs)]).astype(np.int32)
    initial = initial_weights(jax.random.key(0), C, P)
    assert 0.95 / 3 < float(jnp.abs(initial).max()) <= 1 / 3

    wanted = exact_values(jnp.asarray(features), head, jnp.asarray(masks), jnp.asarray(target))
    weights = jax.jit(train, static_argnums=6)(
        head, initial, jnp.asarray(masks), wanted, jnp.asarray(target), jnp.asarray(order), SMALL
    )
    coalitions = draw_coalitions(jax.random.key(2), 24, P)
    values = banzhaf_of_surrogate(weights, head, jnp.asarray(target), coalitions)

    for image in range(N):
        pooled = torch.tensor(masks @ features[image] / P).double()
        exact = torch.softmax(module(pooled), dim=1)[:, target[image]].numpy()
        np.testing.assert_allclose(wanted[image], exact, rtol=1e-4)
        network, expected = train_in_torch(
            module, np.asarray(initial), masks, exact, target[image], order, SMALL
        )
        moved = np.abs(expected - np.asarray(initial)).max()
        assert moved > 0.05  # else the training would not be tested
        projected = np.asarray(project(jnp.asarray(expected.T, jnp.float32), head))
        np.testing.assert_allclose(weights[image], projected, atol=1e-4 * np.abs(projected).max())

        def value(masks, network=network, image=image):
            with torch.no_grad():
                logits = module(network(torch.tensor(masks).double()))
                return torch.softmax(logits, dim=1)[:, target[image]].numpy()

        rows = np.asarray(coalitions[0])
        naive = np.zeros(P)
        for i in range(P):
            present, absent = rows.copy(), rows.copy()
            present[:, i], absent[:, i] = True, False
            naive[i] = (value(present) - value(absent)).mean()
        np.testing.assert_allclose(values[image], naive, atol=5e-4 * np.abs(naive).max())


def test_presets_are_those_of_the_paper():
    assert (RESNET50.learning_rate, RESNET50.epochs, RESNET50.coalitions) == (0.002, 60, 8000)
    assert (TINY_VIT.learning_rate, TINY_VIT.epochs, TINY_VIT.coalitions) == (0.001, 50, 7000)
    for preset in (RESNET50, TINY_VIT):
        assert (preset.masks, preset.batch, preset.momentum) == (10_000, 100, 0.9)
        assert preset.halve_after == (30, 50)


@pytest.mark.long
@pytest.mark.parametrize("norm", [False, True])
def test_a_trained_surrogate_has_the_values_of_the_head(norm):
    features, head = make_problem(norm)
    feature_map = jnp.asarray(features.reshape(N, 3, 3, C))
    target = jnp.argmax(head(feature_map.mean(axis=(1, 2))), axis=-1)
    settings = dataclasses.replace(SMALL, epochs=60, masks=1000, halve_after=(30, 50))
    found = jax.jit(surrogate_values, static_argnums=4)(
        feature_map, head, target, jax.random.key(0), settings
    )
    exact = position_values(feature_map, head, jax.random.key(1), coalitions=960).values
    for image in range(N):
        correlation = np.corrcoef(np.ravel(found[image]), np.ravel(exact[image]))[0, 1]
        assert correlation > 0.99, correlation


def test_an_image_is_trained_the_same_in_any_batch():
    features, head = make_problem(False)
    feature_map = jnp.asarray(features.reshape(N, 3, 3, C))
    target = jnp.array([0, 3, 5])
    call = jax.jit(surrogate_values, static_argnums=4)
    whole = call(feature_map, head, target, jax.random.key(0), SMALL)
    alone = call(feature_map[1:2], head, target[1:2], jax.random.key(0), SMALL)
    np.testing.assert_allclose(alone[0], whole[1], rtol=1e-4, atol=1e-6)
