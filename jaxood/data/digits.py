"""scikit-learn's 1,797 real handwritten digits as a suite that needs no download.

Digits 0 to 5 are in distribution, a fixed 70 % of each class for training. Out of distribution
are digits 6 to 9 (near), and grey patches of photographs and uniform noise (far).
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxood.data.images import Arrays
from jaxood.data.suite import Suite

ID_CLASSES = 6
TRAIN_FRACTION = 0.7
FAR_COUNT = 500
SPLIT_SEED = 20250101  # the split is part of the suite: --seed does not move it


def digits_suite() -> Suite:
    """Near: other digits; far: what is no digit."""
    train, test = digits_train_and_test()
    ood = digits_ood()
    near, *far = ood
    return Suite("digits", train, test, ood, groups={"near": (near,), "far": tuple(far)})


def digits_train_and_test() -> tuple[Arrays, Arrays]:
    """The training and the held-out images of the digits 0 to 5."""
    images, labels = _digits()
    train = np.zeros(len(labels), bool)
    generator = np.random.default_rng(SPLIT_SEED)
    for digit in range(ID_CLASSES):
        members = generator.permutation(np.flatnonzero(labels == digit))
        train[members[: round(TRAIN_FRACTION * len(members))]] = True
    test = ~train & (labels < ID_CLASSES)
    return (
        Arrays(images[train], labels[train], "digits 0-5, train"),
        Arrays(images[test], labels[test], "digits 0-5"),
    )


def digits_ood() -> dict[str, Arrays]:
    """The out-of-distribution sets by name."""
    images, labels = _digits()
    generator = np.random.default_rng(SPLIT_SEED)
    noise = generator.integers(0, 256, (FAR_COUNT, 8, 8, 1), dtype=np.uint8)
    far = {"patches": _patches(generator), "noise": np.repeat(noise, 3, axis=-1)}
    near = {"digits 6-9": images[labels >= ID_CLASSES]}
    return {name: Arrays(pictures, None, name) for name, pictures in (near | far).items()}


def _digits() -> tuple[UInt8[np.ndarray, "n 8 8 3"], np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), data.target


def _patches(generator: np.random.Generator) -> UInt8[np.ndarray, "n 8 8 3"]:
    """Grey 8x8 windows of the two sample photographs, half of them from each."""
    from sklearn.datasets import load_sample_images

    patches, limit = [], Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # which --max-pixels lowers, for images of the user's
        photographs = load_sample_images().images
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    for photograph in photographs:
        grey = np.round(photograph @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        rows = generator.integers(0, grey.shape[0] - 7, FAR_COUNT // 2)
        columns = generator.integers(0, grey.shape[1] - 7, FAR_COUNT // 2)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (8, 8))
        patches.append(windows[rows, columns])
    return np.repeat(np.concatenate(patches)[..., None], 3, axis=-1)
