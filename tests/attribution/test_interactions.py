"""Interactions of pairs against full enumeration, and what their rows add up to."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import context_of_map
from enumerated import all_coalitions, evenly_spread_coalitions, make_problem, value_in_float64

from jaxood.attribution.designs import draw_coalitions
from jaxood.attribution.interactions import Interaction, PairInteractions, pair_interactions
from jaxood.attribution.registry import attribution
from jaxood.errors import UsageError
from jaxood.heads import LinearHead

CLASSES = [3, 7]
BY_VALUE = {"banzhaf": all_coalitions, "shapley": lambda p: evenly_spread_coalitions()}


def table_of(features, head, target):
    p = features.shape[0] * features.shape[1]
    masks = itertools.product((0, 1), repeat=p)
    return {mask: value_in_float64(features, head, mask, target) for mask in masks}


def enumerate_pairs(table, p, value):
    """The index of each pair by its definition, coalition by coalition."""
    found = np.zeros((p, p))
    for i, j in itertools.combinations(range(p), 2):
        for mask in table:
            if mask[i] or mask[j]:
                continue
            size = sum(mask)
            weight = 2.0 ** -(p - 2)
            if value == "shapley":
                weight = math.factorial(size) * math.factorial(p - size - 2) / math.factorial(p - 1)

            def v(*added, mask=mask):
                return table[tuple(int(m or k in added) for k, m in enumerate(mask))]

            found[i, j] += weight * (v(i, j) - v(i) - v(j) + v())
    return found + found.T


@pytest.mark.parametrize("target", ["class", "energy"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("value", BY_VALUE)
def test_all_coalitions_are_full_enumeration(value, norm, target):
    features, head = make_problem(0, 3, norm=norm)
    coalitions = BY_VALUE[value](9)[None]
    of = "energy" if target == "energy" else jnp.array(CLASSES)
    found = np.asarray(pair_interactions(jnp.asarray(features), head, coalitions, of))
    for image in range(2):
        table = table_of(features[image], head, of if target == "energy" else CLASSES[image])
        expected = enumerate_pairs(table, 9, value)
        np.testing.assert_allclose(found[image], expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("norm", [False, True])
def test_a_row_of_shapley_is_what_comes_last_less_what_comes_first(norm):
    features, head = make_problem(1, 3, norm=norm)
    found = pair_interactions(jnp.asarray(features), head, evenly_spread_coalitions()[None])
    first = [[int(k == i) for k in range(9)] for i in range(9)]
    for image in range(2):
        target = int(jnp.argmax(head(jnp.asarray(features[image]).mean((0, 1)))))

        def v(mask, image=image, target=target):
            return value_in_float64(features[image], head, mask, target)

        expected = [v([1] * 9) - v([1 - m for m in one]) - v(one) + v([0] * 9) for one in first]
        np.testing.assert_allclose(found[image].sum(1), expected, atol=1e-5)


@pytest.mark.parametrize("value", BY_VALUE)
def test_designs_are_unbiased(value):
    """Small designs, so that one of the wrong kind would show."""
    features, head = make_problem(2, 3, images=1)
    target = jnp.array([4])
    coalitions = jax.vmap(lambda key: draw_coalitions(key, 12, 9, value)[0])(
        jax.random.split(jax.random.key(5), 500)
    )
    found = np.asarray(pair_interactions(jnp.asarray(features), head, coalitions, target))[0]
    expected = enumerate_pairs(table_of(features[0], head, 4), 9, value)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_sure_model_keeps_its_digits():
    """Differences far below the spacing of 32-bit numbers at a probability of one."""
    features, head = make_problem(3, 3, images=1)
    head = LinearHead(head.kernel, head.bias.at[2].add(38.0))
    coalitions = all_coalitions(9)[None]
    found = np.asarray(pair_interactions(jnp.asarray(features), head, coalitions, jnp.array([2])))
    expected = enumerate_pairs(table_of(features[0], head, 2), 9, "banzhaf")
    assert 0 < np.abs(expected).max() < 1e-7
    np.testing.assert_allclose(found[0], expected, atol=1e-4 * np.abs(expected).max())


def given(size=3, norm=False):
    features, head = make_problem(4, size, norm=norm)
    return context_of_map(jnp.asarray(features), head)


def test_the_extractor_keeps_pairs_and_the_map_their_sums():
    context = given()
    pairs = PairInteractions(coalitions=24)(context)
    drawn = draw_coalitions(context.key, 24, 9, "banzhaf")
    expected = pair_interactions(context.feature_map, context.head, drawn, context.target)
    np.testing.assert_array_equal(pairs, expected)
    assert PairInteractions(coalitions=24).key == "interactions[coalitions=24]"
    sums = attribution("interaction", coalitions=24)(context)
    np.testing.assert_allclose(sums.reshape(2, 9), pairs.sum(1), atol=1e-6)
    one = attribution("interaction[coalitions=24,position=5]")(context)
    np.testing.assert_array_equal(one.reshape(2, 9), pairs[:, 5])
    other = dataclasses.replace(context, target=(context.target + 1) % 10)
    changed = PairInteractions(coalitions=24)(other)
    assert jnp.abs(changed - pairs).max() > 0.1 * jnp.abs(pairs).max()


def test_what_is_refused():
    with pytest.raises(UsageError, match="interaction.coalitions: got 1, wanted 2 to 65536"):
        Interaction(coalitions=1)
    with pytest.raises(UsageError, match="interaction.position: got 9, wanted one of .* 9 pos"):
        Interaction(position=9)(given())
    with pytest.raises(UsageError, match="interaction.position: got -1, wanted 0 or more"):
        Interaction(position=-1)
    with pytest.raises(UsageError, match="interactions.coalitions: got 1"):
        PairInteractions(coalitions=1)


@pytest.mark.parametrize("explain", ["probability", "energy"])
@pytest.mark.parametrize("norm", [False, True])
def test_leave_one_out_is_exact(norm, explain):
    features, head = make_problem(5, 4, norm=norm)
    context = context_of_map(jnp.asarray(features), head)
    found = attribution("leave-one-out", explain=explain)(context)
    for image in range(2):
        target = "energy" if explain == "energy" else int(context.target[image])

        def v(mask, image=image, target=target):
            return value_in_float64(features[image], head, mask, target)

        lost = [v([1] * 16) - v([int(k != i) for k in range(16)]) for i in range(16)]
        tolerance = 3e-6 * np.abs(lost).max()
        np.testing.assert_allclose(np.ravel(found[image]), lost, atol=tolerance)
