"""Banzhaf and Shapley values of spatial positions, exactly through the head.

Zhu, Yan, Xie (IJCV 2025) train a network for each image to stand in for
`v(S) = softmax(head(pool_S))_t`, with `pool_S = (1/p) * sum_{i in S} f_i`. Here the head itself is
evaluated:

    phi_i = mean over coalitions of  v(S with i) - v(S without i)

where one coalition gives the difference of every position (`linear_marginals`,
`norm_marginals`). Positions included with probability 1/2 give the Banzhaf value; inclusion
probabilities spread evenly over (0, 1) give the Shapley value, since
`phi_i = integral over q of the expected marginal at inclusion probability q` (Owen 1972).
Which coalitions: `designs`.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxood.attribution import linear_marginals, norm_marginals
from jaxood.attribution.designs import Value, draw_coalitions
from jaxood.attribution.linear_marginals import Precision
from jaxood.context import Attribution, Context
from jaxood.errors import UsageError, require
from jaxood.heads import Head, LinearHead, NormLinearHead
from jaxood.outputs import AnyArray
from jaxood.ranking import kept_positions

Target = Int[AnyArray, " n"] | Literal["energy"] | None
EXACT_FORMS: dict[type, ModuleType] = {
    LinearHead: linear_marginals,
    NormLinearHead: norm_marginals,
}
MOST = 1 << 16  # coalitions that may be asked for
AUTO_COALITIONS = 2048  # at most, when the number is found by a stopping rule


class CoalitionValues(NamedTuple):
    """Attribution of each position.

    Attributes:
      standard_error: of each value. On MobileNetV2 maps 60 % of the values are within one and
        83 to 90 % within two (2 to 8 designs): the differences have long tails. A single design
        has no second one to be compared with; its error is that of independent pairs of
        coalitions, which is larger.
      coalitions: how many were evaluated for each image.
    """

    values: Float[Array, "n h w"]
    standard_error: Float[Array, "n h w"]
    coalitions: Int[Array, " n"]


@dataclass(frozen=True)
class StoppingRule:
    """When the values of an image are good enough, judged after each design from the second on.

    Attributes:
      tolerance: largest standard error as a share of the largest absolute value.
      keep_fraction: of the positions; their set is watched.
      unchanged: so many designs in a row have left that set as it was; one does on the photographs,
        for the same set as of a million coalitions, and a batch waits for its last image.
    """

    tolerance: float = 0.01
    keep_fraction: float = 34 / 49
    unchanged: int = 1


class _Progress(NamedTuple):
    """Sums over the designs so far."""

    designs: Float[Array, " n"]
    mean: Float[Array, "n p"]
    squared_mean: Float[Array, "n p"]
    pair_variance: Float[Array, "n p"]
    kept: Bool[Array, "n p"]
    unchanged: Int[Array, " n"]
    done: Bool[Array, " n"]


def coalition_values(
    feature_map: Float[AnyArray, "n h w c"],
    head: Head,
    coalitions: Bool[Array, "d m p"],
    target: Target = None,
    precision: Precision = "float32",
    stop: StoppingRule | None = None,
) -> CoalitionValues:
    """Attributes the value of `target` to the positions of each feature map.

    Args:
      coalitions: as `draw_coalitions` gives them: independent designs, shared by all images, so
        that a result does not depend on the batch.
      target: class indices, whose probability is the value; "energy", logsumexp of the logits;
        None, the model's top class.
      precision: of the factors in matrix products; sums are float32 either way. bfloat16 costs up
        to 0.5 % of the largest value in accuracy and saves half of the time or more.
      stop: leaves the remaining designs out for an image as soon as it holds.
    """
    n, h, w, c = feature_map.shape
    features = jnp.asarray(feature_map, jnp.float32).reshape(n, h * w, c)
    marginals = marginals_of(head)
    energy = isinstance(target, str)
    if target is None or energy:
        target = jnp.argmax(head(features.mean(axis=1)), axis=-1)
    evidence = marginals.evidence(features, head, target, precision, energy)

    def differences(included):
        return marginals.differences(evidence, target, included, precision, energy)

    values, error, count = mean_differences(differences, n, coalitions, stop)
    return CoalitionValues(values.reshape(n, h, w), error.reshape(n, h, w), count)


def marginals_of(head: Head) -> ModuleType:
    """The module that knows the exact form for this head.

    Raises:
      UsageError: for a head whose exact form is not known.
    """
    if type(head) not in EXACT_FORMS:  # a class derived from one of these may compute otherwise
        raise UsageError(
            "head",
            type(head).__name__,
            " or ".join(kind.__name__ for kind in EXACT_FORMS),
            "What a coalition of positions is worth is not known there; take a CAM",
        )
    return EXACT_FORMS[type(head)]


def mean_differences(
    differences: Callable[[Float[Array, "m p"]], Float[Array, "n m p"]],
    images: int,
    coalitions: Bool[Array, "d m p"],
    stop: StoppingRule | None = None,
) -> tuple[Float[Array, "n p"], Float[Array, "n p"], Int[Array, " n"]]:
    """Values, standard errors and counts, one design after the other."""
    designs, rows, p = coalitions.shape
    included = coalitions.astype(jnp.float32)

    def step(index, progress: _Progress) -> _Progress:
        return _add(progress, differences(included[index]), stop)

    zeros = jnp.zeros((images, p))
    nothing = jnp.zeros(images, jnp.int32)
    progress = _Progress(
        jnp.zeros(images), zeros, zeros, zeros, zeros.astype(bool), nothing, nothing.astype(bool)
    )
    if designs == 1:  # a loop would keep the compiler from fusing across its edge
        progress = step(0, progress)
    else:
        _, progress = jax.lax.while_loop(
            lambda carry: (carry[0] < designs) & ~carry[1].done.all(),
            lambda carry: (carry[0] + 1, step(*carry)),
            (0, progress),
        )
    return *_mean_and_error(progress), (progress.designs * rows).astype(jnp.int32)


def _add(
    progress: _Progress, differences: Float[Array, "n m p"], stop: StoppingRule | None
) -> _Progress:
    """Takes one more design in, for the images that are not done."""
    rows, p = differences.shape[1:]
    mean = differences.mean(axis=1)
    pairs = 0.5 * (differences[:, : rows // 2] + differences[:, rows - rows // 2 :])
    added = progress._replace(
        designs=progress.designs + 1.0,
        mean=progress.mean + mean,
        squared_mean=progress.squared_mean + mean * mean,
        pair_variance=progress.pair_variance + pairs.var(axis=1) / max(rows // 2 - 1, 1),
    )
    if stop is None:
        return added
    keep = max(1, round(stop.keep_fraction * p))
    kept = kept_positions(added.mean, keep)
    same = (kept == progress.kept).all(axis=-1)
    unchanged = jnp.where(same, progress.unchanged + 1, 0)
    values, error = _mean_and_error(added)
    close = error.max(axis=-1) <= stop.tolerance * jnp.abs(values).max(axis=-1)
    done = (close & (added.designs > 1.0)) | (unchanged >= stop.unchanged)
    added = added._replace(kept=kept, unchanged=unchanged, done=done)
    return jax.tree.map(
        lambda old, new: jnp.where(progress.done.reshape((-1,) + (1,) * (new.ndim - 1)), old, new),
        progress,
        added,
    )


def _mean_and_error(progress: _Progress) -> tuple[Float[Array, "n p"], Float[Array, "n p"]]:
    """Mean over designs and its standard error.

    The spread between few designs says little about one position, but much about all positions
    together: how many times smaller than with independent pairs the variance is.
    """
    designs = progress.designs[:, None]
    values = progress.mean / designs
    of_pairs = progress.pair_variance / designs
    between = jnp.maximum(progress.squared_mean / designs - values * values, 0.0)
    between = between * designs / jnp.maximum(designs - 1.0, 1.0)
    tiny = jnp.finfo(jnp.float32).tiny
    ratio = between.sum(axis=-1) / jnp.maximum(of_pairs.sum(axis=-1), tiny)
    ratio = jnp.where(progress.designs > 1.0, ratio, 1.0)
    return values, jnp.sqrt(ratio[:, None] * of_pairs / designs)


def position_values(
    feature_map: Float[AnyArray, "n h w c"],
    head: Head,
    key: PRNGKeyArray,
    value: Value = "banzhaf",
    coalitions: int | Literal["auto"] = 240,
    target: Target = None,
    precision: Precision = "float32",
) -> CoalitionValues:
    """Draws coalitions and attributes by them.

    Args:
      coalitions: about how many; "auto", as many as `StoppingRule` asks for.
    """
    positions = feature_map.shape[1] * feature_map.shape[2]
    count, stop = coalitions, None
    if count == "auto":
        count, stop = AUTO_COALITIONS, StoppingRule()
    drawn = draw_coalitions(key, count, positions, value)
    return coalition_values(feature_map, head, drawn, target, precision, stop)


@dataclass(frozen=True)
class CoalitionValue(Attribution):
    """A value of the feature map's positions over their coalitions.

    Attributes:
      coalitions: about how many; "auto": until the positions to keep no longer change.
      explain: what a coalition is worth: the target's probability, or the energy, which asks for
        no target.
      precision: of the factors in matrix products.
    """

    paper: ClassVar[str] = "Zhu, Yan, Xie: SOFA, IJCV 2025"
    random: ClassVar[bool] = True

    coalitions: int | Literal["auto"] = 240
    explain: Literal["probability", "energy"] = "probability"
    precision: Precision = "float32"

    def __post_init__(self):
        fits = self.coalitions == "auto" or 2 <= self.coalitions <= MOST
        wanted = f"2 to {MOST}, or auto"
        require(fits, f"{self.name}.coalitions", self.coalitions, wanted)

    @property
    @abstractmethod
    def value(self) -> Value:
        """How coalitions are weighted."""

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        context.require_mean_pooling(self.name)
        target: Target = "energy" if self.explain == "energy" else context.target
        return position_values(
            context.feature_map,
            context.head,
            context.key,
            self.value,
            self.coalitions,
            target,
            self.precision,
        ).values


@dataclass(frozen=True)
class Banzhaf(CoalitionValue):
    """Mean over all coalitions: what the original code's sampling estimates (as Shapley)."""

    name: ClassVar[str] = "banzhaf"
    value: ClassVar[Value] = "banzhaf"


@dataclass(frozen=True)
class Shapley(CoalitionValue):
    """Mean over the orders in which positions may come; adds up to `v(all) - v(none)`."""

    name: ClassVar[str] = "shapley"
    value: ClassVar[Value] = "shapley"
