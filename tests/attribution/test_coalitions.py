"""Coalition values against full enumeration and direct float64 evaluation."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import all_coalitions, evenly_spread_coalitions, make_problem, value_in_float64
from references import imagenet_photographs, import_torchvision, mobilenet_checkpoint

from jaxood.attribution.coalitions import (
    StoppingRule,
    coalition_values,
    position_values,
)
from jaxood.attribution.designs import draw_coalitions
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.parallel import data_mesh, shard
from jaxood.ranking import kept_positions


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


@pytest.mark.parametrize("norm", [False, True])
def test_shapley_over_evenly_spread_sizes_is_full_enumeration(norm):
    features, head = make_problem(1, 3, norm=norm)
    result = coalition_values(jnp.asarray(features), head, evenly_spread_coalitions()[None])
    for image in range(2):
        target = int(jnp.argmax(head(jnp.asarray(features[image]).mean((0, 1)))))
        expected, whole = enumerate_values(features[image], head, target, "shapley")
        found = np.ravel(result.values[image])
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
        np.testing.assert_allclose(found.sum(), whole, rtol=1e-5)


@pytest.mark.parametrize("value", ["banzhaf", "shapley"])
@pytest.mark.parametrize("count", [7, 12, 24])
def test_designs_are_unbiased(value, count):
    features, head = make_problem(2, 3, images=1)
    target = jnp.array([4])
    coalitions = jax.vmap(lambda key: draw_coalitions(key, count, 9, value)[0])(
        jax.random.split(jax.random.key(5), 4000)
    )
    # one "design" of independent draws after the other
    result = jax.jit(coalition_values)(jnp.asarray(features), head, coalitions, target)
    expected, _ = enumerate_values(features[0], head, 4, value)
    error = np.ravel(result.values[0]) - expected
    assert (np.abs(error) < 4.5 * np.ravel(result.standard_error[0])).all()
    assert np.abs(error).max() < 0.02 * np.abs(expected).max()


def test_a_design_is_an_orthogonal_array():
    half = np.asarray(draw_coalitions(jax.random.key(0), 60, 49))[0]
    whole = np.asarray(draw_coalitions(jax.random.key(0), 120, 49))[0]
    assert half.shape == (60, 49) and whole.shape == (120, 49)
    np.testing.assert_array_equal(whole[60:], ~whole[:60])
    signs = 2 * half.astype(int) - 1
    np.testing.assert_array_equal(signs.T @ signs, 60 * np.eye(49))
    signs = 2 * whole.astype(int) - 1
    triples = np.einsum("mi,mj,mk->ijk", signs, signs, signs)
    assert not triples.any() and not signs.sum(axis=0).any()


def test_shapley_sizes_are_spread_evenly():
    rows = np.asarray(draw_coalitions(jax.random.key(3), 50, 49, "shapley"))[0]
    np.testing.assert_array_equal(np.bincount(rows.sum(axis=1)), np.ones(50))
    np.testing.assert_array_equal(rows[25:], ~rows[:25])


@pytest.mark.parametrize(
    ("count", "value", "shape"),
    [
        (8, "banzhaf", (1, 8, 49)),
        (64, "banzhaf", (1, 60, 49)),
        (240, "shapley", (2, 120, 49)),
        (1000, "banzhaf", (8, 120, 49)),
        (9, "shapley", (1, 10, 49)),
    ],
)
def test_counts_are_rounded_to_designs(count, value, shape):
    rows = draw_coalitions(jax.random.key(0), count, 49, value)
    assert rows.shape == shape
    other = draw_coalitions(jax.random.key(1), count, 49, value)
    assert (rows != other).mean() > 0.3


@pytest.mark.parametrize("positions", [1, 2, 16, 49, 64, 144])
def test_designs_exist_for_every_map_size(positions):
    rows = draw_coalitions(jax.random.key(0), 4 * positions + 8, positions)
    assert rows.shape[2] == positions
    np.testing.assert_allclose(rows.mean(axis=(0, 1)), 0.5)


def direct(features, head, mask, target):
    """Marginals of every position at one coalition."""
    result = np.zeros(len(mask))
    for i in range(len(mask)):
        present, absent = mask.copy(), mask.copy()
        present[i], absent[i] = True, False
        result[i] = value_in_float64(features, head, present, target) - value_in_float64(
            features, head, absent, target
        )
    return result


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("scale", "tolerance"),
    [(3.0, 2e-5), (30.0, 2e-5), (150.0, 1e-2)],  # 150: one position changes odds by exp(80)
)
@pytest.mark.parametrize("target", ["class", "energy"])
def test_seven_by_seven_against_float64(norm, scale, tolerance, target):
    features, head = make_problem(3, 7, classes=50, norm=norm, scale=scale, images=1)
    classes = jnp.argmax(head(jnp.asarray(features).mean((1, 2))), axis=-1)
    coalitions = draw_coalitions(jax.random.key(1), 24, 49)
    result = coalition_values(
        jnp.asarray(features), head, coalitions, "energy" if target == "energy" else classes
    )
    wanted = "energy" if target == "energy" else int(classes[0])
    expected = np.mean(
        [direct(features[0], head, mask, wanted) for mask in np.asarray(coalitions[0])], axis=0
    )
    error = np.abs(np.ravel(result.values[0]) - expected).max()
    if norm:  # its logits are computed anew for every change, whatever the size
        tolerance = 2e-5
    assert error < tolerance * np.abs(expected).max(), error / np.abs(expected).max()


def test_certain_predictions_keep_their_relative_precision():
    features, head = make_problem(4, 3, images=1)
    head = LinearHead(head.kernel, head.bias.at[2].add(40.0))  # v = 1 - 1e-16 for every coalition
    result = coalition_values(jnp.asarray(features), head, all_coalitions(9)[None], jnp.array([2]))
    flat = features.astype(np.float64).reshape(9, -1) / 9
    rows = np.asarray(all_coalitions(9), np.float64)

    def complement(rows):  # 1 - v, without the cancellation of 1 - (1 - 1e-16)
        logits = rows @ flat @ np.asarray(head.kernel, np.float64)
        logits = logits + np.asarray(head.bias, np.float64)
        odds = np.exp(logits - logits[:, [2]])
        odds[:, 2] = 0
        return odds.sum(1) / (1 + odds.sum(1))

    expected = np.zeros(9)
    for i in range(9):
        present, absent = rows.copy(), rows.copy()
        present[:, i], absent[:, i] = 1, 0
        expected[i] = (complement(absent) - complement(present)).mean()
    found = np.ravel(result.values[0])
    assert 0 < np.abs(expected).max() < 1e-10
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("norm", [False, True])
def test_bfloat16_factors_stay_close(norm):
    features, head = make_problem(5, 7, classes=50, norm=norm)
    exact, close = (
        position_values(jnp.asarray(features), head, jax.random.key(0), precision=precision).values
        for precision in ("float32", "bfloat16")
    )
    error = jnp.abs(exact - close).max()
    assert 0 < error < 0.02 * jnp.abs(exact).max()


@pytest.mark.long
@pytest.mark.parametrize("norm", [False, True])
def test_an_image_does_not_depend_on_its_batch(norm):
    features, head = make_problem(6, 5, images=9, norm=norm)
    call = jax.jit(
        lambda features: position_values(
            features, head, jax.random.key(0), coalitions="auto", value="shapley"
        )
    )
    whole = call(jnp.asarray(features))
    for part in (slice(0, 1), slice(1, 9)):
        split = call(jnp.asarray(features[part]))
        np.testing.assert_allclose(split.values, whole.values[part], rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(split.coalitions, whole.coalitions[part])
    sharded = call(shard(features[:8], data_mesh()))
    np.testing.assert_allclose(sharded.values, whole.values[:8], rtol=1e-4, atol=1e-7)


def test_standard_error_covers_the_error():
    features, head = make_problem(7, 5, images=4, scale=6.0)
    call = jax.jit(lambda key: position_values(jnp.asarray(features), head, key, coalitions=4 * 56))
    drawn = draw_coalitions(jax.random.key(99), 60_000, 25)
    truth = jax.jit(coalition_values)(jnp.asarray(features), head, drawn).values
    within = {1: [], 2: []}
    for seed in range(40):
        result = call(jax.random.key(seed))
        for factor, shares in within.items():
            inside = jnp.abs(result.values - truth) <= factor * result.standard_error
            shares.append(float(inside.mean()))
    assert 0.5 < np.mean(within[1]) < 0.8, within
    assert 0.84 < np.mean(within[2]) < 0.99, within


def test_the_error_of_one_design_is_not_understated():
    features, head = make_problem(7, 5, images=4, scale=6.0)
    call = jax.jit(lambda key: position_values(jnp.asarray(features), head, key, coalitions=56))
    results = [call(jax.random.key(seed)) for seed in range(40)]
    spread = np.std([result.values for result in results], axis=0)
    stated = np.mean([result.standard_error for result in results], axis=0)
    assert spread.mean() < stated.mean() < 10 * spread.mean()


@pytest.mark.long
def test_the_stopping_rule_stops_each_image_when_it_holds():
    features, head = make_problem(8, 7, images=3, scale=6.0)
    drawn = draw_coalitions(jax.random.key(0), 1800, 49)
    call = jax.jit(
        lambda stop: coalition_values(jnp.asarray(features), head, drawn, stop=stop),
        static_argnums=0,
    )
    never = call(StoppingRule(tolerance=0.0, unchanged=100))
    np.testing.assert_array_equal(never.coalitions, 1800)
    np.testing.assert_allclose(never.values, call(None).values, rtol=1e-5, atol=1e-8)

    close = call(StoppingRule(tolerance=0.03, unchanged=100))
    assert (close.coalitions < 1800).all() and (close.coalitions >= 240).all()
    largest = jnp.abs(close.values).max(axis=(1, 2))
    assert (close.standard_error.max(axis=(1, 2)) <= 0.03 * largest).all()
    for image, count in enumerate(np.asarray(close.coalitions)):
        alone = coalition_values(jnp.asarray(features), head, drawn[: count // 120])
        np.testing.assert_allclose(close.values[image], alone.values[image], rtol=1e-4, atol=1e-8)

    cut = call(StoppingRule(tolerance=0.0, unchanged=1))
    assert (cut.coalitions < 1800).all() and (cut.coalitions >= 240).all()


def test_what_is_refused():
    with pytest.raises(UsageError, match="coalitions: got 1, wanted at least 2"):
        draw_coalitions(jax.random.key(0), 1, 49)


@pytest.mark.long
def test_real_maps_against_a_million_coalitions():
    torch = pytest.importorskip("torch")
    from PIL import Image

    networks = import_torchvision("torchvision.models")
    transforms = import_torchvision("torchvision.transforms")
    network = networks.mobilenet_v2().eval()
    network.load_state_dict(torch.load(mobilenet_checkpoint(), weights_only=True))
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = [prepare(Image.open(path).convert("RGB")) for path in imagenet_photographs()[:4]]
    with torch.no_grad():
        features = network.features(torch.stack(images)).permute(0, 2, 3, 1).numpy()
    linear = network.classifier[1]
    head = LinearHead(
        jnp.asarray(linear.weight.detach().numpy().T), jnp.asarray(linear.bias.detach().numpy())
    )
    rows = jax.random.bernoulli(jax.random.key(0), shape=(1024, 512, 49))  # independent draws
    rows = jnp.concatenate([rows, ~rows], axis=1)
    call = jax.jit(coalition_values)
    truth = np.asarray(call(jnp.asarray(features), head, rows).values)
    largest = np.abs(truth).max(axis=(1, 2))
    for count, bound in ((60, 0.04), (120, 0.025), (960, 0.01)):
        draws = [
            call(jnp.asarray(features), head, draw_coalitions(jax.random.key(seed), count, 49))
            for seed in range(4)
        ]
        error = np.array([np.abs(draw.values - truth).max(axis=(1, 2)) for draw in draws]) / largest
        assert error.mean() < bound, (count, error)
        kept = kept_positions(draws[0].values, 34) & kept_positions(jnp.asarray(truth), 34)
        assert kept.sum(axis=(1, 2)).mean() > 33.5
