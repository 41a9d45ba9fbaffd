"""The draw of the bank: sizes, keys, and equal shares."""

import jax
import numpy as np
import pytest

from jaxood.detectors.bank import bank_size, draw_bank


@pytest.mark.parametrize(
    ("count", "fraction", "size"),
    [
        (1_281_167, None, 12_811),  # ImageNet, as the NNGuide code has it
        (50_000, None, 10_000),
        (759, None, 759),
        (1_281_167, 0.5, 640_583),
        (759, 0.01, 7),
        (759, 1.0, 759),
        (10, 0.01, 1),
    ],
)
def test_size(count, fraction, size):
    assert bank_size(count, fraction) == size


def test_same_key_same_images_other_key_others():
    first, again, other = (draw_bank(5000, None, 0.1, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 100  # 50 expected of 500
    assert len(np.unique(first)) == 500
    assert np.all(np.diff(first) > 0)


def test_random_draw_favours_no_place():
    seen = np.zeros(200)
    for seed in range(100):
        seen[draw_bank(200, None, 0.25, jax.random.key(seed))] += 1
    assert abs(seen[:100].sum() - seen[100:].sum()) < 200  # of 5,000; 4 standard deviations
    assert seen.min() > 8  # of 25 expected


def test_balanced_draw_takes_equal_shares():
    labels = np.repeat([7, 3, 5], [900, 60, 40])
    shares = draw_bank(1000, labels, 0.09, jax.random.key(0), balanced=True)
    assert [np.sum(labels[shares] == label) for label in (7, 3, 5)] == [30, 30, 30]
    # 200 of three classes, of which 3 and 5 have but 60 and 40.
    shares = draw_bank(1000, labels, 0.2, jax.random.key(0), balanced=True)
    assert [np.sum(labels[shares] == label) for label in (7, 3, 5)] == [100, 60, 40]


def test_balanced_draw_is_random_within_a_class():
    labels = np.arange(1000) % 2
    first, other = (
        draw_bank(1000, labels, 0.1, jax.random.key(seed), balanced=True) for seed in (0, 1)
    )
    assert len(np.intersect1d(first, other)) < 30  # 10 expected of 100


def test_random_draw_ignores_labels():
    labels = np.repeat([0, 1], [990, 10])
    plain, labelled = (
        draw_bank(1000, classes, 0.1, jax.random.key(0)) for classes in (None, labels)
    )
    np.testing.assert_array_equal(plain, labelled)
