"""Which coalitions are evaluated: randomised balanced designs instead of independent draws.

Every row of a design is a coalition with the right distribution, so means over rows are unbiased;
what differs from independent draws is how evenly the rows cover the space together.

Banzhaf: columns of a Hadamard matrix (Paley's first construction, J. Math. Phys. 1933), chosen,
ordered and flipped at random, followed by the complement of all rows (foldover). Any three
positions then take all eight combinations equally often, so all effects of up to three positions
on a marginal are averaged exactly (an orthogonal array of strength 3).

Shapley: coalition sizes stratified over 0..p; which positions come first is one random order,
shifted cyclically from row to row within a group; complements of all rows.

Measured on MobileNetV2 maps of 31 photographs, mean over images of the maximum error as a share of
the largest value, against independent complementary pairs: Banzhaf 1.7 % (60 rows, no foldover)
against 3.4 % (64), 0.8 % (120) against 2.0 % (128); Shapley 1.4 % against 3.1 % (120).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from jaxood.errors import UsageError

Value = Literal["banzhaf", "shapley"]
SHIFTED_ROWS = 8  # in a group that shares one order of the positions


def draw_coalitions(
    key: PRNGKeyArray,
    count: int,
    positions: int,
    value: Value = "banzhaf",
) -> Bool[Array, "d m p"]:
    """Draws about `count` coalitions of `positions`, as d independent designs of m rows each.

    A whole design has somewhat more than `2 * positions` rows (120 for 49 positions), and `count`
    is rounded to whole designs; half a design, or an even part of one, for a smaller count.

    Raises:
      UsageError: for fewer than two coalitions.
    """
    if count < 2:
        raise UsageError("coalitions", count, "at least 2")
    order = _hadamard_order(positions)
    count += count % 2
    designs = max(1, round(count / (2 * order)))
    draw = _banzhaf_design if value == "banzhaf" else _shapley_design
    rows = count if count < 1.5 * order else 2 * order
    if value == "banzhaf" and 0.75 * order <= rows < 1.5 * order:
        rows = order
    return jax.vmap(lambda key: draw(key, rows, positions))(jax.random.split(key, designs))


def _hadamard_order(positions: int) -> int:
    """The smallest order above `positions` in Paley's first construction: prime + 1."""
    prime = max(positions, 3)
    while prime % 4 != 3 or any(prime % d == 0 for d in range(3, int(prime**0.5) + 1, 2)):
        prime += 1
    return prime + 1


def _hadamard(order: int) -> Bool[np.ndarray, "order columns"]:
    """The columns of a Hadamard matrix but for the constant one, as signs."""
    prime = order - 1
    residue = np.zeros(prime, bool)
    residue[np.arange(1, prime) ** 2 % prime] = True
    core = residue[(np.arange(prime)[:, None] - np.arange(prime)) % prime]
    return np.concatenate([np.ones((1, prime), bool), core])


def _banzhaf_design(key: PRNGKeyArray, rows: int, positions: int) -> Bool[Array, "m p"]:
    order = _hadamard_order(positions)
    column_key, flip_key, row_key = jax.random.split(key, 3)
    columns = jax.random.permutation(column_key, order - 1)[:positions]
    flips = jax.random.bernoulli(flip_key, shape=(positions,))
    design = jnp.asarray(_hadamard(order))[:, columns] ^ flips[None]
    if rows == order:
        return design
    half = jax.random.permutation(row_key, design)[: rows // 2]
    return jnp.concatenate([half, ~half])


def _shapley_design(key: PRNGKeyArray, rows: int, positions: int) -> Bool[Array, "m p"]:
    half = rows // 2
    groups = -(-half // SHIFTED_ROWS)
    size_key, order_key = jax.random.split(key)
    # Sizes 0..p are equally likely over a row and its complement together.
    jitter = jax.random.uniform(size_key, (half,))
    share = (jnp.arange(half, dtype=jnp.float32) + jitter) / (2 * half)
    sizes = jnp.floor(share * (positions + 1)).astype(jnp.int32)
    orders = jax.vmap(lambda key: jax.random.permutation(key, positions))(
        jax.random.split(order_key, groups)
    )
    shifts = jnp.arange(SHIFTED_ROWS) * positions // SHIFTED_ROWS
    ranks = (orders[:, None, :] + shifts[None, :, None]) % positions
    design = ranks.reshape(-1, positions)[:half] < sizes[:, None]
    return jnp.concatenate([design, ~design])
