"""An accelerator gives what a CPU gives: run these where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import drawn_network

import jaxood
from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.demo.digits import digits_weights
from jaxood.detectors.neighbours import Bank, HostRows, blocks, nearest
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.models.blocked import forward
from jaxood.models.loading import load_weights
from jaxood.parallel import data_mesh
from jaxood.perturbation.imputation import IMPUTATIONS
from jaxood.runner.runner import Runner

pytestmark = [pytest.mark.gpu, pytest.mark.optimised]
NETWORKS = (
    "mobilenet_v2",
    "efficientnet_lite0",
    "resnet50",
    "regnet_y_1_6gf",
    "convnext_tiny",
    "swin_t",
    "tiny_vit_5m_224",
    "vit_b_16",
)
OTHER_HEADS = "mcm", "neglabel"
METHODS = [name for name in DETECTORS if name not in OTHER_HEADS]
METHODS += [*TRANSFORMS, *(f"{name}+knn" for name in VIEWS)]


def on_both(model, function, *rows, shared=()):
    """What `function` gives on the accelerator, and on one CPU device."""
    meshes = data_mesh(), data_mesh(jax.devices("cpu")[:1])
    found = [Runner(model, mesh).run(function, rows, shared) for mesh in meshes]
    return jax.tree.map(np.asarray, found)


def assert_near(found, expected, tolerance):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= tolerance, error


def outputs(model, images):
    return forward(model, images)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_float32(name):
    """No products of shortened factors, as TensorFloat32 has them: at three depths."""
    model = drawn_network(name)
    side = model.preprocessing.crop
    images = np.random.default_rng(1).standard_normal((8, side, side, 3), np.float32)
    found, expected = on_both(model, outputs, images)
    for depth in ("feature_map", "pooled", "logits"):
        assert_near(getattr(found, depth), getattr(expected, depth), 1e-4)


@pytest.fixture(scope="module")
def digits(cache):
    return load_weights(digits_weights(cache))


@pytest.mark.parametrize("name", [*ATTRIBUTIONS, *VIEWS])
def test_extractors(name, digits):
    step = Runner(digits).step(({**ATTRIBUTIONS, **VIEWS}[name](),))
    images = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    targets = np.arange(8, dtype=np.int32) % digits.classes
    found, expected = on_both(digits, step, images, targets, shared=(jax.random.key(0),))
    (key,) = expected.extras
    assert np.ptp(expected.extras[key]) > 0
    assert_near(found.extras[key], expected.extras[key], 1e-3)


@pytest.mark.parametrize("host", [False, True])
def test_neighbours(host):
    draw = np.random.default_rng(3).standard_normal
    several = blocks().queries + 1, blocks().bank + 1
    queries, rows = (draw((count, 64), np.float32) for count in several)
    bank = Bank(HostRows(rows) if host else jnp.asarray(rows), np.int32(len(rows)))
    found = jax.jit(nearest, static_argnums=2)(jnp.asarray(queries), bank, 5)
    some = np.s_[::64]  # the last too
    products = queries[some].astype(float) @ rows.T.astype(float)
    expected = np.sort(products, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(found.products[some], expected, atol=1e-4)
    there = np.take_along_axis(products, np.asarray(found.indices)[some], 1)
    np.testing.assert_allclose(there, expected, atol=1e-4)


def both_ways(call):
    """What a call gives on the accelerator, and on one CPU device."""
    found, cpu = call(), jax.devices("cpu")[:1]
    with pytest.MonkeyPatch.context() as patched, jax.default_device(cpu[0]):
        patched.setattr(jax, "local_devices", lambda: cpu)
        return found, call()


@pytest.fixture(scope="module")
def evaluations(digits):
    found, expected = both_ways(lambda: jaxood.evaluate(digits, "digits", METHODS))
    assert not found.failures and not expected.failures
    return [{one.method: one.scores for one in each.results} for each in (found, expected)]


@pytest.mark.parametrize("name", METHODS)
def test_scores_of_an_evaluation(name, evaluations):
    found, expected = (scores[name].id for scores in evaluations)
    assert_near(found - expected.mean(), expected - expected.mean(), 1e-2)


def test_curves_of_measures(digits):
    images = np.random.default_rng(4).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    measures = ["insertion[steps=8]", "sensitivity-n[subsets=20,sizes=2]", "sensitivity[draws=2]"]
    measures += [f"road[steps=4,imputation={name}]" for name in IMPUTATIONS]

    def measured():
        return jaxood.faithfulness(digits, images, "grad-cam", measures=measures, random_maps=1)

    found, expected = both_ways(measured)
    assert len(expected.columns) > len(measures)
    for column in expected.columns:
        for method, values in expected.values(column).items():
            np.testing.assert_allclose(found.values(column)[method], values, atol=2e-3)


@pytest.mark.parametrize(
    "dtype, least, most", [("tensorfloat32", 0, 5e-3), ("bfloat16", 1e-4, 3e-2)]
)
def test_shorter_arithmetic_is_close(dtype, least, most, digits):
    images = np.random.default_rng(5).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    short = jaxood.load_model("digits_cnn", dtype=dtype)
    rows = images, np.full(8, -1, np.int32)
    found, expected = (
        Runner(model).run(Runner(model).step(), rows, (jax.random.key(0),)).logits
        for model in (short, digits)
    )
    error = np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(expected).max()
    assert least <= error < most
