"""What adding or removing each position changes, for a LayerNorm before the linear layer.

With `g_i = f_i - mean over channels`, the centred pool is `(1/p) sum_{i in S} g_i`, so its
variance is a quadratic form of the coalition z through the Gram matrix `K = g g^T / (p^2 c)`, and
the logits are one scaled row:

    logits(S) = z A / sqrt(z K z + epsilon) + shift W + bias,      A = (g * scale) W / p

Logits of every `S +- i` take `[m, p, k]`, in blocks of coalitions, never `[m, p, c]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.linear_marginals import Precision, product
from jaxood.outputs import NormLinearHead

BLOCK_ELEMENTS = 1 << 21  # of one [m, p, k] block: 8 MB


class NormEvidence(NamedTuple):
    """One image (or a batch of them), reduced to what the coalitions need."""

    change: Float[Array, "p k"]
    gram: Float[Array, "p p"]
    empty: Float[Array, " k"]
    epsilon: Float[Array, ""]


def evidence(
    features: Float[Array, "n p c"], head: NormLinearHead, precision: Precision
) -> NormEvidence:
    """What each position adds before the norm's division, and how positions correlate."""
    n, p, c = features.shape
    centred = features - features.mean(axis=-1, keepdims=True)
    kernel = (head.scale[:, None] * head.kernel).astype(jnp.float32)
    change = product(centred.reshape(n * p, c), kernel, precision).reshape(n, p, -1) / p
    gram = jnp.einsum("npc,nqc->npq", centred, centred, precision="highest") / (p * p * c)
    empty = jnp.matmul(head.shift, head.kernel, precision="highest") + head.bias
    return NormEvidence(
        change,
        gram,
        jnp.broadcast_to(empty[None], (n, empty.shape[0])),
        jnp.full(n, head.epsilon, jnp.float32),
    )


def differences(
    image: NormEvidence,
    target: Int[Array, ""] | None,
    included: Float[Array, "m p"],
    precision: Precision,
) -> Float[Array, "m p"]:
    """`v(S with i) - v(S without i)` of one image; no target means the energy."""
    change, gram, empty, epsilon = image
    if target is not None:
        change = change - change[:, target][:, None]
        empty = empty - empty[target]
    sums = product(included, change, precision)
    correlation = jnp.matmul(included, gram, precision="highest")
    variance = jnp.sum(included * correlation, axis=-1)

    def log_value(logits):
        """The energy; or the log-odds against the target."""
        if target is None:
            return jax.nn.logsumexp(logits, axis=-1)
        others = jnp.arange(logits.shape[-1]) != target
        return jax.nn.logsumexp(
            logits, axis=-1, where=others.reshape((1,) * (logits.ndim - 1) + (-1,))
        )

    def toggled(inputs):
        row, sums, correlation, variance = inputs
        step = 1.0 - 2.0 * row
        changed = variance + 2.0 * step * correlation + jnp.diagonal(gram)
        scale = jax.lax.rsqrt(jnp.maximum(changed, 0.0) + epsilon)
        logits = (sums[None] + step[:, None] * change) * scale[:, None] + empty[None]
        return log_value(logits)

    scale = jax.lax.rsqrt(variance + epsilon)
    here = log_value(sums * scale[:, None] + empty[None])[:, None]
    block = max(1, BLOCK_ELEMENTS // change.size)
    there = jax.lax.map(toggled, (included, sums, correlation, variance), batch_size=block)
    sign = 2.0 * included - 1.0
    return sign * (here - there if target is None else difference_of_sigmoids(here, there))


def difference_of_sigmoids(
    first: Float[Array, "*n"], second: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """`sigmoid(-first) - sigmoid(-second)` without cancellation at either end."""
    high, low = jnp.maximum(first, second), jnp.minimum(first, second)
    size = -jnp.expm1(low - high) * jax.nn.sigmoid(high) * jax.nn.sigmoid(-low)
    return jnp.sign(second - first) * size
