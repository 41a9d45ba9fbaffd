"""What adding or removing each position changes, for a linear head: one matrix product a sign.

With evidence `E = F W / p` [p, k] the logits are additive, `logits(S) = bias + sum_{i in S} E_i`,
so position i multiplies the odds of class k against the target t by `exp(D_ik)`,
`D = E - E_t`. With `q = softmax(logits(S))`:

    G_i = sum_k q_k * expm1(+-D_ik)
    v(S +- i) = v(S) / (1 + G_i)          so that  v(S) - v(S +- i) = v(S) * G_i / (1 + G_i)

The target's own term of G is exactly zero, so nothing cancels when `v(S)` is close to one. The
energy changes by `+-E_it + log1p(G_i)`, t being any class. Where one position makes the
odds many times smaller, `1 + G` loses digits: its error is about 1e-7, absolute.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.outputs import LinearHead

Precision = Literal["float32", "bfloat16"]
# exp(80) times 1,000 classes still fits in float32. One position that changes the odds by more
# than that is beyond what this form can tell.
LARGEST_CHANGE = 80.0


class LinearEvidence(NamedTuple):
    """What each position adds to each logit against the target's, the logits of none, and `E_t`.

    Positions come first, so that the coalitions meet all images in one matrix product.
    """

    change: Float[Array, "p n k"]
    empty: Float[Array, "n k"]
    own: Float[Array, "n p"]


def product(left: Array, right: Array, axes, precision: Precision) -> Array:
    """`dot_general` over `axes` with float32 sums, of factors in `precision`."""
    dtype = jnp.dtype(precision)
    return jax.lax.dot_general(
        left.astype(dtype),
        right.astype(dtype),
        axes,
        precision="highest",
        preferred_element_type=jnp.float32,
    )


def evidence(
    features: Float[Array, "n p c"],
    head: LinearHead,
    target: Int[Array, " n"],
    precision: Precision,
    energy: bool = False,
) -> LinearEvidence:
    """The one product over channels."""
    n, p, c = features.shape
    rows = jnp.swapaxes(features, 0, 1).reshape(p * n, c)
    change = product(rows, head.kernel, (((1,), (0,)), ((), ())), precision).reshape(p, n, -1) / p
    own = jnp.take_along_axis(change, target[None, :, None], axis=2)
    empty = head.bias.astype(jnp.float32)[None] - head.bias[target][:, None]
    return LinearEvidence(change - own, empty, own[..., 0].T)


def differences(
    evidence: LinearEvidence,
    target: Int[Array, " n"],
    included: Float[Array, "m p"],
    precision: Precision,
    energy: bool = False,
) -> Float[Array, "n m p"]:
    """`v(S with i) - v(S without i)`."""
    change, empty, own = evidence
    p, n, k = change.shape
    sums = product(included, change.reshape(p, n * k), (((1,), (0,)), ((), ())), precision)
    logits = sums.reshape(-1, n, k) + empty[None]
    top = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = jnp.swapaxes(weights.sum(axis=-1), 0, 1)[..., None]

    factor = jnp.exp(jnp.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE))
    both = jnp.concatenate([factor - 1.0, 1.0 / factor - 1.0])
    growth = product(weights, both, (((2,), (2,)), ((1,), (1,))), precision) / total
    growth = jnp.where(included[None] > 0.5, growth[..., p:], growth[..., :p])
    sign = (2.0 * included - 1.0)[None]
    if energy:
        return own[:, None] - sign * jnp.log1p(growth)
    value = jnp.exp(-jnp.swapaxes(top, 0, 1)) / total
    return sign * value * growth / (1.0 + growth)
