"""What the convolutional networks are made of: NHWC, batch norm already in kernel and bias.

The precision of products is that in which `Backbone.run` runs them, but for what only CPUs do.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxood.compiling import computed_once
from jaxood.heads import AnyArray
from jaxood.models.winograd import winograd, winograd_pays, winograd_taps

Activation = Callable[[Array], Array]
# Groups of fewer channels are convolved together: RegNetY-800MF, of groups of 16, takes 0.96 of the
# time that it takes with each alone.
NARROW = 32
# Columns that YNNPACK's products take at once. A kernel of 120 is kept with zeros up to 128, and
# takes 0.81 of the time; 440 takes 0.93; 104 or 48 would take 1.03 or more.
COLUMNS = 32
MOST_ZEROS = 1 / 8
# Weights of a depthwise kernel that a core's first cache keeps, with as many inputs: 39 of 48 KiB.
HELD = 5000
VECTOR = 16  # numbers in one of AVX-512


def relu(x: Array) -> Array:
    return jax.nn.relu(x)


def relu6(x: Array) -> Array:
    return jax.nn.relu6(x)


def pads_of(size: int, kernel: int, stride: int, padding: int | str) -> tuple[int, int]:
    """Zeros before and after an axis: as many on both sides, or TensorFlow's "SAME"."""
    if isinstance(padding, str):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2
    return padding, padding


def _dense(x, kernel, stride, pads, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _direct(x, kernel, stride, pads):
    """A convolution on a CPU: with a channel of zeros where YNNPACK is slow without, in stems."""
    odd, outputs = kernel.shape[2] % 2, kernel.shape[3]
    if odd and outputs <= COLUMNS:  # 3 to 32 channels take 0.43 of the time so
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _dense(x, kernel, stride, pads)


def _direct_forward(x, kernel, stride, pads):
    return _direct(x, kernel, stride, pads), (x, kernel)


def _direct_backward(stride, pads, kept, slope):
    """That of the kernel, which nothing here asks for, is JAX's."""
    x, kernel = kept
    _, backward = jax.vjp(lambda kernel: _dense(x, kernel, stride, pads), kernel)
    return _to_inputs(x, kernel, slope, stride, pads), *backward(slope)


_direct.defvjp(_direct_forward, _direct_backward)


def _to_inputs(x, kernel, slope, stride, pads):
    """The gradient of a convolution: one of slopes, with zeros between them where it has strides.

    Nothing is multiplied by these: as many convolutions as there are places between two slopes,
    each of the taps that meet slopes there. XLA leaves one with zeros to Eigen, which is wrong
    beside another program, and slow in a loop where the kernel has to be turned.
    """
    zero, fewer = jnp.zeros((), slope.dtype), (max(0, stride - size) for size in kernel.shape[:2])
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    turned = jax.lax.pad(turned, zero, [*((0, more, 0) for more in fewer), (0, 0, 0), (0, 0, 0)])
    (above, _), (left, _) = _around(x, kernel, slope, stride, pads)
    height, width = (-(-size // stride) for size in x.shape[1:3])

    def met(row, column):
        """The gradient at every so manyth place from there on."""
        (i, top), (j, start) = _taps(row, above, stride), _taps(column, left, stride)
        own = turned[i::stride, j::stride]
        below = height - top + own.shape[0] - 1 - slope.shape[1]
        end = width - start + own.shape[1] - 1 - slope.shape[2]
        edges = [(0, 0, 0), (top, below, 0), (start, end, 0), (0, 0, 0)]  # which may be negative
        return _dense(jax.lax.pad(slope, zero, edges), own, 1, ((0, 0), (0, 0)))

    rows = [jnp.stack([met(row, column) for column in range(stride)], 3) for row in range(stride)]
    spread = jnp.stack(rows, 2)  # n, h / stride, stride, w / stride, stride, c
    spread = spread.reshape(len(x), height * stride, width * stride, -1)
    return spread[:, : x.shape[1], : x.shape[2]]


def _taps(place, before, stride):
    """The first tap that meets a slope at a place, and how many slopes lie before the first there.

    `before` zeros are before the first of all.
    """
    first = (before - place) % stride
    return first, (before - place - first) // stride


def _pointwise(x, kernel, stride):
    x = x[:, ::stride, ::stride]
    flat = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return flat.reshape(*x.shape[:3], -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, pads):
    return _shifted(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride)


def _depthwise_forward(x, kernel, stride, pads):
    return _depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(stride, pads, kept, slope):
    """Multiply-adds again, of slopes with zeros between them; what JAX derives is 3 to 10x slower.

    That of the kernel, which nothing here asks for, is JAX's.
    """
    x, kernel = kept
    around = _around(x, kernel, slope, stride, pads)
    spread = [(0, 0, 0), *((*pad, stride - 1) for pad in around), (0, 0, 0)]
    zero = jnp.zeros((), slope.dtype)
    to_x = _shifted(jax.lax.pad(slope, zero, spread), kernel[::-1, ::-1], 1)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    _, backward = jax.vjp(lambda kernel: _shifted(padded, kernel, stride), kernel)
    return to_x, *backward(slope)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _around(x, kernel, slope, stride, pads):
    """Zeros before and after the rows and columns of `slope`, so that it gives those of `x`."""
    found = []
    for axis, (before, _) in enumerate(pads, 1):
        last = kernel.shape[axis - 1] - 1
        after = x.shape[axis] + before - (slope.shape[axis] - 1) * stride - 1
        found.append((last - before, after))
    return found


def _blocks(kernel):
    """Blocks of channels of which a depthwise kernel, and what it meets, stay in the first cache.

    The loop over channels is the innermost. Beside all at once 25 taps of 672 take 0.39 of the
    time, 49 of 384 0.37, 9 of 960 0.56.
    """
    wanted, channels = round(kernel.size / HELD), kernel.shape[3]
    return next((some for some in range(wanted, 2 * wanted) if channels % (some * VECTOR) == 0), 1)


def _shifted(x, kernel, stride):
    """Shifted multiply-adds: a fused loop, where the CPU's grouped convolution is 50x slower.

    A loop for each block of channels.
    """
    blocks = _blocks(kernel)
    if blocks > 1:
        parts = zip(jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True)
        return jnp.concatenate([_shifted(*part, stride) for part in parts], -1)
    rows, columns = kernel.shape[:2]
    height = (x.shape[1] - rows) // stride + 1
    width = (x.shape[2] - columns) // stride + 1
    total, wide = 0.0, np.promote_types(x.dtype, np.float32)
    for i in range(rows):
        for j in range(columns):
            part = x[:, i : i + (height - 1) * stride + 1 : stride]
            part = part[:, :, j : j + (width - 1) * stride + 1 : stride]
            total = total + part.astype(wide) * kernel[i, j, 0].astype(wide)[None, None, None]
    return total.astype(x.dtype)


def _in_loop(x, kernel, stride, pads):
    """`_depthwise` in a loop, out of which XLA's CPU compiler fuses nothing.

    A LayerNorm reads its input three times, and would compute the convolution as often, channel by
    channel: 13 ms instead of 1.5 for 7 x 7 taps on a map of 56 x 56 x 96. An optimization barrier
    does not stop it. Over blocks of channels, or where there is one, bands of rows.
    """
    blocks, (rows, _, _, channels) = _blocks(kernel), kernel.shape
    if blocks > 1:
        width = channels // blocks

        def block(first):
            part = (jax.lax.dynamic_slice_in_dim(a, first, width, axis=3) for a in (x, kernel))
            return _depthwise(*part, stride, pads)

        found = jnp.moveaxis(jax.lax.map(block, jnp.arange(0, channels, width)), 0, 3)
        return found.reshape(*found.shape[:3], channels)
    height = x.shape[1] + sum(pads[0]) - rows + 1
    count = next((some for some in range(2, height + 1) if height % some == 0), 1)
    if stride > 1 or count == 1:
        return _depthwise(x, kernel, stride, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    size = height // count

    def band(first):
        part = jax.lax.dynamic_slice_in_dim(x, first, size + rows - 1, axis=1)
        return _depthwise(part, kernel, 1, ((0, 0), (0, 0)))

    found = jax.lax.map(band, jnp.arange(0, height, size)).swapaxes(0, 1)
    return found.reshape(len(x), height, *found.shape[3:])


def laid_out(
    kernel: Float[AnyArray, "kh kw i o"], stride: int, groups: int, positions: int | None = None
) -> list[Float[AnyArray, "..."]]:
    """What a CPU convolves with, group by group: kernels, or what Winograd's way takes of them.

    Narrow groups are together, with zeros between them; a kernel of 1 x 1 has more outputs, of
    zeros. Empty where it is the kernel itself.
    """
    xp = np if isinstance(kernel, np.ndarray) else jnp
    rows, columns, inputs, outputs = kernel.shape
    if groups == 1 and (rows, columns) == (1, 1):
        more = -outputs % COLUMNS
        pays = 0 < more <= outputs * MOST_ZEROS
        return [xp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, more)))] if pays else []
    if groups == 1:
        return [winograd_taps(kernel)] if winograd_pays(kernel, stride, positions) else []
    if inputs == 1 and outputs == groups:
        return []
    outputs //= groups
    together, blocks = max(1, NARROW // inputs), []
    for first in range(0, groups, together):
        count = min(together, groups - first)
        own = kernel[..., first * outputs : (first + count) * outputs]
        apart = xp.eye(count, dtype=kernel.dtype)[None, None, :, None, :, None]
        block = own.reshape(rows, columns, 1, inputs, count, outputs) * apart
        block = block.reshape(rows, columns, count * inputs, count * outputs)
        by_winograd = winograd_pays(block, stride, positions)
        blocks.append(winograd_taps(block) if by_winograd else block)
    return blocks


def _group_by_group(x, laid, stride, pads):
    parts, first = [], 0
    for block in laid:
        width = block.shape[-2]
        own = x[..., first : first + width]
        if width == NARROW:  # whose loop LLVM would unroll, into scalars: 2.5x slower
            own = computed_once(own)
        first += width
        by_winograd = block.ndim == 3
        parts.append(
            winograd(own, block, pads) if by_winograd else _direct(own, block, stride, pads)
        )
    return jnp.concatenate(parts, axis=-1)


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    stride: int,
    padding: int | str,
    groups: int,
    normed: bool = False,
    laid: Sequence[Float[Array, "..."]] = (),
    rows: tuple[int, int] | None = None,
) -> Float[Array, "n h2 w2 o"]:
    """`lax.conv_general_dilated`, and on a CPU what is faster there.

    Args:
      normed: whether a LayerNorm follows.
      laid: `laid_out` of the kernel, if it was made before.
      rows: of zeros above and below, in the place of those that `padding` says.
    """
    above, left = (
        pads_of(x.shape[1 + axis], kernel.shape[axis], stride, padding) for axis in range(2)
    )
    pads = rows or above, left
    if kernel.shape[:2] == (1, 1) and groups == 1:
        return _pointwise(x, laid[0] if laid else kernel, stride)[..., : kernel.shape[3]]

    def cpu(x, kernel, laid):
        if kernel.shape[2] == 1 and kernel.shape[3] == groups:
            return (_in_loop if normed else _depthwise)(x, kernel, stride, pads)
        laid = laid or laid_out(kernel, stride, groups, x.shape[1] * x.shape[2])
        return _group_by_group(x, laid or [kernel], stride, pads)

    def anywhere(x, kernel, laid):
        return _dense(x, kernel, stride, pads, groups)

    return jax.lax.platform_dependent(x, kernel, tuple(laid), cpu=cpu, default=anywhere)


def add_bias(x: Array, bias: Array) -> Array:
    """`bias` is per channel; a whole array may stand in for it (FullGrad)."""
    return x + jnp.expand_dims(bias, tuple(range(x.ndim - bias.ndim)))


class Conv(nnx.Module):
    """Convolution, bias, activation.

    Attributes:
      padding: zeros on each side, as in torch, or "SAME" as in TensorFlow.
      activation: None where there is none.
      normed: whether a LayerNorm follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        padding: int | str | None = None,
        groups: int = 1,
        activation: Activation | None = None,
        normed: bool = False,
    ):
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs // groups, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride
        self.padding = size // 2 if padding is None else padding
        self.groups = groups
        self.activation = activation
        self.normed = normed
        self.laid: nnx.List[nnx.Variable] = nnx.List([])

    def lay_out(self) -> None:
        """Keeps what a CPU makes of the kernel: one that is set later has no effect."""
        laid = laid_out(np.asarray(self.kernel[...]), self.stride, self.groups)
        self.laid = nnx.List([nnx.Variable(jnp.asarray(block)) for block in laid])

    def __call__(
        self, x: Float[Array, "n h w i"], rows: tuple[int, int] | None = None
    ) -> Float[Array, "n h2 w2 o"]:
        """`rows` of zeros above and below, in the place of those that `padding` says."""
        how = self.stride, self.padding, self.groups, self.normed
        x = convolve(x, self.kernel[...], *how, [block[...] for block in self.laid], rows)
        x = add_bias(x, self.bias[...])
        return self.activation(x) if self.activation else x


def with_kernels_laid_out(module: nnx.Module, platform: str) -> nnx.Module:
    """The network as it is run again and again: on a CPU, with what it makes of kernels kept."""
    if platform != "cpu":
        return module
    module = nnx.merge(*nnx.split(module))
    for _, part in nnx.iter_modules(module):
        if isinstance(part, Conv):
            part.lay_out()
    return module


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _largest(x, size, stride, pads):
    """Of windows, as a maximum of shifted maps: 0.2 of the time of a reduction over windows."""
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = jax.lax.pad(x, lowest, [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    for axis in (1, 2):
        end = x.shape[axis] - size + 1
        shifted = (
            jax.lax.slice_in_dim(x, i, i + end, stride=stride, axis=axis) for i in range(size)
        )
        x = reduce(jnp.maximum, shifted)
    return x


def _reduced(x, size, stride, pads):
    return nnx.max_pool(x, (size, size), (stride, stride), pads)


def _largest_forward(x, size, stride, pads):
    return _largest(x, size, stride, pads), x


def _largest_backward(size, stride, pads, x, slope):
    """To the first of several that are largest, as torch does it."""
    _, backward = jax.vjp(lambda x: _reduced(x, size, stride, pads), x)
    return backward(slope)


_largest.defvjp(_largest_forward, _largest_backward)


class MaxPool(nnx.Module):
    """Maximum over windows; what lies outside the image never wins."""

    def __init__(self, size: int, stride: int, padding: int):
        self.size, self.stride, self.padding = size, stride, padding

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        pads = ((self.padding, self.padding),) * 2
        how = {"size": self.size, "stride": self.stride, "pads": pads}
        return jax.lax.platform_dependent(
            x, cpu=partial(_largest, **how), default=partial(_reduced, **how)
        )


def with_shortcut(
    branch: Float[Array, "n h w c"],
    shortcut: Float[Array, "n h w c"],
    activation: Activation | None = None,
) -> Float[Array, "n h w c"]:
    """Their sum, activated; flat, as the product of a 1x1 convolution reads it."""
    flat = branch.reshape(-1, branch.shape[-1]) + shortcut.reshape(-1, branch.shape[-1])
    return (computed_once(activation(flat)) if activation else flat).reshape(branch.shape)


def mean_over_places(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """On a CPU by a product, which is faster, and computes once what gave `x`."""

    def by_product(x):
        places = x.shape[1] * x.shape[2]
        ones = jnp.ones((len(x), 1, places), x.dtype)
        total = jnp.matmul(ones, x.reshape(len(x), places, -1), precision="highest")
        return total[:, 0] / places

    return jax.lax.platform_dependent(x, cpu=by_product, default=lambda x: x.mean(axis=(1, 2)))


class SqueezeExcite(nnx.Module):
    """Channels scaled by a small network of their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: Activation = relu):
        self.fc1 = Conv(channels, squeezed, activation=activation)
        self.fc2 = Conv(squeezed, channels)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        means = mean_over_places(x)[:, None, None]
        return x * jax.nn.sigmoid(self.fc2(self.fc1(means)))
