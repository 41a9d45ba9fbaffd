"""What could pass for a result and is none: not finite, or tested on what was learned."""

import logging

import jax
import numpy as np
import pytest

import jaxood
from jaxood.data.images import Arrays
from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.loading import parameters, save_weights
from jaxood.models.registry import LoadedModel
from jaxood.models.weights_file import open_weights, write_weights
from jaxood.preprocessing import Preprocessing


def network(scale=1.0):
    module = digits_cnn(6)
    initialise(module, jax.random.key(0))
    module.classifier.kernel.set_value(module.classifier.kernel[...] * scale)
    return module


def model(scale=1.0):
    return LoadedModel(network(scale), Preprocessing(8, 8), "digits_cnn", "digits", "hash")


def images(count, seed, name="noise"):
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Arrays(pictures, np.arange(count) % 6, name)


def suite(train=0, known=1, foreign=2):
    return jaxood.Suite("mine", images(40, train), images(20, known), {"far": images(20, foreign)})


@pytest.mark.parametrize("method", ["energy", "sfp", "knn[k=3]"])
def test_weights_that_are_not_finite_give_no_number(method):
    """NaN weights gave an FPR95 of 0.00 once."""
    broken = model(np.nan if method != "knn[k=3]" else 1.0)
    if method == "knn[k=3]":
        kernel = broken.module.stages["conv1"].kernel
        kernel.set_value(kernel[...] * np.inf)
    with pytest.raises(UsageError, match="not finite"):
        jaxood.evaluate(broken, suite(), method)
    with pytest.raises(UsageError, match="not finite"):
        jaxood.fit(broken, method, train=images(40, 0), calibrate=images(20, 1))


def test_the_images_are_named():
    with pytest.raises(
        UsageError, match=r"20 of 20 scores .*\(noise/0, noise/1, noise/2, \.\.\.\)"
    ):
        jaxood.evaluate(model(np.nan), suite(), "energy")
    with pytest.raises(UsageError, match="banzhaf of 20 images that is not finite.*noise/0"):
        jaxood.attribute(model(np.nan), images(20, 1), "banzhaf")


def test_a_weights_file_with_nan_is_refused(tmp_path):
    save_weights(tmp_path / "good", network(), "digits_cnn", "digits")
    _, info = open_weights(tmp_path / "good")
    arrays = {name: np.array(array) for name, array in parameters(network()).items()}
    arrays["stages/conv2/kernel"][0, 0, 0, 0] = np.nan
    shapes = {name: array.shape for name, array in arrays.items()}
    write_weights(tmp_path / "bad", shapes, arrays.__getitem__, info)
    with pytest.raises(UsageError, match="stages/conv2/kernel is not finite"):
        jaxood.load_model(tmp_path / "bad")


def test_images_that_two_sets_share_are_told(tmp_path):
    assert not jaxood.evaluate(model(), suite(), "msp").shared
    found = jaxood.evaluate(model(), suite(train=1, known=1, foreign=1), ["knn[k=3]"])
    assert list(found.shared) == ["in distribution", "OOD set far"]
    assert found.shared["in distribution"] == 'in distribution: of 20 images, 20 in "train" too'
    told = 'OOD set far: of 20 images, 20 in "train", 20 in "in distribution" too'
    assert told in str(found)
    assert '"shared": {' in (found.save(tmp_path) / "manifest.json").read_text()


def test_a_threshold_on_what_was_learned_is_told(caplog):
    with caplog.at_level(logging.WARNING, "jaxood"):
        jaxood.fit(model(), "knn[k=3]", train=images(40, 0), calibrate=images(20, 1))
    assert not caplog.messages
    with caplog.at_level(logging.WARNING, "jaxood"):
        jaxood.fit(model(), "knn[k=3]", train=images(40, 1), calibrate=images(20, 1))
    assert '20 in "train" too: the threshold is set on what was learned' in caplog.messages[0]
