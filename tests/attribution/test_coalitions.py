"""Coalition values against full enumeration and direct float64 evaluation."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.attribution.coalitions import (
    coalition_values,
)
from jaxood.outputs import LinearHead, NormLinearHead


def make_problem(seed, size, channels=24, classes=10, norm=False, images=2, scale=3.0):
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(size=(images, size, size, channels)), 0).astype(np.float32)
    kernel = (scale * rng.normal(size=(channels, classes))).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    if not norm:
        return features, LinearHead(jnp.asarray(kernel), jnp.asarray(bias))
    gain, shift = rng.normal(1, 0.3, (2, channels)).astype(np.float32)
    return features, NormLinearHead(
        jnp.asarray(gain), jnp.asarray(shift), jnp.asarray(kernel / 3), jnp.asarray(bias)
    )


def value_in_float64(features, head, mask, target):
    """v(S) of one image by the definition: zero the absent, mean over all p, head, softmax."""
    flat = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
    pooled = (flat * np.asarray(mask, np.float64)[:, None]).sum(0) / len(flat)
    if isinstance(head, NormLinearHead):
        pooled = (pooled - pooled.mean()) / np.sqrt(pooled.var() + head.epsilon)
        pooled = pooled * np.asarray(head.scale, np.float64) + np.asarray(head.shift, np.float64)
    logits = pooled @ np.asarray(head.kernel, np.float64) + np.asarray(head.bias, np.float64)
    top = logits.max()
    energy = top + np.log(np.exp(logits - top).sum())
    return energy if target == "energy" else np.exp(logits[target] - energy)


def enumerate_values(features, head, target, value):
    p = features.shape[0] * features.shape[1]
    table = {
        mask: value_in_float64(features, head, mask, target)
        for mask in itertools.product((0, 1), repeat=p)
    }
    result = np.zeros(p)
    for mask in table:
        size = sum(mask)
        for i in range(p):
            if not mask[i]:
                weight = 2.0 ** -(p - 1)
                if value == "shapley":
                    weight = math.factorial(size) * math.factorial(p - 1 - size) / math.factorial(p)
                with_i = mask[:i] + (1,) + mask[i + 1 :]
                result[i] += weight * (table[with_i] - table[mask])
    return result, table[(1,) * p] - table[(0,) * p]


def all_coalitions(p):
    rows = np.array(list(itertools.product((False, True), repeat=p)))[: 2 ** (p - 1)]
    return jnp.asarray(np.concatenate([rows, ~rows]))


@pytest.mark.parametrize("target", ["class", "energy"])
@pytest.mark.parametrize("norm", [False, True])
def test_banzhaf_over_all_coalitions_is_full_enumeration(norm, target):
    features, head = make_problem(0, 3, norm=norm)
    classes = [3, 7]
    coalitions = all_coalitions(9)[None]
    result = coalition_values(
        jnp.asarray(features),
        head,
        coalitions,
        "energy" if target == "energy" else jnp.array(classes),
    )
    for image in range(2):
        t = "energy" if target == "energy" else classes[image]
        expected, _ = enumerate_values(features[image], head, t, "banzhaf")
        np.testing.assert_allclose(
            np.ravel(result.values[image]), expected, atol=2e-6 * np.abs(expected).max() + 1e-9
        )
