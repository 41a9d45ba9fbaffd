"""PIE: the surrogate that stands in for the head in the original SOFA procedure.

Zhu, Yan, Xie (IJCV 2025). For each image `softmax(head(W z + b))_t`, z the mask of its positions,
is trained by stochastic gradient descent on the value `v(z)` of random masks, with soft-target
binary cross-entropy and the head frozen; then the Banzhaf values of the surrogate are estimated
over fresh masks. `coalitions` needs no such network where the head is known; this is the paper's
procedure itself, for comparison.

All images are trained at once, on the same masks, which changes nothing for any one of them. With
a linear head of kernel K [c, k] the weights matter only through `A = [W b]^T K` [p + 1, k]: a step
along `dL/dW = K g z^T` moves A along `z g^T (K^T K)`, momentum included. So the network is trained
in A, with the k x k Gram matrix for two products over channels for each mask; the result
is the same but for rounding.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxood.attribution.coalitions import marginals_of, mean_differences
from jaxood.attribution.designs import draw_coalitions
from jaxood.attribution.linear_marginals import (
    LARGEST_ODDS,
    LinearEvidence,
    Precision,
    matrices,
    product,
)
from jaxood.context import Attribution, Context
from jaxood.heads import AnyArray, Head, LinearHead, NormLinearHead

VALUE_BLOCK = 500  # masks whose exact values are computed at once


@dataclass(frozen=True)
class SurrogateTraining:
    """Hyper-parameters of the original; the defaults are those for ResNet-50.

    Attributes:
      masks: drawn; the first p of them are left out of training.
      halve_after: epochs after which the learning rate is halved and the momentum forgotten.
      coalitions: fresh masks that the surrogate's values are averaged over.
      precision: of the factors in the gradient's products; the logits' are float32.
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


def initial_weights(key: PRNGKeyArray, channels: int, positions: int) -> Float[Array, "c q"]:
    """Weights and bias as torch's Linear draws them: uniform within `1 / sqrt(positions)`."""
    bound = positions**-0.5
    return jax.random.uniform(key, (channels, positions + 1), minval=-bound, maxval=bound)


def with_one(masks: Bool[Array, "m p"]) -> Float[Array, "m p+1"]:
    """Masks with a last column for the bias."""
    return jnp.pad(masks.astype(jnp.float32), ((0, 0), (0, 1)), constant_values=1.0)


def project(weights: Float[AnyArray, "*n q c"], head: Head) -> Float[Array, "*n q r"]:
    """`weights K` for a linear head, as they are for any other."""
    if not isinstance(head, LinearHead):
        return jnp.asarray(weights)
    contracted = (((weights.ndim - 1,), (0,)), ((), ()))
    return product(weights, head.kernel, contracted, "float32")


def logits_of(rows: Float[Array, "n m r"], head: Head) -> Float[Array, "n m k"]:
    """The head, or what of it the projection has left."""
    return rows + head.bias[None, None] if isinstance(head, LinearHead) else head(rows)


def odds_of_others(
    logits: Float[Array, "n m k"], target: Int[Array, " n"], precision: Precision = "float32"
) -> tuple[Float[Array, "n m k"], Float[Array, "n m"]]:
    """Odds of each class against the target, none for itself, and their sum: `1 / v - 1`."""
    of_target = jnp.take_along_axis(logits, target[:, None, None], axis=2)
    odds = jnp.exp(jnp.minimum(logits - of_target, LARGEST_ODDS))
    odds = jnp.where(is_target(logits.shape[2], target), 0.0, odds).astype(precision)
    return odds, odds.sum(axis=2, dtype=jnp.float32)


def is_target(classes: int, target: Int[Array, " n"]) -> Bool[Array, "n 1 k"]:
    """Where the target's class is."""
    return (jnp.arange(classes)[None] == target[:, None])[:, None]


def entropy_slope(
    weights: Float[Array, "n q r"],
    head: Head,
    inputs: Float[Array, "m q"],
    target: Int[Array, " n"],
    wanted: Float[Array, "n m"],
    present: Float[Array, " m"],
    precision: Precision,
) -> Float[Array, "n q r"]:
    """Gradient of the mean binary cross-entropy; finite where v is 0 or 1.

    By `A` it would be, for a linear head: it is left unmultiplied by the Gram matrix.
    """
    rows = matrices(inputs, weights, "float32")
    logits, pull_back = jax.vjp(lambda rows: logits_of(rows, head), rows)
    odds, total = odds_of_others(logits, target, precision)
    error = (1.0 / (1.0 + total) - wanted) * (present / present.sum())[None]
    share = -error / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    if not isinstance(head, LinearHead):
        slope = jnp.where(is_target(logits.shape[2], target), error[..., None], 0.0)
        slope = slope + share[..., None] * odds.astype(jnp.float32)
        (pulled,) = pull_back(slope)
        return matrices(inputs.T, pulled, "float32")
    # Each mask's factor goes to the masks' side, so that the odds are written and read once.
    slope = matrices(share[:, None] * inputs.T[None], odds, precision)
    of_target = jnp.matmul(error, inputs, precision="highest")
    return jnp.where(is_target(logits.shape[2], target), of_target[..., None], slope)


def train(
    head: Head,
    initial: Float[Array, "c q"],
    masks: Bool[Array, "m p"],
    wanted: Float[Array, "n m"],
    target: Int[Array, " n"],
    order: Int[Array, "e m"],
    settings: SurrogateTraining,
) -> Float[Array, "n q r"]:
    """Trains the surrogates of a batch of images.

    Args:
      wanted: `v(z)` for each mask.
      order: in which each epoch takes the masks.

    Returns:
      projected weights: `[W b]^T K` for a linear head, `[W b]^T` for any other.
    """
    n, m = wanted.shape
    batches = -(-m // settings.batch)
    padding = batches * settings.batch - m
    order = jnp.pad(order, ((0, 0), (0, padding))).reshape(-1, batches, settings.batch)
    present = jnp.pad(jnp.ones(m), (0, padding)).reshape(batches, settings.batch)
    inputs = with_one(masks)
    momentum = optax.trace(settings.momentum)
    weights = project(initial.T, head)
    weights = jnp.broadcast_to(weights[None], (n, *weights.shape))
    gram = project(head.kernel.T, head) if isinstance(head, LinearHead) else None

    def step(carry, batch):
        weights, velocity, rate = carry
        chosen, present = batch
        slope = entropy_slope(
            weights, head, inputs[chosen], target, wanted[:, chosen], present, settings.precision
        )
        if gram is not None:
            slope = product(slope, gram, (((2,), (0,)), ((), ())), settings.precision)
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
    """`v(z)` of each mask: the map itself, with no bias, instead of trained weights."""
    weights = project(features / features.shape[1], head)

    def one_mask(mask):
        rows = matrices(mask[None], weights, "float32")
        _, total = odds_of_others(logits_of(rows, head), target)
        return 1.0 / (1.0 + total[:, 0])

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
    weights: Float[Array, "n q r"],
    head: Head,
    target: Int[Array, " n"],
    coalitions: Bool[Array, "d m p"],
) -> Float[Array, "n p"]:
    """The bias is one more position, which every coalition has."""
    n, positions, _ = weights.shape
    if isinstance(head, LinearHead):
        of_target = jnp.take_along_axis(weights, target[:, None, None], axis=2)
        change = weights - of_target
        empty = change[:, -1] + head.bias[None] - head.bias[target][:, None]
        evidence = LinearEvidence(change[:, :-1], empty, of_target[:, :-1, 0])
    else:
        evidence = marginals_of(head).evidence(positions * weights, head, target, "float32")
        coalitions = jnp.pad(coalitions, ((0, 0), (0, 0), (0, 1)), constant_values=True)

    def differences(included):
        return marginals_of(head).differences(evidence, target, included, "float32")

    return mean_differences(differences, n, coalitions)[0][:, : positions - 1]


@dataclass(frozen=True)
class SurrogateValue(Attribution):
    """Banzhaf values of a network trained for each image, as the original SOFA code has them.

    Attributes:
      training: None: the original's for ResNet-50, or for TinyViT where a norm precedes the head.
    """

    name: ClassVar[str] = "pie"
    paper: ClassVar[str] = "Zhu, Yan, Xie: SOFA, IJCV 2025"
    random: ClassVar[bool] = True

    training: SurrogateTraining | None = None

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        context.require_mean_pooling(self.name)
        head = context.head
        training = self.training or (TINY_VIT if isinstance(head, NormLinearHead) else RESNET50)
        return surrogate_values(context.feature_map, head, context.target, context.key, training)
