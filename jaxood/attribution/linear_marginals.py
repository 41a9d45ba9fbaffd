"""What adding or removing each position changes, for a linear head: one matrix product a sign.

With evidence `E = F W / p` [p, k] the logits are additive, `logits(S) = bias + sum_{i in S} E_i`,
so position i multiplies the odds of class k against the target t by `exp(D_ik)`,
`D = E - E_t`. With `q = softmax(logits(S))`:

    G_i = sum_k q_k * expm1(+-D_ik)
    v(S +- i) = v(S) / (1 + G_i)          so that  v(S) - v(S +- i) = v(S) * G_i / (1 + G_i)

The target's term of G is exactly zero, so nothing cancels when `v(S)` is close to one. The
energy changes by `+-E_it + log1p(G_i)`, t being any class. Where one position makes the
odds many times smaller, `1 + G` loses digits: its error is about 1e-7, absolute.

Pairs take one product more. With `f_i = expm1(+-D_i)`, so that `G_i = sum_k q_k f_ik`:

    H_ij = sum_k q_k f_ik f_jk            G_ij = G_i + G_j + H_ij   for both positions changed
    v(S +- i +- j) - v(S +- i) - v(S +- j) + v(S)
        = v(S) * (G_i G_j (2 + G_ij) - H_ij) / ((1 + G_i) (1 + G_j) (1 + G_ij))

and for the energy `log1p((H_ij - G_i G_j) / ((1 + G_i) (1 + G_j)))`.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.heads import AnyArray, LinearHead

Precision = Literal["float32", "bfloat16"]
# Odds beyond these are cut off, so that no product of two exponentials over 1,000 classes
# overflows. It shows only where one position changes the odds by more than exp(40).
LARGEST_ODDS, LARGEST_CHANGE = 50.0, 30.0


class LinearEvidence(NamedTuple):
    """What each position adds to each logit against the target's, the logits of none, and `E_t`."""

    change: Float[Array, "n p k"]
    empty: Float[Array, "n k"]
    of_target: Float[Array, "n p"]


def product(left: AnyArray, right: AnyArray, axes, precision: Precision) -> Array:
    """`dot_general` over `axes` with float32 sums, of factors in `precision`."""
    dtype = jnp.dtype(precision)
    return jax.lax.dot_general(
        left.astype(dtype),
        right.astype(dtype),
        axes,
        precision="highest",
        preferred_element_type=jnp.float32,
    )


def matrices(
    left: Float[Array, "*n a b"], right: Float[Array, "n b c"], precision: Precision
) -> Float[Array, "n a c"]:
    """A matrix product for each image; `left` may be the same for all."""
    # Repeated: a batched product needs no transposed copies.
    left = jnp.broadcast_to(left, (len(right), *left.shape[-2:]))
    return product(left, right, (((2,), (1,)), ((0,), (0,))), precision)


def evidence(
    features: Float[Array, "n p c"],
    head: LinearHead,
    target: Int[Array, " n"],
    precision: Precision,
    energy: bool = False,
) -> LinearEvidence:
    """The one product over channels."""
    n, p, c = features.shape
    rows = features.reshape(n * p, c)
    change = product(rows, head.kernel, (((1,), (0,)), ((), ())), precision).reshape(n, p, -1) / p
    of_target = jnp.take_along_axis(change, target[:, None, None], axis=2)
    bias = jnp.asarray(head.bias, jnp.float32)
    empty = bias[None] - bias[target][:, None]
    return LinearEvidence(change - of_target, empty, of_target[..., 0])


def differences(
    evidence: LinearEvidence,
    target: Int[Array, " n"],
    included: Float[Array, "m p"],
    precision: Precision,
    energy: bool = False,
) -> Float[Array, "n m p"]:
    """`v(S with i) - v(S without i)`."""
    change, empty, of_target = evidence
    logits = matrices(included, change, precision) + empty[:, None]
    top = logits.max(axis=-1, keepdims=True) if energy else 0.0
    weights = jnp.exp(jnp.minimum(logits - top, LARGEST_ODDS))
    total = weights.sum(axis=-1, keepdims=True)

    # Kept: each product below would take the exponential anew, a twelfth of all the time.
    factor = jnp.exp(jnp.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE))
    factor = jax.lax.optimization_barrier(factor)
    axes = (((2,), (2,)), ((0,), (0,)))
    up = product(weights, factor - 1.0, axes, precision)  # apart: joined, the copy costs more
    down = product(weights, 1.0 / factor - 1.0, axes, precision)
    growth = jnp.where(included[None] > 0.5, down, up) / total
    sign = (2.0 * included - 1.0)[None]
    if energy:
        return of_target[:, None] - sign * jnp.log1p(growth)
    return sign * growth / (1.0 + growth) / total


def pair_differences(
    evidence: LinearEvidence,
    target: Int[Array, " n"],
    coalition: Float[Array, " p"],
    energy: bool = False,
) -> Float[Array, "n p p"]:
    """What i and j change together beyond what they change alone, of one coalition.

    `v(S with both) - v(S with i) - v(S with j) + v(S with neither)`, S less i and j; the diagonal
    means nothing.
    """
    change, empty, _ = evidence
    logits = jnp.einsum("p,npk->nk", coalition, change, precision="highest") + empty
    top = logits.max(axis=-1, keepdims=True) if energy else 0.0
    weights = jnp.exp(jnp.minimum(logits - top, LARGEST_ODDS))
    total = weights.sum(axis=-1, keepdims=True)
    shares = weights / total

    sign = 1.0 - 2.0 * coalition
    step = jnp.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE) * sign[None, :, None]
    factor = jnp.expm1(step)
    weighted = factor * shares[:, None]
    both = matrices(weighted, factor.swapaxes(1, 2), "float32")
    growth = weighted.sum(axis=-1)
    product = growth[:, :, None] * growth[:, None]
    alone = (1.0 + growth)[:, :, None] * (1.0 + growth)[:, None]
    if energy:
        return sign[None, :, None] * sign[None, None] * jnp.log1p((both - product) / alone)
    together = growth[:, :, None] + growth[:, None] + both
    found = (product * (2.0 + together) - both) / (alone * (1.0 + together))
    return sign[None, :, None] * sign[None, None] * found / total[:, :, None]
