"""Labels by name: the numbers that a model gives to classes of those names."""

import logging

import numpy as np
import pytest

from jaxood.data.images import Arrays
from jaxood.data.relabelled import Relabelled, numbered_by
from jaxood.preprocessing import Preprocessing

LABELS = np.array([0, 2, 1, -1])


def images(names, sure=False, labels=LABELS):
    pixels = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    return Arrays(pixels, labels, "four", sure, names)


def test_names_that_the_model_knows():
    found = numbered_by(images(("ant", "bee", "cat")), ("cat", "dog", "bee", "ant"))
    assert found.labels.tolist() == [3, 0, 2, -1] and found.labels_are_classes
    assert found.class_names == ("cat", "dog", "bee", "ant")
    plain = images(("ant", "bee", "cat"))
    assert (found.name, found.ids, len(found)) == ("four", plain.ids, 4)
    assert found.fingerprint() == plain.fingerprint()
    part = found.subset(np.array([1, 2]))
    assert part.labels.tolist() == [0, 2] and part.class_names == found.class_names
    (batch,) = part.batches(Preprocessing(2, 2), 2)
    np.testing.assert_array_equal(batch.images, plain.images[[1, 2]])


@pytest.mark.parametrize(
    "unchanged",
    [images(()), images(("x", "y", "z")), images(("ant", "bee"), sure=True), images(("x",), True)],
)
def test_labels_stay_where_names_say_nothing(unchanged, caplog):
    with caplog.at_level(logging.WARNING, "jaxood"):
        assert numbered_by(unchanged, ("ant", "bee")) is unchanged
    assert not caplog.messages


def test_a_name_that_the_model_lacks_is_told(caplog):
    some = images(("ant", "bee", "cat"))
    with caplog.at_level(logging.WARNING, "jaxood"):
        assert numbered_by(some, ("ant", "bee")) is some
    (line,) = caplog.messages
    assert line.startswith("four: 1 of 3 class names are none of the model's, such as cat")


def test_the_same_order_becomes_sure():
    found = numbered_by(images(("ant", "bee", "cat")), ("ant", "bee", "cat"))
    assert isinstance(found, Relabelled) and found.labels.tolist() == LABELS.tolist()
    assert numbered_by(images(("ant",), labels=None), ("ant",)).labels is None
