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
Computing 1995, corrects that afterwards). One damped Jacobi sweep before and one after the
correction by the coarser grid makes the V-cycle symmetric and positive, as conjugate gradients
need (Tatebe 1993).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DAMPING = 0.85
SCREENING = 0.8  # near a straight edge s would halve with each level, at lone pixels it would stay
COARSEST = 8  # cells of the longer side at which there is no coarser grid
COARSEST_SWEEPS = 16

Field = Float[Array, "c h w"]
Coarse = Float[Array, "c h2 w2"]  # of the next grid
Fields = Float[Array, "_ _ _"]  # of one channel or of all, of any grid
Stage = Callable[..., Fields]


class Level(NamedTuple):
    """One grid; `relaxation` is the damping over the diagonal, 0 where nothing is removed."""

    f: Float[Array, "1 h w"]
    diagonal: Float[Array, "1 h w"]
    relaxation: Float[Array, "1 h w"]


def neighbour_sum(x: Field) -> Field:
    """S: 1/6 of each edge neighbour and 1/12 of each corner neighbour, nothing from outside."""
    height, width = x.shape[-2:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))

    def at(row, column):
        return padded[:, row : row + height, column : column + width]

    edges = at(0, 1) + at(1, 0) + at(1, 2) + at(2, 1)
    corners = at(0, 0) + at(0, 2) + at(2, 0) + at(2, 2)
    return edges * (1 / 6) + corners * (1 / 12)


def product(level: Level, x: Field) -> Field:
    """A x."""
    return level.diagonal * x - level.f * neighbour_sum(level.f * x)


def _pool(x: Field) -> Coarse:
    """Sums of 2 x 2; an odd last row or column is joined with nothing."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2)))
    return (x[:, ::2, ::2] + x[:, 1::2, ::2]) + (x[:, ::2, 1::2] + x[:, 1::2, 1::2])


def _spread(x: Coarse, fine: Field) -> Field:
    """The transpose of `_pool`: each cell's value to its 2 x 2, cut to the fine grid."""
    c, height, width = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (c, height, 2, width, 2))
    return x.reshape(c, 2 * height, 2 * width)[:, : fine.shape[1], : fine.shape[2]]


def hierarchy(removed: Float[Array, "1 h w"]) -> list[Level]:
    """The grids from fine to coarse, for a mask of ones and zeros."""
    f = share = removed
    s = removed * neighbour_sum(1 - removed)
    levels = []
    while True:
        diagonal = s + f * neighbour_sum(f)
        some = diagonal > 1e-6
        relaxation = jnp.where(some, DAMPING / jnp.where(some, diagonal, 1.0), 0.0)
        levels.append(Level(f, diagonal, relaxation))
        if max(f.shape[1:]) <= COARSEST:
            return levels
        share, s = _pool(share) / 4, SCREENING * _pool(s)
        f = jnp.sqrt(share)


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


def _residual(x, b, *level):
    return b - product(Level(*level), x)


def _sweep(x, b, *level):
    return x + Level(*level).relaxation * (b - product(Level(*level), x))


def _corrected(correction, x, f):
    return x + jnp.where(f > 0, _spread(correction, x), 0.0)


def v_cycle(levels: list[Level], b: Field, run: Callable[..., Fields]) -> Field:
    """An approximate solution of A x = b; linear, symmetric and positive in b.

    Args:
      run: `separate` on a CPU, `together` elsewhere.
    """
    level, coarser = levels[0], levels[1:]
    x = level.relaxation * b
    if not coarser:
        return lax.fori_loop(1, COARSEST_SWEEPS, lambda _, x: _sweep(x, b, *level), x)
    x = run(jnp.multiply, b, level.relaxation)
    correction = v_cycle(coarser, run(_pool, run(_residual, x, b, *level)), run)
    x = run(_corrected, correction, x, level.f)
    return run(_sweep, x, b, *level)
