"""Purification against naive loops, and as it runs beside the forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxood.extraction import ForwardContext
from jaxood.purification import SpatialPurification, purify

from jaxood.attribution.coalitions import position_values
from jaxood.errors import UsageError
from jaxood.outputs import LinearHead, ModelOutputs, NormLinearHead
from jaxood.ranking import kept_positions


def naive(feature_map, attribution, keep):
    rows = []
    for features, values in zip(feature_map, attribution, strict=True):
        features = features.reshape(-1, features.shape[-1]).astype(np.float64)
        order = sorted(range(len(features)), key=lambda i: (-values.ravel()[i], i))
        rows.append(sum(features[i] for i in order[:keep]) / keep)
    return np.array(rows)


@pytest.mark.parametrize("keep", [1, 34, 48, 49])
def test_purified_pooled_is_the_mean_over_the_kept(keep):
    rng = np.random.default_rng(0)
    feature_map = rng.normal(size=(5, 7, 7, 12)).astype(np.float32)
    attribution = rng.integers(-3, 4, (5, 7, 7)).astype(np.float32)  # many ties
    found = jax.jit(purify, static_argnums=2)(feature_map, attribution, keep)
    np.testing.assert_allclose(found, naive(feature_map, attribution, keep), rtol=1e-5, atol=1e-6)


def test_ties_go_to_the_first_positions():
    kept = kept_positions(jnp.array([[[1.0, 2.0], [1.0, 1.0]]]), 3)
    np.testing.assert_array_equal(kept, [[[True, True], [True, False]]])


@pytest.mark.parametrize("keep", [0, 5])
def test_keep_must_fit_the_map(keep):
    with pytest.raises(UsageError, match=f"keep: got {keep}, wanted between 1 and the 4"):
        kept_positions(jnp.zeros((1, 2, 2)), keep)


def context(size=7, norm=False, pooling="mean", dtype=jnp.float32):
    rng = np.random.default_rng(1)
    features = jnp.asarray(np.maximum(rng.normal(size=(4, size, size, 16)), 0), dtype)
    kernel = jnp.asarray(3 * rng.normal(size=(16, 10)), jnp.float32)
    bias = jnp.zeros(10)
    head = LinearHead(kernel, bias)
    if norm:
        head = NormLinearHead(jnp.ones(16), jnp.zeros(16), kernel / 4, bias)
    pooled = features.astype(jnp.float32).mean(axis=(1, 2))
    outputs = ModelOutputs(features, pooled, head(pooled))
    return ForwardContext(jnp.zeros((4, 8, 8, 3)), outputs, head, lambda images: outputs, pooling)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("size", "keep"), [(7, 34), (4, 11), (1, 1)])
def test_the_extractor_keeps_the_same_share_of_any_map(size, keep, norm):
    given = context(size, norm)
    found = SpatialPurification(seed=3)(given)
    values = position_values(
        given.outputs.feature_map,
        given.head,
        jax.random.key(3),
        coalitions=64,
        precision="bfloat16",
    ).values
    expected = naive(np.asarray(given.outputs.feature_map), np.asarray(values), keep)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if size > 1:
        assert jnp.abs(found - given.outputs.pooled).max() > 0.01


def test_every_field_of_the_extractor_has_an_effect():
    given = context()
    usual = SpatialPurification()(given)
    for other in (
        SpatialPurification(value="shapley", coalitions=4),
        SpatialPurification(coalitions=4),
        SpatialPurification(keep_fraction=0.5),
        SpatialPurification(coalitions=4, seed=1),
    ):
        assert jnp.abs(other(given) - usual).max() > 1e-4, other


def test_a_bfloat16_backbone_gives_float32_features():
    found = SpatialPurification()(context(dtype=jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, SpatialPurification()(context()), atol=0.1)


def test_what_the_extractor_refuses():
    with pytest.raises(UsageError, match="class token"):
        SpatialPurification()(context(pooling="class_token"))
    with pytest.raises(UsageError, match="sfp.value: got 'banzaf'.*Did you mean banzhaf"):
        SpatialPurification(value="banzaf")
    with pytest.raises(UsageError, match="sfp.keep_fraction: got 0.0"):
        SpatialPurification(keep_fraction=0.0)
    with pytest.raises(UsageError, match="sfp.coalitions: got 1"):
        SpatialPurification(coalitions=1)
