"""PIE: the surrogate that stands in for the head in the original SOFA procedure.

Zhu, Yan, Xie (IJCV 2025). For each image `softmax(head(W z + b))_t`, z the mask of its positions,
is trained by stochastic gradient descent on the value `v(z)` of random masks, with soft-target
binary cross-entropy and the head frozen; then the Banzhaf values of the surrogate are estimated
over fresh masks. `coalitions` needs no such network where the head is known; this is the paper's
own procedure for comparison.

All images are trained at once, on the same masks, which changes nothing for any one of them. With
a linear head of kernel K [c, k] the weights matter only through `A = K^T [W b]` [k, p + 1]: a step
along `dL/dW = K g z^T` moves A along `(K^T K) g z^T`, momentum included. So the network is trained
in A, with the k x k Gram matrix in place of two products over channels for each mask; the result
is the same but for rounding.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxood.attribution.coalitions import marginals_of, mean_differences
from jaxood.attribution.designs import draw_coalitions
from jaxood.attribution.linear_marginals import LinearEvidence, Precision, product
from jaxood.outputs import Head, LinearHead

VALUE_BLOCK = 500  # masks whose exact values are computed at once


@dataclass(frozen=True)
class SurrogateTraining:
    """Hyper-parameters of the original; the defaults are those for ResNet-50.

    Attributes:
      masks: drawn; the first p of them are left out of training.
      halve_after: epochs after which the learning rate is halved and the momentum forgotten.
      coalitions: fresh masks that the surrogate's values are averaged over.
      precision: of the factors in the product with the Gram matrix.
    """

    learning_rate: float = 0.002
    epochs: int = 60
    coalitions: int = 8000
    masks: int = 10_000
    batch: int = 100
    momentum: float = 0.9
    halve_after: tuple[int, ...] = (30, 50)
    precision: Precision = "bfloat16"


RESNET50 = SurrogateTraining()
TINY_VIT = SurrogateTraining(learning_rate=0.001, epochs=50, coalitions=7000)


def initial_weights(key: PRNGKeyArray, channels: int, positions: int) -> Float[Array, "c p+1"]:
    """Weights and bias as torch's Linear draws them: uniform within `1 / sqrt(positions)`."""
    bound = positions**-0.5
    return jax.random.uniform(key, (channels, positions + 1), minval=-bound, maxval=bound)


def with_one(masks: Bool[Array, "m p"]) -> Float[Array, "m p+1"]:
    """Masks with a last column for the bias."""
    return jnp.pad(masks.astype(jnp.float32), ((0, 0), (0, 1)), constant_values=1.0)


def project(weights: Float[Array, "c *n"], head: Head) -> Float[Array, "r *n"]:
    """`K^T weights` for a linear head, as they are for any other."""
    if not isinstance(head, LinearHead):
        return weights
    return product(head.kernel, weights, (((0,), (0,)), ((), ())), "float32")


def surrogate_logits(
    weights: Float[Array, "r n p+1"], head: Head, inputs: Float[Array, "m p+1"]
) -> Float[Array, "k n m"]:
    """Of projected weights, for all masks."""
    rows = product(weights, inputs, (((2,), (1,)), ((), ())), "float32")
    if isinstance(head, LinearHead):
        return rows + head.bias[:, None, None]
    return jnp.moveaxis(head(jnp.moveaxis(rows, 0, -1)), -1, 0)


def odds_and_rest(
    logits: Float[Array, "k n m"], target: Int[Array, " n"]
) -> tuple[Float[Array, "n m"], Float[Array, "k n m"]]:
    """Log-odds of the target against all others, and the softmax of the others."""
    is_target = jnp.arange(logits.shape[0])[:, None] == target[None]
    others = jnp.where(is_target[..., None], -jnp.inf, logits)
    top = others.max(axis=0)
    weights = jnp.exp(others - top[None])
    total = weights.sum(axis=0)
    own = jnp.take_along_axis(logits, target[None, :, None], axis=0)[0]
    return own - top - jnp.log(total), weights / total[None]


def entropy_slope(
    logits: Float[Array, "k n m"],
    target: Int[Array, " n"],
    wanted: Float[Array, "n m"],
    present: Float[Array, " m"],
) -> Float[Array, "k n m"]:
    """Gradient of the mean binary cross-entropy by the logits; finite where v is 0 or 1."""
    odds, rest = odds_and_rest(logits, target)
    error = (jax.nn.sigmoid(odds) - wanted) * (present / present.sum())[None]
    is_target = jnp.arange(logits.shape[0])[:, None] == target[None]
    return error[None] * (is_target[..., None].astype(jnp.float32) - rest)


def train(
    head: Head,
    initial: Float[Array, "c p+1"],
    masks: Bool[Array, "m p"],
    wanted: Float[Array, "n m"],
    target: Int[Array, " n"],
    order: Int[Array, "e m"],
    settings: SurrogateTraining,
) -> Float[Array, "r n p+1"]:
    """Trains the surrogates of a batch of images.

    Args:
      wanted: `v(z)` for each mask.
      order: in which each epoch takes the masks.

    Returns:
      projected weights: `K^T [W b]` for a linear head, `[W b]` for any other.
    """
    n, m = wanted.shape
    batches = -(-m // settings.batch)
    padding = batches * settings.batch - m
    order = jnp.pad(order, ((0, 0), (0, padding))).reshape(-1, batches, settings.batch)
    present = jnp.pad(jnp.ones(m), (0, padding)).reshape(batches, settings.batch)
    inputs = with_one(masks)
    momentum = optax.trace(settings.momentum)
    weights = project(initial, head)
    weights = jnp.broadcast_to(weights[:, None], (weights.shape[0], n, weights.shape[1]))
    gram = project(head.kernel, head) if isinstance(head, LinearHead) else None

    def step(carry, batch):
        weights, velocity, rate = carry
        chosen, present = batch
        logits, pull_back = jax.vjp(
            lambda weights: surrogate_logits(weights, head, inputs[chosen]), weights
        )
        (slope,) = pull_back(entropy_slope(logits, target, wanted[:, chosen], present))
        if gram is not None:
            slope = product(gram, slope, (((1,), (0,)), ((), ())), settings.precision)
        slope, velocity = momentum.update(slope, velocity)
        return (weights - rate * slope, velocity, rate), None

    def epoch(carry, inputs):
        weights, velocity = carry
        index, order = inputs
        after = jnp.array(settings.halve_after, jnp.int32)
        rate = settings.learning_rate * 0.5 ** (index >= after).sum().astype(jnp.float32)
        keep = 1.0 - (index == after).any().astype(jnp.float32)
        velocity = jax.tree.map(lambda v: keep * v, velocity)
        (weights, velocity, _), _ = jax.lax.scan(step, (weights, velocity, rate), (order, present))
        return (weights, velocity), None

    epochs = jnp.arange(settings.epochs)
    (weights, _), _ = jax.lax.scan(epoch, (weights, momentum.init(weights)), (epochs, order))
    return weights


def exact_values(
    features: Float[Array, "n p c"],
    head: Head,
    masks: Bool[Array, "m p"],
    target: Int[Array, " n"],
) -> Float[Array, "n m"]:
    """`v(z)` of each mask: the map itself, with no bias, in place of trained weights."""
    p = features.shape[1]
    weights = project(jnp.transpose(features / p, (2, 0, 1)), head)

    def one_mask(mask):
        logits = surrogate_logits(weights, head, mask[None])
        return jax.nn.sigmoid(odds_and_rest(logits, target)[0][:, 0])

    return jax.lax.map(one_mask, masks.astype(jnp.float32), batch_size=VALUE_BLOCK).T


def surrogate_values(
    feature_map: Float[Array, "n h w c"],
    head: Head,
    target: Int[Array, " n"],
    key: PRNGKeyArray,
    settings: SurrogateTraining = RESNET50,
) -> Float[Array, "n h w"]:
    """Trains a surrogate for each image and gives the Banzhaf values of its positions."""
    n, h, w, c = feature_map.shape
    p = h * w
    features = feature_map.astype(jnp.float32).reshape(n, p, c)
    mask_key, weight_key, order_key, value_key = jax.random.split(key, 4)
    masks = jax.random.bernoulli(mask_key, shape=(settings.masks, p))[p:]
    order = jax.vmap(lambda key: jax.random.permutation(key, len(masks)))(
        jax.random.split(order_key, settings.epochs)
    )
    wanted = exact_values(features, head, masks, target)
    weights = train(head, initial_weights(weight_key, c, p), masks, wanted, target, order, settings)
    coalitions = draw_coalitions(value_key, settings.coalitions, p)
    return banzhaf_of_surrogate(weights, head, target, coalitions).reshape(n, h, w)


def banzhaf_of_surrogate(
    weights: Float[Array, "r n p+1"],
    head: Head,
    target: Int[Array, " n"],
    coalitions: Bool[Array, "d m p"],
) -> Float[Array, "n p"]:
    """The bias is one more position, which every coalition has."""
    _, n, positions = weights.shape
    if isinstance(head, LinearHead):
        change = jnp.transpose(weights, (1, 2, 0))
        own = jnp.take_along_axis(change, target[:, None, None], axis=2)
        change = change - own
        empty = change[:, -1] + head.bias[None] - head.bias[target][:, None]
        evidence = LinearEvidence(change[:, :-1], empty, own[:, :-1, 0])
    else:
        features = positions * jnp.transpose(weights, (1, 2, 0))
        evidence = marginals_of(head).evidence(features, head, target, "float32")
        coalitions = jnp.pad(coalitions, ((0, 0), (0, 0), (0, 1)), constant_values=True)

    def differences(included):
        return marginals_of(head).differences(evidence, target, included, "float32")

    return mean_differences(differences, n, coalitions)[0][:, : positions - 1]
