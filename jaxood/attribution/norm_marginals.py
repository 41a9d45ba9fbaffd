"""What adding or removing each position changes, for a LayerNorm before the linear layer.

With `g_i = f_i - mean over channels`, the centred pool is `(1/p) sum_{i in S} g_i`, so its
variance is a quadratic form of the coalition z through the Gram matrix `K = g g^T / (p^2 c)`, and
the logits are one scaled row:

    logits(S) = z A / sqrt(z K z + epsilon) + shift W + bias,      A = (g * scale) W / p

Logits of every `S +- i` take `[m, p, k]`, in blocks of coalitions, never `[m, p, c]`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxood.attribution.linear_marginals import Precision, product
from jaxood.heads import NormLinearHead

BLOCK_ELEMENTS = 1 << 21  # of one [m, p, k] block of one image: 8 MB


class NormEvidence(NamedTuple):
    """What the coalitions need; logits are against the target's, but for the energy."""

    change: Float[Array, "n p k"]
    gram: Float[Array, "n p p"]
    empty: Float[Array, "n k"]
    epsilon: Float[Array, " n"]


def evidence(
    features: Float[Array, "n p c"],
    head: NormLinearHead,
    target: Int[Array, " n"],
    precision: Precision,
    energy: bool = False,
) -> NormEvidence:
    """What each position adds before the norm's division, and how positions correlate."""
    n, p, c = features.shape
    centred = features - features.mean(axis=-1, keepdims=True)
    kernel = head.scale[:, None] * head.kernel
    change = product(centred, kernel, (((2,), (0,)), ((), ())), precision) / p
    gram = product(centred, centred, (((2,), (2,)), ((0,), (0,))), "float32") / (p * p * c)
    empty = jnp.matmul(head.shift, head.kernel, precision="highest") + head.bias
    empty = jnp.broadcast_to(empty[None], (n, empty.shape[0]))
    if not energy:
        change = change - jnp.take_along_axis(change, target[:, None, None], axis=2)
        empty = empty - jnp.take_along_axis(empty, target[:, None], axis=1)
    return NormEvidence(change, gram, empty, jnp.full(n, head.epsilon, jnp.float32))


def differences(
    evidence: NormEvidence,
    target: Int[Array, " n"],
    included: Float[Array, "m p"],
    precision: Precision,
    energy: bool = False,
) -> Float[Array, "n m p"]:
    """`v(S with i) - v(S without i)`."""

    def one_image(inputs):
        return _one_image(*inputs, included, precision, energy)

    # A loop on a CPU, where a batch would only leave its cache; a batch on an accelerator.
    return jax.lax.platform_dependent(
        (evidence, target),
        cpu=lambda inputs: jax.lax.map(one_image, inputs),
        default=lambda inputs: jax.vmap(one_image)(inputs),
    )


def _one_image(
    image: NormEvidence,
    target: Int[Array, ""],
    included: Float[Array, "m p"],
    precision: Precision,
    energy: bool,
) -> Float[Array, "m p"]:
    change, gram, empty, epsilon = image
    sums = product(included, change, (((1,), (0,)), ((), ())), precision)
    correlation = jnp.matmul(included, gram, precision="highest")
    variance = jnp.sum(included * correlation, axis=-1)

    log_value = partial(_log_value, empty, epsilon, target, energy)

    def toggled(coalition):
        row, sums, correlation, variance = coalition
        step = 1.0 - 2.0 * row
        variance = variance + 2.0 * step * correlation + jnp.diagonal(gram)
        return log_value(sums[None] + step[:, None] * change, variance)

    here = log_value(sums, variance)[:, None]
    block = max(1, BLOCK_ELEMENTS // change.size)
    there = jax.lax.map(toggled, (included, sums, correlation, variance), batch_size=block)
    sign = 2.0 * included - 1.0
    return sign * (here - there if energy else sigmoid_difference(here, there))


def _log_value(
    empty: Float[Array, " k"],
    epsilon: Float[Array, ""],
    target: Int[Array, ""],
    energy: bool,
    sums: Float[Array, "*m k"],
    variance: Float[Array, "*m"],
) -> Float[Array, "*m"]:
    """The energy; or the log-odds of the other classes against the target."""
    scale = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon)
    logits = sums * scale[..., None] + jnp.expand_dims(empty, tuple(range(sums.ndim - 1)))
    others = jnp.expand_dims(jnp.arange(empty.size) != target, tuple(range(sums.ndim - 1)))
    return jax.nn.logsumexp(logits, axis=-1, where=None if energy else others)


def sigmoid_difference(
    first: Float[Array, "*#n"], second: Float[Array, "*#n"]
) -> Float[Array, "*n"]:
    """`sigmoid(-first) - sigmoid(-second)` without cancellation at either end."""
    high, low = jnp.maximum(first, second), jnp.minimum(first, second)
    size = -jnp.expm1(low - high) * jax.nn.sigmoid(high) * jax.nn.sigmoid(-low)
    return jnp.sign(second - first) * size


def pair_differences(
    evidence: NormEvidence,
    target: Int[Array, " n"],
    coalition: Float[Array, " p"],
    energy: bool = False,
) -> Float[Array, "n p p"]:
    """What i and j change together beyond what they change alone, of one coalition.

    `v(S with both) - v(S with i) - v(S with j) + v(S with neither)`, S less i and j; the diagonal
    means nothing. No exponential is shared between pairs: p^2 k / 2 of them an image.
    """

    def one_image(inputs):
        return _pairs_of_image(*inputs, coalition, energy)

    return jax.lax.map(one_image, (evidence, target))


def _pairs_of_image(
    image: NormEvidence,
    target: Int[Array, ""],
    coalition: Float[Array, " p"],
    energy: bool,
) -> Float[Array, "p p"]:
    change, gram, empty, epsilon = image
    log_value = partial(_log_value, empty, epsilon, target, energy)
    step = 1.0 - 2.0 * coalition
    sums = jnp.matmul(coalition, change, precision="highest")
    correlation = jnp.matmul(coalition, gram, precision="highest")
    variance = jnp.sum(coalition * correlation)
    added = step[:, None] * change  # of each position that changes sides
    grown = 2.0 * step * correlation + jnp.diagonal(gram)
    alone = log_value(sums[None] + added, variance + grown)

    first, second = jnp.triu_indices(len(coalition), 1)

    def both_changed(pair):
        i, j = pair
        shared = 2.0 * step[i] * step[j] * gram[i, j]
        return log_value(sums + added[i] + added[j], variance + grown[i] + grown[j] + shared)

    block = max(1, BLOCK_ELEMENTS // empty.size)
    both = jax.lax.map(both_changed, (first, second), batch_size=block)
    none = log_value(sums, variance)
    if energy:
        found = both - alone[first] - alone[second] + none
    else:
        found = sigmoid_difference(both, alone[first]) - sigmoid_difference(alone[second], none)
    pairs = jnp.zeros_like(gram).at[first, second].set(step[first] * step[second] * found)
    return pairs + pairs.T
