"""Detectors on arrays that people have, and scores in blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detection as toy
from scipy.special import logsumexp

from jaxood.detectors import scoring
from jaxood.detectors.fitted import FittedDetector, detector
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.scoring import host_outputs, score_rows
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.parallel import data_mesh

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.normal(size=(70, 6)), RNG.normal(size=(9, 6))
KERNEL, BIAS = RNG.normal(size=(6, 4)), RNG.normal(size=4)
HEAD = LinearHead(jnp.asarray(KERNEL, jnp.float32), jnp.asarray(BIAS, jnp.float32))
LABELS = np.arange(70) % 4


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def knn_by_hand(k):
    return np.sort(unit(TEST) @ unit(TRAIN).T, axis=1)[:, -k]


def test_two_lines_and_no_model():
    fitted = detector("knn", k=5).fit(TRAIN)
    np.testing.assert_allclose(fitted.score(TEST), knn_by_hand(5), rtol=1e-5)
    assert repr(fitted).startswith("FittedDetector(method=Method(detector=Knn(k=5")
    assert "1." not in repr(fitted)  # no arrays


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, jnp.float32, jnp.bfloat16])
def test_any_kind_of_array(kind):
    array = jnp.asarray if kind in (jnp.float32, jnp.bfloat16) else np.asarray
    fitted = detector("knn", k=5).fit(array(TRAIN, kind))
    found = fitted.score(array(TEST, kind))
    tolerance = 1e-5 if np.dtype(kind).itemsize > 2 else 0.03
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, knn_by_hand(5), rtol=tolerance, atol=tolerance / 10)


def test_logits_come_from_the_head_or_are_given():
    logits = TEST @ KERNEL + BIAS
    expected = logsumexp(logits, axis=1)
    with_head = detector("energy").fit(head=HEAD)
    np.testing.assert_allclose(with_head.score(TEST), expected, rtol=1e-5)
    without = detector("energy").fit()
    np.testing.assert_allclose(without.score(logits=logits), expected, rtol=1e-5)
    np.testing.assert_allclose(without.score(TEST, logits=logits), expected, rtol=1e-5)


def test_transforms_on_arrays():
    fitted = detector("react+energy").fit(TRAIN, head=HEAD)
    cut = np.minimum(TEST, np.percentile(TRAIN.astype(np.float32), 90))
    expected = logsumexp(cut @ KERNEL + BIAS, axis=1)
    np.testing.assert_allclose(fitted.score(TEST), expected, rtol=1e-5)


def test_nnguide_with_logits_that_are_given():
    energies = [logsumexp(rows @ KERNEL + BIAS, axis=1) for rows in (TRAIN, TEST)]
    products = unit(TEST) @ (energies[0][:, None] * unit(TRAIN)).T
    expected = energies[1] * np.sort(products, axis=1)[:, -10:].mean(axis=1)
    fitted = detector("nnguide").fit(TRAIN, logits=TRAIN @ KERNEL + BIAS)
    found = fitted.score(TEST, logits=TEST @ KERNEL + BIAS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_labels_without_logits():
    fitted = detector("mahalanobis").fit(TRAIN, LABELS)
    means = np.stack([TRAIN[LABELS == label].mean(axis=0) for label in range(4)])
    centred = TRAIN - means[LABELS]
    precision = np.linalg.inv(centred.T @ centred / len(TRAIN))
    apart = TEST[:, None] - means[None]
    expected = -np.einsum("nkc,cd,nkd->nk", apart, precision, apart).min(axis=1)
    np.testing.assert_allclose(fitted.score(TEST), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "norm"])
def test_outputs_with_extras_and_penultimate_features(kind):
    """Anything with pooled, logits and extras: what a run keeps, ModelOutputs among it."""
    head, train, labels, _, test = toy.data(kind)
    for name in ("sfp+knn", "gram", "knn", "scale"):
        method = parse_method(name)
        needed = method.needs_train
        fitted = (
            detector(method).fit(train, labels, head=head)
            if needed and method.extractors == {}
            else None
        )
        state = method.fit_state(train if needed else None, labels, head)
        expected = jax.jit(method.score)(state, test, head)
        fitted = fitted or FittedDetector(method, state, head)
        np.testing.assert_allclose(fitted.score(test), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: detector("knn").fit(), "features: got None, wanted an array"),
        (lambda: detector("knn").fit(TRAIN[0]), r"features: got float64 values of shape \(6,\)"),
        (lambda: detector("knn").fit(TRAIN[:0]), r"features: got .* \(0, 6\), wanted at least one"),
        (lambda: detector("knn").fit("abc"), "features: got str, wanted an array of numbers with"),
        (lambda: detector("knn").fit([["a"]]), "features: got list, wanted an array of numbers"),
        (lambda: detector("knn").fit(TRAIN + 1j), "features: got complex128 values"),
        (lambda: detector("knn").fit(np.where(TRAIN > 2, np.nan, TRAIN)), "The first: row"),
        (
            lambda: detector("knn").fit(TRAIN).score(TEST[:, :5]),
            "features: got 5 channels, wanted 6",
        ),
        (
            lambda: detector("energy").fit().score(TEST),
            "logits: got None, wanted logits, as method",
        ),
        (lambda: detector("energy").fit().score(), "logits: got None, wanted logits or features"),
        (lambda: detector("nnguide").fit(TRAIN), "logits: got None, wanted logits, as method nng"),
        (
            lambda: detector("vim").fit(TRAIN),
            "head: got None, wanted one, as method vim uses it. G",
        ),
        (
            lambda: detector("react+knn").fit(TRAIN),
            r"head: got None, wanted one, as method react\+k",
        ),
        (
            lambda: detector("vim").fit(TRAIN[:, :5], head=HEAD),
            "features: got 5 channels, wanted 6",
        ),
        (
            lambda: detector("gram").fit(TRAIN, head=HEAD),
            "extras: got none called gram.*jaxood.fit",
        ),
        (
            lambda: detector("sfp").fit(head=HEAD).score(TEST),
            "extras: got none called sfp, wanted it",
        ),
        (lambda: detector("rmds").fit(TRAIN), "method rmds: got training images without labels"),
        (lambda: detector("rmds").fit(TRAIN, LABELS - 1), "labels: got -1 as label of image 0"),
        (
            lambda: detector("she").fit(TRAIN, LABELS + 1, head=HEAD),
            "labels: got 4 as label of imag",
        ),
        (
            lambda: detector("energy").fit(head=HEAD).score(logits=TEST),
            "logits: got 6 classes, want",
        ),
        (
            lambda: detector("energy").fit().score(TEST, logits=TRAIN),
            "logits: got 70 rows, wanted 9",
        ),
    ],
)
def test_refused(call, line):
    with pytest.raises(UsageError, match=line):
        call()


# Scores in blocks.


@pytest.mark.parametrize("count", [0, 1, 7, 9, 20, 21])
@pytest.mark.parametrize("name", ["knn", "nnguide", "maxlogit"])
def test_blocks_of_fixed_sizes(count, name, monkeypatch):
    monkeypatch.setattr(scoring, "SCORE_ROWS", (8, 16))
    sizes, original = [], scoring._score_block

    def counted(method, mesh, state, head, outputs):
        sizes.append(len(jax.tree.leaves(outputs)[0]))
        return original(method, mesh, state, head, outputs)

    monkeypatch.setattr(scoring, "_score_block", counted)
    method = parse_method(name)
    state = method.fit_state(host_outputs(HEAD, TRAIN.astype(np.float32)), None, HEAD)
    outputs = host_outputs(HEAD, np.resize(TEST, (count, 6)).astype(np.float32))
    found = score_rows(method, state, outputs, HEAD, data_mesh())
    assert found.shape == (count,) and found.dtype == np.float32
    if count:
        expected = method.score(state, jax.tree.map(jnp.asarray, outputs), HEAD)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert set(sizes) <= {8 if count <= 8 else 16}


def test_only_what_is_read_goes_to_the_devices(monkeypatch):
    seen = []
    monkeypatch.setattr(scoring, "_score_block", lambda *arguments: seen.append(arguments[4]) or 0)
    outputs = host_outputs(HEAD, TEST.astype(np.float32), extras={"other": np.zeros((9, 1))})
    for name in ("knn", "knn[features=pooled]", "msp"):
        with pytest.raises(ValueError):
            score_rows(parse_method(name), ((),), outputs, HEAD)
    there = [
        {depth for depth in ("pooled", "penultimate", "logits") if getattr(one, depth) is not None}
        for one in seen
    ]
    assert there == [{"penultimate"}, {"pooled"}, {"logits"}]
    assert all(not one.extras for one in seen)


def test_scores_that_are_not_finite_stop_the_run():
    outputs = host_outputs(HEAD, TEST.astype(np.float32))
    outputs.logits[2:4] = np.nan
    line = "method energy: got 2 of 9 scores that are not finite .row 2, row 3., wanted finite ones"
    with pytest.raises(UsageError, match=line):
        score_rows(parse_method("energy"), ((),), outputs, HEAD)


@pytest.mark.parametrize("kind", ["linear", "norm"])
def test_host_outputs(kind):
    head = toy.head_of(kind)
    pooled = RNG.normal(size=(33, toy.CHANNELS)).astype(np.float32)
    outputs = host_outputs(head, pooled)
    exact = np.float64(pooled)
    if kind == "norm":
        exact = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(
            exact.var(axis=1, keepdims=True) + head.epsilon
        )
        exact = exact * np.float64(head.scale) + np.float64(head.shift)
    else:
        assert outputs.penultimate is outputs.pooled is pooled  # no copy of a large bank
    np.testing.assert_allclose(outputs.penultimate, exact, rtol=1e-4, atol=1e-5)
    logits = exact @ np.float64(head.kernel) + np.float64(head.bias)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)
    assert isinstance(outputs.penultimate, np.ndarray) and isinstance(outputs.logits, np.ndarray)
