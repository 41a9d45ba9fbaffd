"""The digits suite: who is in which split."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from jaxood.data.digits import digits_ood, digits_train_and_test


def test_splits_are_disjoint_and_whole():
    train, test = digits_train_and_test()
    data = load_digits()
    known = data.target < 6
    assert len(train) + len(test) == known.sum()
    together = np.concatenate([train.images, test.images])[..., 0].reshape(-1, 64)
    expected = np.round(data.data[known] * (255 / 16)).astype(np.uint8)
    order = [np.lexsort(rows.T) for rows in (together, expected)]
    np.testing.assert_array_equal(together[order[0]], expected[order[1]])
    for digit in range(6):
        assert (train.labels == digit).sum() == round(0.7 * (data.target == digit).sum())
    labels = np.concatenate([train.labels, test.labels])
    np.testing.assert_array_equal(labels[order[0]], data.target[known][order[1]])


def test_foreign_sets():
    sets = digits_ood()
    assert {name: len(own) for name, own in sets.items()} == {
        "digits 6-9": (load_digits().target >= 6).sum(),
        "patches": 500,
        "noise": 500,
    }
    for own in sets.values():
        assert own.images.dtype == np.uint8 and own.images.shape[1:] == (8, 8, 3)
        np.testing.assert_array_equal(own.images[..., 0], own.images[..., 2])
    noise = sets["noise"].images[..., 0]
    assert abs(noise.mean() - 127.5) < 2  # uniform over 0..255: 32,000 draws, sigma 0.41
    again = digits_ood()
    np.testing.assert_array_equal(again["patches"].images, sets["patches"].images)


def test_a_limit_for_other_images_is_none_for_the_photographs(monkeypatch):
    expected = digits_ood()["patches"].images
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    np.testing.assert_array_equal(digits_ood()["patches"].images, expected)
    assert Image.MAX_IMAGE_PIXELS == 1000
