"""Convolutions of 3x3 taps and stride 1 by fewer products (Lavin & Gray, CVPR 2016).

Of F(2x2, 3x3): where a direct convolution takes 36 products for 2x2 outputs, this takes 16,

    Y = A' [(G g G') * (B' d B)] A    for a window d of 4x4 inputs and a kernel g of 3x3 taps,

summed over the channels between the brackets: a matrix product for each of the 16 places of the
window. Float32 errors are those of a direct convolution; larger windows, which save more, have
3 to 20 times as large ones.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def winograd_pays(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw i o"], stride: int
) -> bool:
    """Whether it is faster on a CPU: not for few channels, nor for a large kernel on a small map.

    The kernel grows by 16 / 9, and 512 x 512 of them for a map of 7 x 7 took longer than before.
    """
    positions, channels = x.shape[1] * x.shape[2], min(kernel.shape[2:])
    fits = kernel.shape[:2] == (3, 3) and stride == 1 and x.dtype == jnp.float32
    return fits and 64 <= channels <= 2 * positions


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)  # traced once for all layers of a shape
def winograd(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"], pads: Pads
) -> Float[Array, "n h2 w2 o"]:
    """Convolution of stride 1; `pads` are zeros before and after rows, and columns."""
    height, width = (x.shape[axis] + sum(pads[axis - 1]) - 2 for axis in (1, 2))
    (top, bottom), (left, right) = pads
    edges = [(0, 0, 0), (top, bottom + height % 2, 0), (left, right + width % 2, 0), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)  # which may be negative
    windows = _of_windows(_of_windows(x, 2), 2)  # rows, columns, n, h / 2, w / 2, i
    taps = jnp.matmul(np.kron(G, G), kernel.reshape(9, -1), precision="highest")
    products = jnp.matmul(
        windows.reshape(16, -1, x.shape[-1]),
        taps.reshape(16, *kernel.shape[2:]),
        precision="highest",
    )
    rows = _to_outputs(products.reshape(*windows.shape[:-1], -1))
    y = jnp.stack([jnp.stack(_to_outputs(row), 3) for row in rows], 2)  # n, h / 2, 2, w / 2, 2, o
    y = y.reshape(len(x), height + height % 2, width + width % 2, -1)
    return y[:, :height, :width]


def _of_windows(x, axis):
    """B'd along an axis: for windows of 4 that overlap by 2."""
    last = x.shape[axis] - 4
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + last + 1, stride=2, axis=axis) for i in range(4))
    return jnp.stack([a - c, b + c, c - b, b - d])


def _to_outputs(products):
    """A'm along the first axis: the two outputs of each window."""
    a, b, c, d = products
    return a + b + c, b - c - d


def _forward(x, kernel, pads):
    return winograd(x, kernel, pads), (x, kernel)


def _backward(pads, kept, slope):
    """To `x` by the same means; to the kernel, for which nothing here asks, as JAX has it."""
    x, kernel = kept
    around = tuple((2 - before, 2 - after) for before, after in pads)
    to_x = winograd(slope, kernel[::-1, ::-1].swapaxes(2, 3), around)
    layout = ("NHWC", "HWIO", "NHWC")
    direct = partial(jax.lax.conv_general_dilated, dimension_numbers=layout, precision="highest")
    _, backward = jax.vjp(lambda kernel: direct(x, kernel, (1, 1), pads), kernel)
    return to_x, *backward(slope)


winograd.defvjp(_forward, _backward)
