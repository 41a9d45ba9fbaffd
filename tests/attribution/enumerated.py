"""Small maps whose coalitions can all be evaluated, by the definition and in float64."""

import itertools
import math

import jax.numpy as jnp
import numpy as np

from jaxood.heads import LinearHead, NormLinearHead


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


def all_coalitions(p):
    rows = np.array(list(itertools.product((False, True), repeat=p)))[: 2 ** (p - 1)]
    return jnp.asarray(np.concatenate([rows, ~rows]))


def evenly_spread_coalitions():
    """All coalitions of nine positions, so often that each size comes as often as any other."""
    rows = np.array(list(itertools.product((False, True), repeat=9)))
    sizes = rows.sum(axis=1)
    rows = [np.repeat(rows[sizes == s], 252 // math.comb(9, s), 0) for s in range(10)]
    assert sum(map(len, rows)) == 2520  # 252 = least common multiple of the binomials
    return jnp.asarray(np.concatenate(rows))
