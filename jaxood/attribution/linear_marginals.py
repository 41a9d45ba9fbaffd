"""What adding or removing each position changes, for a linear head: one matrix product a sign.

With evidence `E = F W / p` [p, k] the logits are additive, `logits(S) = bias + sum_{i in S} E_i`,
so position i multiplies the odds of class k against the target t by `exp(D_ik)`,
`D = E - E_t`. With `q = softmax(logits(S))`:

    G_i = sum_k q_k * expm1(+-D_ik)
    v(S + i) = v(S) / (1 + G_i)            so the marginal is -v(S) * G_i / (1 + G_i)

The target's own term of G is exactly zero, so nothing cancels when `v(S)` is close to one. For
the energy, `D = E` and the marginal is `log1p(G)`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.outputs import LinearHead

Precision = Literal["float32", "bfloat16"]
# exp(80) times 1,000 classes still fits in float32.
LARGEST_CHANGE = 80.0


def product(
    left: Float[Array, "a b"], right: Float[Array, "b d"], precision: Precision
) -> Float[Array, "a d"]:
    """Matrix product with float32 sums, of factors in `precision`."""
    if precision == "bfloat16":
        left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.matmul(left, right, precision="highest", preferred_element_type=jnp.float32)


def evidence(
    features: Float[Array, "n p c"], head: LinearHead, precision: Precision
) -> tuple[Float[Array, "n p k"], Float[Array, "n k"]]:
    """What each position adds to each logit, and the logits of no position."""
    n, p, c = features.shape
    flat = product(features.reshape(n * p, c), head.kernel.astype(jnp.float32), precision)
    bias = jnp.broadcast_to(head.bias.astype(jnp.float32)[None], (n, head.bias.shape[0]))
    return flat.reshape(n, p, -1) / p, bias


def differences(
    image: tuple[Float[Array, "p k"], Float[Array, " k"]],
    target: Int[Array, ""] | None,
    included: Float[Array, "m p"],
    precision: Precision,
) -> Float[Array, "m p"]:
    """`v(S with i) - v(S without i)` of one image; no target means the energy."""
    change, empty = image
    if target is not None:
        change = change - change[:, target][:, None]
        empty = empty - empty[target]
    logits = product(included, change, precision) + empty[None]
    probabilities = jax.nn.softmax(logits, axis=-1)

    factor = jnp.exp(jnp.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE))
    up = product(probabilities, (factor - 1.0).T, precision)
    down = product(probabilities, (1.0 / factor - 1.0).T, precision)
    growth = jnp.where(included > 0.5, down, up)
    sign = 2.0 * included - 1.0
    if target is None:
        return -sign * jnp.log1p(growth)
    value = jnp.exp(-jax.nn.logsumexp(logits, axis=-1))
    return sign * value[:, None] * growth / (1.0 + growth)
