"""Interpolation along an axis as a matrix, by the kernels of `torch.nn.functional.interpolate`."""

import numpy as np
from jaxtyping import Float


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0.0)


KERNELS = {"bicubic": _cubic, "bilinear": _linear}


def weights_at(
    positions: Float[np.ndarray, " m"], size: int, kernel: str
) -> Float[np.ndarray, "m s"]:
    """What each of `size` values weighs at positions among them; values at the ends repeated."""
    rows = np.arange(len(positions))
    matrix = np.zeros((len(positions), size))
    for tap in range(-1, 3):
        taps = np.floor(positions).astype(int) + tap
        weights = KERNELS[kernel](positions - taps)
        np.add.at(matrix, (rows, np.clip(taps, 0, size - 1)), weights)
    return matrix


def antialiased_weights(size: int, wanted: int) -> Float[np.ndarray, "m s"]:
    """What each of `size` values weighs where they become fewer: bicubic, over a wider window.

    Its kernel is another than `weights_at`'s, PIL's.
    """
    scale = size / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    matrix = _cubic((np.arange(size)[None] + 0.5 - centres[:, None]) / scale, a=-0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)
