"""A model of a user's own with a cosine head, from images to a detector file."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxood
from jaxood.data.images import Arrays
from jaxood.data.suite import Suite
from jaxood.errors import UsageError

RNG = np.random.default_rng(0)
TEXTS = RNG.normal(size=(3, 8)).astype(np.float32)  # five classes, three negative labels
CLASSES, NEGATIVES = TEXTS[:, :5], TEXTS[:, 5:]


class Colours(nnx.Module):
    """The mean colour against directions of colours."""

    preprocessing = jaxood.Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def __init__(self, kind):
        self.kind = kind
        self.texts = nnx.Param(jnp.asarray(TEXTS))

    @property
    def head(self):
        if self.kind == "linear":
            return jaxood.LinearHead(self.texts[:, :5], jnp.zeros(5))
        return jaxood.CosineHead(self.texts[:, :5], negatives=self.texts[:, 5:])

    def __call__(self, images):
        return jaxood.model_outputs(self.head, images.mean(axis=(1, 2)), images)


def pictures(name, count=24):
    images = RNG.integers(0, 256, (count, 1, 1, 3)) + np.zeros((1, 8, 8, 1), int)
    return Arrays(images.astype(np.uint8), np.arange(count) % 5, name)


def suite():
    return Suite("colours", None, pictures("test"), {"others": pictures("others")})


def test_scores_are_those_of_the_cosines(tmp_path):
    sets, model = suite(), Colours("cosine")
    methods = ["mcm", "neglabel[groups=1]"]
    result = jaxood.evaluate(model, sets, methods)
    rows = (sets.id_test.images.astype(np.float64).mean(axis=(1, 2)) / 255 - 0.5) / 0.25
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (
        TEXTS / np.linalg.norm(TEXTS, axis=0)
    )
    p = np.exp(cosines[:, :5]) / np.exp(cosines[:, :5]).sum(axis=1, keepdims=True)
    odds = np.log(
        np.exp(100 * cosines[:, :5]).sum(axis=1) / np.exp(100 * cosines[:, 5:]).sum(axis=1)
    )
    found = {one.method: one.scores.id for one in result.results}
    np.testing.assert_allclose(found[methods[0]], p.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found[methods[1]], odds, rtol=1e-4, atol=1e-3)

    fitted = jaxood.fit(model, methods[1], calibrate=sets.id_test)
    fitted.save(tmp_path / "detector")
    loaded = jaxood.load_detector(tmp_path / "detector", model)
    verdicts = [verdict.score for verdict in loaded.detect(sets.ood["others"])]
    expected = next(one for one in result.results if one.method == methods[1]).scores.ood["others"]
    np.testing.assert_allclose(verdicts, expected, rtol=1e-5, atol=1e-4)


def test_other_heads_are_refused_before_any_image_is_read():
    class Unread(Arrays):
        def batches(self, *arguments, **how):
            raise AssertionError

    sets = suite()
    unread = Unread(sets.id_test.images, sets.id_test.labels, "test")
    line = "method mcm: got a LinearHead, wanted a CosineHead. It compares images with texts"
    with pytest.raises(UsageError, match=line):
        jaxood.evaluate(Colours("linear"), Suite("colours", None, unread, sets.ood), ["msp", "mcm"])
    with pytest.raises(UsageError, match=line):
        jaxood.fit(Colours("linear"), "mcm", calibrate=unread)
    with pytest.raises(
        UsageError, match="head: got CosineHead, wanted LinearHead or NormLinearHead"
    ):
        jaxood.evaluate(Colours("cosine"), Suite("colours", None, unread, sets.ood), ["sfp"])
