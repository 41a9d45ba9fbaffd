"""Multigrid V-cycle for the linear imputation of removed pixels: a preconditioner.

On the finest grid every removed pixel i obeys

    sum_j w_ij (x_i - x_j) = 0,  j its eight neighbours, w = 1/6 at edges, 1/12 at corners

(Rong et al., ICML 2022), x_j given where j is kept. With f = 1 on removed pixels, 0 on kept ones,
S the weighted sum over neighbours, and s_i the weight of i's links to kept pixels, that is

    (A x)_i = d_i x_i - f_i (S f x)_i,  d_i = s_i + f_i (S f)_i

Every coarser grid has the same form, without a matrix: a cell joins 2 x 2, f^2 is the share of
removed pixels in it, s is SCREENING times the sum of its parts' s. Links keep their weights,
since the energy sum w (x_i - x_j)^2 of a smooth field in two dimensions does not depend on the
spacing; a plain Galerkin product would make them twice as stiff at each level (Braess,
Computing 1995, corrects that afterwards). Corrections are interpolated linearly along both axes,
residuals restricted by the transpose.

Coarse grids go by V-cycles with one Jacobi sweep before and one after the correction, computed of
f x and b / f, whose matrix d / f^2 - S multiplies by nothing at its neighbours. A sweep shrinks to
a third what the next grid does not see, without damping: S multiplies waves of four cells and
less by -1/3 to 1/3. On the finest grid, the dear one, a Jacobi step and the correction are added,
both of the same residual (Bramble, Pasciak, Xu, Math. Comp. 1990): no stencil there, for few more
iterations. The whole is symmetric and positive, as conjugate gradients need (Tatebe 1993).

What XLA's CPU backend computes one after another is a `Run` of a stage each. It computes several
numbers at once where they lie side by side. So the finest grid holds its even columns and its odd
ones apart, and what a stencil reads has a border, laid by the stage that writes it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

SCREENING = 0.8  # near a straight edge s would halve with each level, at lone pixels it would stay
BORDER = 8  # columns of zeros beside a field: rows begin where a vector does

# Channels between rows and columns: XLA's CPU backend gives each core a part of the first axis.
# Masks have no axis for them: XLA finds no one place in memory for an axis of length 1, and copies.
Fine = Float[Array, "_ c 2 _"]  # rows, channels, even and odd columns of the finest grid
FineMask = Float[Array, "_ 2 _"]
Coarse = Float[Array, "_ c _"]
CoarseMask = Float[Array, "_ _"]
Bordered = Float[Array, "..."]
Stage = Callable[..., Array]
Run = Callable[..., Array]  # a stage and its arguments; `separate` or `together`


class Finest(NamedTuple):
    """The grid of pixels; `inverse` is 1 / diagonal, and 0 where nothing is removed."""

    removed: FineMask
    diagonal: FineMask
    inverse: FineMask


class Level(NamedTuple):
    """A coarser grid; `inverse` is 1 / f, `relaxation` f^2 / d, both 0 where f is."""

    f: CoarseMask
    inverse: CoarseMask
    relaxation: CoarseMask


def together(stage: Stage, *fields: Array) -> Array:
    """`stage(*fields)`, for accelerators."""
    return stage(*fields)


def separate(image: Float[Array, "h w c"]) -> Run:
    """A `Run` for XLA's CPU backend, which computes a stage once.

    That backend fuses a stencil into the next one by computing it anew for every neighbour, so a
    chain of stencils costs ninefold at each link; `lax.optimization_barrier` does not stop it. It
    does not fuse across a conditional: the condition here holds for every finite
    image.
    """
    always = image[0, 0, 0] > -jnp.inf

    def run(stage, *fields):
        shape = jax.eval_shape(stage, *fields)
        return lax.cond(
            always, stage, lambda *_: jnp.full(shape.shape, jnp.nan, shape.dtype), *fields
        )

    return run


def split(image: Float[Array, "h w c"], mode: str = "constant") -> Fine:
    """The layout of the finest grid; `mode` is of `jnp.pad`, for an odd number of columns."""
    image = jnp.pad(image, ((0, 0), (0, image.shape[1] % 2), (0, 0)), mode=mode)

    # Not transposed: XLA's CPU backend would keep the old order of numbers, and copy at each use.
    def channel(i):
        return jnp.stack([image[:, ::2, i], image[:, 1::2, i]], axis=1)

    return jnp.stack([channel(i) for i in range(image.shape[2])], axis=1)


def joined(x: Fine, width: int) -> Float[Array, "h w c"]:
    """The opposite of `split`."""
    channels = range(x.shape[1])
    halves = [jnp.stack([x[:, channel, half] for channel in channels], axis=2) for half in (0, 1)]
    return jnp.stack(halves, axis=2).reshape(len(x), -1, len(channels))[:, :width]


def bordered(x: Array, mode: str = "constant") -> Bordered:
    """Zeros around a field, for what looks at neighbours; or what `mode` of `jnp.pad` says."""
    return jnp.pad(x, ((1, 1), *((0, 0),) * (x.ndim - 2), (BORDER, BORDER)), mode=mode)


def inner(x: Bordered) -> Array:
    return x[1:-1, ..., BORDER:-BORDER]


def _at(x: Bordered, down: int, right: int) -> Array:
    rows, columns = slice(1 + down, len(x) - 1 + down), BORDER + right
    return x[rows, ..., columns : columns + x.shape[-1] - 2 * BORDER]


def _weighted(own, left, right):
    """Of the columns themselves and those beside them, each given a number of rows further down."""
    edges = own(-1) + own(1) + left(0) + right(0)
    corners = left(-1) + left(1) + right(-1) + right(1)
    return edges * (1 / 6) + corners * (1 / 12)


def neighbour_sum(x: Bordered) -> Fine | Coarse:
    """S: 1/6 of each edge neighbour and 1/12 of each corner neighbour, nothing from outside."""

    def column(x, right):
        return lambda down: _at(x, down, right)

    if x.ndim == 3:
        return _weighted(column(x, 0), column(x, -1), column(x, 1))
    even, odd = x[:, :, 0], x[:, :, 1]
    sums = (
        _weighted(column(even, 0), column(odd, -1), column(odd, 0)),
        _weighted(column(odd, 0), column(even, 0), column(even, 1)),
    )
    return jnp.stack(sums, axis=2)


def product(level: Finest, x: Bordered) -> Fine:
    """A x, of an x that is 0 on kept pixels."""
    own = level.diagonal[:, None] * inner(x)
    return own - level.removed[:, None] * neighbour_sum(x)


def pool(x: Fine | Coarse) -> Coarse:
    """Sums of 2 x 2; an odd last row or column is joined with nothing."""
    x = jnp.pad(x, ((0, len(x) % 2), *((0, 0),) * (x.ndim - 1)))
    rows = x[::2] + x[1::2]
    if rows.ndim == 4:
        return rows[:, :, 0] + rows[:, :, 1]
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, rows.shape[2] % 2)))
    return rows[..., ::2] + rows[..., 1::2]


def pool_mask(x: FineMask | CoarseMask) -> CoarseMask:
    return pool(x[:, None])[:, 0]


def _finer(x: Coarse, axis: int, size: int) -> Coarse:
    """Linear interpolation to `size` cells half as long, between x's outermost cells."""
    count = x.shape[axis] - 2
    before, own, after = (lax.slice_in_dim(x, i, i + count, axis=axis) for i in range(3))
    halves = jnp.stack([0.75 * own + 0.25 * before, 0.75 * own + 0.25 * after], axis + 1)
    whole = halves.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return lax.slice_in_dim(whole, 0, size, axis=axis)


def _finest(x: Bordered, height: int) -> Fine:
    """Linear interpolation of the second grid along both axes."""

    def quarter(down, right):
        beside = _at(x, down, 0) + _at(x, 0, right)
        return 0.5625 * _at(x, 0, 0) + 0.1875 * beside + 0.0625 * _at(x, down, right)

    halves = [jnp.stack([quarter(down, right) for right in (-1, 1)], 2) for down in (-1, 1)]
    return jnp.stack(halves, axis=1).reshape(-1, *halves[0].shape[1:])[:height]


def _coarser(x: Fine | Coarse, axis: int) -> Fine | Coarse:
    """The transpose of `_finer`, without the zeros."""
    x = jnp.pad(x, [(0, size % 2 if i == axis else 0) for i, size in enumerate(x.shape)])
    part = partial(lax.slice_in_dim, axis=axis)
    even, odd = part(x, 0, None, 2), part(x, 1, None, 2)
    before = jnp.concatenate([part(even, 0, 1), part(odd, 0, -1)], axis)
    after = jnp.concatenate([part(even, 1, None), part(odd, -1, None)], axis)
    return 0.75 * (even + odd) + 0.25 * (before + after)


def _coarser_columns(x: Fine) -> Coarse:
    """The same for columns of the finest grid."""
    even, odd = x[:, :, 0], x[:, :, 1]
    ends = np.zeros((2, 1, 1, x.shape[3]), np.float32)
    ends[0, ..., 0] = ends[1, ..., -1] = 0.25
    before = jnp.pad(odd, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    after = jnp.pad(even, ((0, 0), (0, 0), (0, 1)))[..., 1:]
    return (0.75 + ends[0]) * even + (0.75 + ends[1]) * odd + 0.25 * (before + after)


def _inverse(x: Array) -> Array:
    some = x > 1e-6
    return jnp.where(some, 1.0 / jnp.where(some, x, 1.0), 0.0)


def _neighbours(size: int) -> np.ndarray:
    """What 1, 2, 1 add up to along a line of so many cells."""
    return np.convolve(np.ones(size, np.float32), [1, 2, 1])[1:-1]


def split_mask(mask: Float[Array, "h w"]) -> FineMask:
    return split(mask[..., None])[:, 0]


def hierarchy(removed: Float[Array, "h w"], run: Run) -> tuple[FineMask, Finest, list[Level]]:
    """Kept pixels, and the grids, coarse ones from fine to coarse, for a mask of ones and zeros."""
    height, width = removed.shape
    kept = run(lambda removed: split_mask(1 - removed), removed)
    removed = run(split_mask, removed)
    # S of ones: the whole 3 x 3 but what is in the middle, (1, 2, 1) x (1, 2, 1) / 12 - 4 / 12.
    columns = split_mask(jnp.asarray(_neighbours(width))[None])
    diagonal = removed * ((_neighbours(height)[:, None, None] * columns - 4) / 12)
    finest = Finest(removed, diagonal, _inverse(diagonal))

    def kept_links(removed, kept):
        return pool(removed[:, None] * neighbour_sum(kept))[:, 0]

    def links(f):
        return f * neighbour_sum(bordered(f[:, None]))[:, 0]

    share = run(pool_mask, removed) / 4
    s = SCREENING * run(kept_links, removed, run(lambda kept: bordered(kept[:, None]), kept))
    levels: list[Level] = []
    while True:
        f = jnp.sqrt(share)
        levels.append(Level(f, _inverse(f), share * _inverse(s + run(links, f))))
        if f.shape == (1, 1):
            return kept, finest, levels
        share, s = pool_mask(share) / 4, SCREENING * pool_mask(s)


def _first_sweep(b, relaxation):
    """From x = 0."""
    return bordered(relaxation[:, None] * b)


def _residual(x, f):
    """f (b - A x) of such an x: d x is b."""
    return f[:, None] * neighbour_sum(x)


def _sweep(x, b, relaxation):
    return relaxation[:, None] * (b + neighbour_sum(x))


def _finer_columns(x, size):
    return _finer(jnp.pad(x, ((1, 1), (0, 0), (1, 1)), mode="edge"), 2, size)


def _corrected(columns, x, f):
    return x + bordered(f[:, None] * _finer(columns, 0, len(f)))


def _cycle(levels: list[Level], b: Coarse, run: Run) -> Coarse:
    """An approximate solution of A x = f b; exact on the last grid, which is one cell."""
    (f, inverse, relaxation), coarser = levels[0], levels[1:]
    if not coarser:
        return (inverse * relaxation)[:, None] * b

    def restricted(rows, inverse):
        return inverse[:, None] * _coarser(rows, 2)

    def swept(inverse, *x):
        return inverse[:, None] * _sweep(*x)

    x = run(_first_sweep, b, relaxation)
    rows = run(partial(_coarser, axis=0), run(_residual, x, f))
    below = run(restricted, rows, coarser[0].inverse)
    columns = run(partial(_finer_columns, size=b.shape[2]), _cycle(coarser, below, run))
    return run(swept, inverse, run(_corrected, columns, x, f), b, relaxation)


def v_cycle(levels: list[Level], r: Fine, run: Run) -> tuple[Coarse, Coarse]:
    """The residual r on the second grid, over f, and an approximate solution of A x = r there."""

    def restricted(rows, inverse):
        return inverse[:, None] * _coarser_columns(rows)

    rows = run(partial(_coarser, axis=0), r)
    b = run(restricted, rows, levels[0].inverse)
    return b, _cycle(levels, b, run)


def preconditioned(level: Finest, r: Fine, correction: Coarse, run: Run) -> Bordered:
    """z, an approximate solution of A x = r; linear, symmetric and positive in r."""

    def stage(correction, r, removed, inverse):
        own = inverse[:, None] * r
        return bordered(own + removed[:, None] * _finest(correction, len(r)))

    correction = run(partial(bordered, mode="edge"), correction)
    return run(stage, correction, r, level.removed, level.inverse)


def _filled(total: Coarse, count: CoarseMask, run: Run) -> Coarse:
    mean, known = total / jnp.maximum(count, 1.0)[:, None], jnp.minimum(count, 1.0)
    height, _, width = mean.shape
    if height == width == 1:
        return mean

    def pulled(x, known):
        return pool(known[:, None] * x)

    def pushed(columns, x, known):
        return jnp.where(known[:, None] > 0, x, _finer(columns, 0, height))

    coarse = _filled(run(pulled, mean, known), run(pool_mask, known), run)
    columns = run(partial(_finer_columns, size=width), coarse)
    return run(pushed, columns, mean, known)


def fill(y: Fine, kept: FineMask, run: Run) -> tuple[Fine, Float[Array, "1 c 1 1"]]:
    """y where `kept` is 1; elsewhere interpolated means of the kept pixels in larger cells.

    The pull-push of Gortler et al. (The Lumigraph, SIGGRAPH 1996): a cell in which none is kept
    takes its value from the next coarser grid.

    Returns:
      That, less the mean of kept pixels, and the mean.
    """

    def pulled(y, kept):
        return pool(kept[:, None] * y)

    def pushed(coarse, y, kept, mean):
        return jnp.where(kept[:, None] > 0, y, _finest(coarse, len(y))) - mean

    total, count = run(pulled, y, kept), run(pool_mask, kept)
    mean = jnp.sum(total, axis=(0, 2))[None, :, None, None] / jnp.sum(count)
    coarse = run(partial(bordered, mode="edge"), _filled(total, count, run))
    return run(pushed, coarse, y, kept, mean), mean
