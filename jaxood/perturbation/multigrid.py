"""Multigrid V-cycle for the linear imputation of removed pixels: a preconditioner.

On the finest grid every removed pixel i obeys

    sum_j w_ij (x_i - x_j) = 0,  j its eight neighbours, w = 1/6 at edges, 1/12 at corners

(Rong et al., ICML 2022), x_j given where j is kept. With f = 1 on removed pixels, 0 on kept ones,
S the weighted sum over neighbours, and s_i the weight of i's links to kept pixels, that is

    (A x)_i = (s_i + f_i (S f)_i) x_i - f_i (S f x)_i

Every coarser grid has the same form, without a matrix: a cell joins 2 x 2, f^2 is the share of
removed pixels in it, s is SCREENING times the sum of its parts' s. Links keep their weights,
since the energy sum w (x_i - x_j)^2 of a smooth field in two dimensions does not depend on the
spacing; a plain Galerkin product would make them twice as stiff at each level (Braess,
Computing 1995, corrects that afterwards). Corrections are interpolated linearly along both axes,
residuals restricted by the transpose.

Coarse grids go by V-cycles with one damped Jacobi sweep before and one after the correction. On
the finest grid, the dear one, a Jacobi step and the correction are added, both of the same
residual (Bramble, Pasciak, Xu, Math. Comp. 1990): no stencil there, for few more iterations. The
whole is symmetric and positive, as conjugate gradients need (Tatebe 1993).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DAMPING = 0.85
SCREENING = 0.8  # near a straight edge s would halve with each level, at lone pixels it would stay
COARSEST = 8  # cells of the longer side at which there is no coarser grid
COARSEST_SWEEPS = 16

# Channels between rows and columns: XLA's CPU backend gives each core a part of the first axis.
Field = Float[Array, "h c w"]
Coarse = Float[Array, "h2 c w2"]  # of the next grid
Fields = Float[Array, "_ _ _"]  # of one channel or of all, of any grid
Stage = Callable[..., Fields]
Run = Callable[..., Fields]  # a stage and its arguments; `separate` or `together`


class Level(NamedTuple):
    """One grid; `relaxation` is the damping over the diagonal, 0 where nothing is removed."""

    f: Float[Array, "h 1 w"]
    diagonal: Float[Array, "h 1 w"]
    relaxation: Float[Array, "h 1 w"]


def neighbour_sum(x: Field) -> Field:
    """S: 1/6 of each edge neighbour and 1/12 of each corner neighbour, nothing from outside."""
    height, _, width = x.shape
    padded = jnp.pad(x, ((1, 1), (0, 0), (1, 1)))

    def at(row, column):
        return padded[row : row + height, :, column : column + width]

    edges = at(0, 1) + at(1, 0) + at(1, 2) + at(2, 1)
    corners = at(0, 0) + at(0, 2) + at(2, 0) + at(2, 2)
    return edges * (1 / 6) + corners * (1 / 12)


def product(level: Level, x: Field) -> Field:
    """A x."""
    return level.diagonal * x - level.f * neighbour_sum(level.f * x)


def _pool(x: Field) -> Coarse:
    """Sums of 2 x 2; an odd last row or column is joined with nothing."""
    x = jnp.pad(x, ((0, x.shape[0] % 2), (0, 0), (0, x.shape[2] % 2)))
    return (x[::2, :, ::2] + x[1::2, :, ::2]) + (x[::2, :, 1::2] + x[1::2, :, 1::2])


def _finer(x: Fields, axis: int, size: int) -> Fields:
    """Linear interpolation to `size` cells half as long; constant beyond the outermost centres."""
    part = partial(lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, -1)], axis)
    after = jnp.concatenate([part(1, None), part(-1, None)], axis)
    halves = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return lax.slice_in_dim(halves.reshape(shape), 0, size, axis=axis)


def _coarser(x: Fields, axis: int) -> Fields:
    """The transpose of `_finer`."""
    x = jnp.pad(x, [(0, size % 2 if i == axis else 0) for i, size in enumerate(x.shape)])
    part = partial(lax.slice_in_dim, axis=axis)
    even, odd = part(x, 0, None, 2), part(x, 1, None, 2)
    before = jnp.concatenate([part(even, 0, 1), part(odd, 0, -1)], axis)
    after = jnp.concatenate([part(even, 1, None), part(odd, -1, None)], axis)
    return 0.75 * (even + odd) + 0.25 * (before + after)


def separate(stage: Stage, first: Fields, *others: Fields) -> Fields:
    """`stage(first, *others)`, computed once, for XLA's CPU backend.

    That backend fuses a stencil into the next one by computing it anew for every neighbour, so a
    chain of stencils costs ninefold at each link; `lax.optimization_barrier` does not stop it. It
    does not fuse across a conditional: the condition here holds for every finite field.
    """
    shape = jax.eval_shape(stage, first, *others)
    return lax.cond(
        first[0, 0, 0] > -jnp.inf,
        stage,
        lambda *_: jnp.full(shape.shape, jnp.nan, shape.dtype),
        first,
        *others,
    )


def together(stage: Stage, *fields: Fields) -> Fields:
    """`stage(*fields)`, for the other backends."""
    return stage(*fields)


def hierarchy(removed: Float[Array, "h 1 w"], run: Run = together) -> list[Level]:
    """The grids from fine to coarse, for a mask of ones and zeros; `run` as in `v_cycle`."""
    f = share = removed
    s = run(lambda removed: removed * neighbour_sum(1 - removed), removed)
    levels = []
    while True:
        diagonal = run(lambda f, s: s + f * neighbour_sum(f), f, s)
        some = diagonal > 1e-6
        relaxation = jnp.where(some, DAMPING / jnp.where(some, diagonal, 1.0), 0.0)
        levels.append(Level(f, diagonal, relaxation))
        if max(f.shape) <= COARSEST:
            return levels
        share, s = _pool(share) / 4, SCREENING * _pool(s)
        f = jnp.sqrt(share)


def _residual(x, b, *level):
    return jnp.where(level[0] > 0, b - product(Level(*level), x), 0.0)


def _sweep(x, b, *level):
    return x + Level(*level).relaxation * (b - product(Level(*level), x))


def _restricted(r: Field, run: Run) -> Coarse:
    return run(partial(_coarser, axis=2), run(partial(_coarser, axis=0), r))


def _interpolated(stage: Stage, coarse: Coarse, fine: Field, *others: Fields, run: Run) -> Field:
    """`stage(x, fine, *others)`, x interpolated between the cells of `coarse`."""
    columns = run(partial(_finer, axis=2, size=fine.shape[2]), coarse)
    rows = partial(_finer, axis=0, size=fine.shape[0])
    return run(lambda columns, *fields: stage(rows(columns), *fields), columns, fine, *others)


def _relaxed_and_corrected(correction, b, f, _, relaxation):
    return relaxation * b + jnp.where(f > 0, correction, 0.0)


def _with_sweeps(levels: list[Level], b: Field, run: Run) -> Field:
    """The cycle of the coarse grids; many sweeps on the last."""
    level, coarser = levels[0], levels[1:]
    if not coarser:
        x = level.relaxation * b
        return lax.fori_loop(1, COARSEST_SWEEPS, lambda _, x: _sweep(x, b, *level), x)
    x = run(jnp.multiply, b, level.relaxation)
    correction = _with_sweeps(coarser, _restricted(run(_residual, x, b, *level), run), run)
    x = _interpolated(_relaxed_and_corrected, correction, b, *level, run=run)
    return run(_sweep, x, b, *level)


def v_cycle(levels: list[Level], b: Field, run: Run) -> Field:
    """An approximate solution of A x = b; linear, symmetric and positive in b.

    Args:
      run: `separate` on a CPU, `together` elsewhere.
    """
    if len(levels) == 1:
        return _with_sweeps(levels, b, run)
    correction = _with_sweeps(levels[1:], _restricted(b, run), run)
    return _interpolated(_relaxed_and_corrected, correction, b, *levels[0], run=run)


def fill(y: Field, kept: Float[Array, "h _ w"], run: Run) -> Field:
    """y where `kept` is 1; elsewhere interpolated means of the kept pixels in larger cells.

    The pull-push of Gortler et al. (The Lumigraph, SIGGRAPH 1996): a cell in which none is kept
    takes its value from the next coarser grid.
    """
    if y.shape[0] == y.shape[2] == 1:
        return y
    total, count = run(_pool, kept * y), run(_pool, kept)
    coarse = fill(total / jnp.maximum(count, 1.0), jnp.minimum(count, 1.0), run)
    return _interpolated(lambda x, y, kept: jnp.where(kept > 0, y, x), coarse, y, kept, run=run)
