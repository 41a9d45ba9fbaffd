"""Filling in removed pixels; the noisy linear imputation of ROAD, and baselines beside it.

Linear: every removed pixel equals the weighted mean of its eight neighbours (1/6 at edges, 1/12
at corners, renormalised at the border), all of them at once (Rong, Leemann, Borisov, Kasneci,
Kasneci, ICML 2022, https://arxiv.org/abs/2202.00449, section 5). One symmetric positive-definite
system a mask, the same for all channels, solved without a matrix by conjugate gradients with the
V-cycle of `multigrid` as preconditioner. Three things keep the steps few:

* they begin at pull-push interpolation, nearer than what a smaller mask of the image gave;
* the mean of the kept pixels is taken off first, so that a nearly singular system (few pixels
  kept) has a small right-hand side;
* what a step changes estimates the error x* - x before it. The last step is the first that moves
  no pixel by more than the tolerance; it divides the error by about four.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from jaxood.errors import UsageError, choose, require
from jaxood.outputs import AnyArray
from jaxood.perturbation import multigrid

TOLERANCE = 1e-3  # of the image's range; what is left of the error is a tenth of the noise
MAX_ITERATIONS = 60
BLUR_SIGMA = 10.0  # pixels
# XLA's CPU compiler vectorises no reduction: rows are joined element by element, so many at a time.
FOLDS = 16


class Imputed(NamedTuple):
    """Images with their removed pixels filled in, without noise.

    Attributes:
      iterations: of conjugate gradients; 0 for the baselines.
      residual: ||b - A x|| / ||b|| over all channels, b what the kept neighbours give, as the steps
        keep it.
    """

    images: Float[Array, "b h w c"]
    iterations: Int[Array, " b"]
    residual: Float[Array, " b"]


def _larger(a, b):
    """Not `jnp.maximum`, which looks out for NaN, in twice the time on a CPU."""
    return jnp.where(a > b, a, b)


def _folds(rows: int) -> int:
    return max(count for count in range(1, FOLDS + 1) if rows % count == 0)


def _folded(join, elements, *fields):
    """`elements` of each pixel, and of rows `_folds` at a time one."""
    parts = zip(*(jnp.split(field, _folds(len(field))) for field in fields), strict=True)
    return reduce(join, (elements(*part) for part in parts))


def _over_pixels(join, run, elements, *fields, view=lambda *fields: fields):
    """`elements` of each pixel of `view(*fields)`, joined to one value a channel, [1, c, 1, 1]."""
    if run is multigrid.together:
        values = elements(*view(*fields))
    else:
        values = run(lambda *fields: _folded(join, elements, *view(*fields)), *fields)
        while _folds(len(values)) > 1:
            values = run(partial(_folded, join, jnp.positive), values)
    whole = {jnp.add: jnp.sum, _larger: jnp.max}[join]
    return whole(values, axis=(0, *range(2, values.ndim)))[None, :, None, None]


def _sum(run, elements, *fields, **view):
    return _over_pixels(jnp.add, run, elements, *fields, **view)


def _largest(run, elements, *fields, **view):
    return _over_pixels(_larger, run, elements, *fields, **view)


def _ratio(a, b):
    """a / b, and 0 where b is 0: nothing is left to solve in that channel."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)


def _solve(image, removed, tolerance, max_iterations, run):
    """One image and mask; see `impute_linear`."""
    kept, finest, levels = multigrid.hierarchy(removed.astype(image.dtype), run)
    y = run(partial(multigrid.split, mode="edge"), image)
    x, mean = multigrid.fill(y, kept, run)

    def within(x, *masks):
        return multigrid.bordered(sum(masks)[:, None] * x)

    def left(x, removed, diagonal, _):
        """b - A x of an image x; b itself where its removed pixels are 0."""
        own = diagonal[:, None] * multigrid.inner(x)
        return removed[:, None] * multigrid.neighbour_sum(x) - own

    def unfinished(state):
        iterations, *_, moved = state
        return jnp.logical_and(iterations < max_iterations, moved > goal)

    def step(state):
        iterations, x, r, p, previous, _ = state
        b, correction = multigrid.v_cycle(levels, r, run)
        # r . z, of which the second grid's part is there: interpolation is restriction transposed.
        reach = _sum(run, lambda r, inverse: inverse[:, None] * r * r, r, finest.inverse)
        reach += _sum(run, lambda b, x, f: f[:, None] * b * x, b, correction, levels[0].f)
        p = multigrid.preconditioned(finest, r, correction, run) + _ratio(reach, previous) * p
        q = run(lambda p, *level: multigrid.product(multigrid.Finest(*level), p), p, *finest)
        bend = _sum(run, jnp.multiply, p, q, view=lambda p, q: (multigrid.inner(p), q))
        length = _ratio(reach, bend)
        farthest = _largest(run, jnp.abs, p, view=lambda p: (multigrid.inner(p),))
        x, r = x + length * multigrid.inner(p), r - length * q
        return iterations + 1, x, r, p, reach, jnp.max(length * farthest)

    # What fills up an odd number of columns is neither removed nor kept: no neighbour.
    start = run(within, x, finest.removed, kept)
    ends = [jnp.max(_largest(run, sign, y)) for sign in (jnp.positive, jnp.negative)]
    goal = tolerance * (ends[0] + ends[1])
    r = run(left, start, *finest)
    state = (jnp.int32(0), x, r, jnp.zeros_like(start), jnp.zeros_like(mean), jnp.float32(jnp.inf))
    iterations, x, r, *_ = lax.while_loop(unfinished, step, state)
    b = run(left, run(within, y, kept), *finest)
    squares = [jnp.sum(_sum(run, jnp.square, v)) for v in (r, b)]

    def filled(x, mean, y, removed):
        return jnp.where(removed[:, None] > 0, x + mean, y)

    image = multigrid.joined(run(filled, x, mean, y, finest.removed), image.shape[1])
    return image, iterations, jnp.sqrt(_ratio(*squares))


def impute_linear(
    images: Float[Array, "b h w c"],
    removed: Bool[Array, "b h w"],
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Imputed:
    """Linear imputation without noise; a row depends on its image and its mask only.

    Args:
      tolerance: how far the last step moves a pixel at most, as a share of the image's range.
      max_iterations: the bound, whatever the error is then; the residual tells.
    """

    def solve(run, image, removed):
        return _solve(image, removed, tolerance, max_iterations, run)

    def cpu(*rows):
        # One mask after another: each stops by itself, and its fields stay in the cache.
        return lax.map(lambda row: solve(multigrid.separate(row[0]), *row), rows)

    def others(*rows):
        return jax.vmap(partial(solve, multigrid.together))(*rows)

    rows = (images.astype(jnp.float32), removed)
    return Imputed(*lax.platform_dependent(*rows, cpu=cpu, default=others))


def _fill(images, removed, values) -> Imputed:
    filled = jnp.where(removed[..., None], values, images)
    return Imputed(filled, jnp.zeros(len(images), jnp.int32), jnp.zeros(len(images)))


def impute_mean(images, removed) -> Imputed:
    """Removed pixels become the mean of the image's kept ones, channel by channel."""
    kept = jnp.logical_not(removed)[..., None].astype(images.dtype)
    count = jnp.maximum(kept.sum(axis=(1, 2), keepdims=True), 1.0)
    mean = jnp.sum(images * kept, axis=(1, 2), keepdims=True) / count
    return _fill(images, removed, jnp.broadcast_to(mean, images.shape))


def impute_zero(images, removed) -> Imputed:
    """Removed pixels become 0: black, or the data's mean in a normalised image."""
    return _fill(images, removed, jnp.zeros_like(images))


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    offsets = np.arange(size)
    weights = np.exp(-0.5 * ((offsets[:, None] - offsets) / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def blurred(images: Float[Array, "b h w c"], sigma: float = BLUR_SIGMA) -> Float[Array, "b h w c"]:
    """Images blurred by a Gaussian of `sigma` pixels, renormalised at the border."""
    rows, columns = (jnp.asarray(_blur_matrix(size, sigma)) for size in images.shape[1:3])
    images = jnp.einsum("bhwc,Hh->bHwc", images, rows, precision="highest")
    return jnp.einsum("bhwc,Ww->bhWc", images, columns, precision="highest")


def impute_blur(images, removed) -> Imputed:
    """Removed pixels are taken from the blurred image."""
    return _fill(images, removed, blurred(images))


IMPUTATIONS: dict[str, Callable[..., Imputed]] = {
    "linear": impute_linear,
    "mean": impute_mean,
    "zero": impute_zero,
    "blur": impute_blur,
}


def draw_noise(images: Float[Array, "b h w c"], keys: Key[Array, " b"]) -> Float[Array, "b h w c"]:
    """Standard normal values for images, a key an image."""
    # In one dimension, half the time on a CPU: no division by 3 a number to count them.
    noise = jax.vmap(lambda key: jax.random.normal(key, (images[0].size,)))(keys)
    return noise.reshape(images.shape)


def add_noise(
    images: Float[Array, "b h w c"],
    removed: Bool[Array, "b h w"],
    noise: Float[Array, "b h w c"],
) -> Float[Array, "b h w c"]:
    """Adds noise to removed pixels."""
    return jnp.where(removed[..., None], images + noise, images)


_compiled = partial(jax.jit, static_argnums=0)(lambda name, *rows: IMPUTATIONS[name](*rows))


def impute(
    images: AnyArray,
    removed: AnyArray,
    method: str = "linear",
    noise: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Imputed:
    """Checks, compiles and runs an imputation; the noise of row i comes from `fold_in(key, i)`.

    Args:
      images: [b, h, w, c].
      removed: the mask of each, [b, h, w].

    Raises:
      UsageError: for shapes that differ, an unknown method, noise without a key, or a mask that
        removes all pixels.
    """
    choose("method", method, IMPUTATIONS)
    images, removed = jnp.asarray(images, jnp.float32), jnp.asarray(removed, bool)
    if images.ndim != 4 or removed.shape != images.shape[:3]:
        raise UsageError("removed", removed.shape, f"{images.shape[:3]} of images [b, h, w, c]")
    require(not noise or key is not None, "key", None, f"a key for noise {noise}")
    require_kept(removed)
    imputed = _compiled(method, images, removed)
    if key is None or not noise:
        return imputed
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(images)))
    return imputed._replace(
        images=add_noise(imputed.images, removed, noise * draw_noise(images, keys))
    )


def require_kept(removed: Bool[Array, "b h w"]) -> None:
    """Raises UsageError when a mask keeps no pixel: there is nothing to fill in from."""
    empty = np.flatnonzero(np.asarray(removed).all(axis=(1, 2)))
    if len(empty):
        raise UsageError(
            "removed", f"all pixels in mask {empty[0]}", "at least one kept", "Lower the fraction."
        )
