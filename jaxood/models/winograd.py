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

from jaxood.heads import AnyArray

Pads = tuple[tuple[int, int], tuple[int, int]]
# Channels: RegNetY-8GF, of groups of 56, takes 0.91 of the time; of 32, 800MF would take 1.04.
FEWEST = 48
TURNED = [3, 1, 2, 0]
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def winograd_pays(
    kernel: Float[AnyArray, "kh kw i o"], stride: int, positions: int | None = None
) -> bool:
    """Whether it is faster on a CPU: not for few channels.

    Args:
      positions: of the map, where a step transforms the kernel anew: then not either for a large
        kernel on a small map, 512 x 512 for 7 x 7. None where that was done before.
    """
    fits = kernel.shape[:2] == (3, 3) and stride == 1 and kernel.dtype == jnp.float32
    channels = min(kernel.shape[2:])
    return fits and FEWEST <= channels and (positions is None or channels <= 2 * positions)


def winograd_taps(kernel: Float[AnyArray, "3 3 i o"]) -> Float[AnyArray, "16 i o"]:
    """G g G' of a kernel; on the host where that is."""
    xp = np if isinstance(kernel, np.ndarray) else jnp
    with jax.default_matmul_precision("highest"):
        taps = xp.matmul(np.kron(G, G), kernel.reshape(9, -1))
    return taps.reshape(16, *kernel.shape[2:])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)  # traced once for all layers of a shape
def winograd(
    x: Float[Array, "n h w i"], taps: Float[Array, "16 i o"], pads: Pads
) -> Float[Array, "n h2 w2 o"]:
    """Convolution of stride 1, by what `winograd_taps` makes of its kernel.

    `pads` are zeros before and after rows, and columns.
    """
    return _convolved(x, taps, pads)


def _convolved(x, taps, pads):
    height, width = (x.shape[axis] + sum(pads[axis - 1]) - 2 for axis in (1, 2))
    (top, bottom), (left, right) = pads
    edges = [(0, 0, 0), (top, bottom + height % 2, 0), (left, right + width % 2, 0), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)  # which may be negative
    windows = _of_windows(_of_windows(x, 2), 2)  # rows, columns, n, h / 2, w / 2, i
    products = jnp.matmul(windows.reshape(16, -1, x.shape[-1]), taps, precision="highest")
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


def _forward(x, taps, pads):
    return winograd(x, taps, pads), (x, taps)


def _backward(pads, kept, slope):
    """To `x` by the same means: of a kernel that is turned, first and last taps change places."""
    x, taps = kept
    around = tuple((2 - before, 2 - after) for before, after in pads)
    turned = taps.reshape(4, 4, *taps.shape[1:])[np.ix_(TURNED, TURNED)].reshape(taps.shape)
    to_x = winograd(slope, turned.swapaxes(1, 2), around)
    _, backward = jax.vjp(lambda taps: _convolved(x, taps, pads), taps)
    return to_x, *backward(slope)


winograd.defvjp(_forward, _backward)
