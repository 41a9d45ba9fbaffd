"""Banzhaf and Shapley values of spatial positions, exactly through the head.

Zhu, Yan, Xie: spatial feature importance for out-of-distribution detection (IJCV 2025) train a
network for each image to stand in for `v(S) = softmax(head(pool_S))_t`, with
`pool_S = (1/p) * sum_{i in S} f_i`. Here the head itself is evaluated:

    phi_i = mean over coalitions of  v(S with i) - v(S without i)

where one coalition gives the difference of every position (`linear_marginals`,
`norm_marginals`). Positions included with probability 1/2 give the Banzhaf value; inclusion
probabilities spread evenly over (0, 1) give the Shapley value, since
`phi_i = integral over q of the expected marginal at inclusion probability q` (Owen 1972).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxood.attribution import linear_marginals, norm_marginals
from jaxood.errors import UsageError, choose
from jaxood.outputs import Head, LinearHead

Target = Int[Array, " n"] | Literal["energy"] | None


class CoalitionValues(NamedTuple):
    """Attribution of each position and the standard error of its estimate."""

    values: Float[Array, "n h w"]
    standard_error: Float[Array, "n h w"]


def draw_coalitions(
    key: PRNGKeyArray,
    count: int,
    positions: int,
    value: Literal["banzhaf", "shapley"] = "banzhaf",
) -> Bool[Array, "m p"]:
    """Draws `count` coalitions as complementary pairs: rows j and j + count / 2.

    Raises:
      UsageError: for an odd count, fewer than four coalitions, or an unknown value.
    """
    if count < 4 or count % 2:
        raise UsageError("coalitions", count, "an even number, at least 4")
    choose("value", value, ("banzhaf", "shapley"))
    pairs = count // 2
    uniform_key, stratum_key = jax.random.split(key)
    inclusion = jnp.full(pairs, 0.5)
    if value == "shapley":  # one inclusion probability in each stratum of (0, 1/2)
        jitter = jax.random.uniform(stratum_key, (pairs,))
        inclusion = (jnp.arange(pairs, dtype=jnp.float32) + jitter) / count
    half = jax.random.uniform(uniform_key, (pairs, positions)) < inclusion[:, None]
    return jnp.concatenate([half, ~half])


def coalition_values(
    feature_map: Float[Array, "n h w c"],
    head: Head,
    coalitions: Bool[Array, "m p"],
    target: Target = None,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> CoalitionValues:
    """Attributes the value of `target` to the positions of each feature map.

    Args:
      coalitions: complementary pairs as `draw_coalitions` gives them, shared by all images, so
        that a result does not depend on the batch. The pairs are the independent draws of the
        standard error.
      target: class indices, whose probability is the value; "energy", logsumexp of the logits;
        None, the model's own top class.
      precision: of the factors in matrix products; sums are float32 either way.
    """
    n, h, w, c = feature_map.shape
    features = feature_map.astype(jnp.float32).reshape(n, h * w, c)
    marginals = linear_marginals if isinstance(head, LinearHead) else norm_marginals
    evidence = marginals.evidence(features, head, precision)
    if target is None:
        target = jnp.argmax(head(features.mean(axis=1)), axis=-1)
    included = coalitions.astype(jnp.float32)

    def one_image(inputs):
        differences = marginals.differences(*inputs, included, precision)
        return _mean_and_error(differences)

    classes = None if isinstance(target, str) else target
    values, error = _each_image(one_image, (evidence, classes))
    return CoalitionValues(values.reshape(n, h, w), error.reshape(n, h, w))


def _each_image(function, inputs):
    """A loop on a CPU, whose cache holds one image at a time; a batch on an accelerator."""
    return jax.lax.platform_dependent(
        inputs,
        cpu=lambda inputs: jax.lax.map(function, inputs),
        default=lambda inputs: jax.lax.map(function, inputs, batch_size=64),
    )


def _mean_and_error(
    differences: Float[Array, "m p"],
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """Mean over coalitions, and its error from successive differences of the pairs' means.

    Neighbouring strata differ little in expectation, so successive differences measure the
    variance of a stratified mean, and of an independent one as well.
    """
    pairs = differences.shape[0] // 2
    means = 0.5 * (differences[:pairs] + differences[pairs:])
    steps = jnp.diff(means, axis=0)
    variance = 0.5 * jnp.mean(steps * steps, axis=0)
    return means.mean(axis=0), jnp.sqrt(variance / pairs)


def require_mean_pooling(pooling: str, argument: str = "--method") -> None:
    """Refuses models whose pooled features are no mean over positions.

    Raises:
      UsageError: when `pooling` (of a `Backbone`) is not "mean".
    """
    if pooling != "mean":
        raise UsageError(
            argument,
            "a method of spatial positions for a model that classifies its class token",
            "a model that pools by the mean over positions",
            "The class token is no sum over positions; use a method without sfp, or a CAM.",
        )


def _attribution(value: Literal["banzhaf", "shapley"], model, images, target, key, count):
    require_mean_pooling(model.pooling)
    outputs = model(images)
    positions = outputs.feature_map.shape[1] * outputs.feature_map.shape[2]
    coalitions = draw_coalitions(key, count, positions, value)
    return coalition_values(outputs.feature_map, model.head, coalitions, target).values


def banzhaf(
    model,
    images: Float[Array, "n H W 3"],
    target: Target,
    key: PRNGKeyArray,
    coalitions: int = 256,
) -> Float[Array, "n h w"]:
    """Banzhaf values of the positions of the last feature map."""
    return _attribution("banzhaf", model, images, target, key, coalitions)


def shapley(
    model,
    images: Float[Array, "n H W 3"],
    target: Target,
    key: PRNGKeyArray,
    coalitions: int = 256,
) -> Float[Array, "n h w"]:
    """Shapley values of the positions of the last feature map."""
    return _attribution("shapley", model, images, target, key, coalitions)
