"""How pairs of positions work together: exact second differences over SOFA's coalitions.

    I_ij = mean over coalitions S without i and j of
           v(S + i + j) - v(S + i) - v(S + j) + v(S)

with the v of `coalitions`. Positive: the two say more together than apart; negative: one stands in
for the other. Positions included with probability 1/2 give the Banzhaf interaction index,
inclusion probabilities spread evenly over (0, 1) the Shapley interaction index (Grabisch &
Roubens 1999):

    Banzhaf: sum over S of 2^-(p - 2) (...)
    Shapley: sum over S of s! (p - s - 2)! / (p - 1)! (...),   s positions in S

so the designs of `designs` serve as they are: seen from the other positions, a coalition that is
drawn for all positions is one of the right kind, whether it holds i and j or not. One coalition
yields every pair, through the head itself: for a linear head by one matrix product more than the
values need (`linear_marginals`), with a norm by p^2 k / 2 exponentials (`norm_marginals`).

With f the multilinear extension of v, `I_ij` is the mean of `d^2 f / dx_i dx_j` on the diagonal (at
1/2 for Banzhaf's), so that a row's sum is

    Banzhaf: how fast what a position adds grows with the share of the others, half of them there
    Shapley: [v(all) - v(all without i)] - [v(i) - v(none)]: what it adds last, less first
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxood.attribution.coalitions import MOST, Target, marginals_of
from jaxood.attribution.designs import Value, draw_coalitions
from jaxood.context import Attribution, Context, Extractor
from jaxood.errors import require
from jaxood.heads import Head
from jaxood.outputs import AnyArray

COALITIONS = 60


def pair_interactions(
    feature_map: Float[AnyArray, "n h w c"],
    head: Head,
    coalitions: Bool[Array, "d m p"],
    target: Target = None,
) -> Float[Array, "n p p"]:
    """The interaction of each pair of positions in row order; symmetric, zero on the diagonal.

    Args:
      coalitions: as `draw_coalitions` gives them.
      target: class indices, whose probability is the value; "energy", logsumexp of the logits;
        None, the model's top class.
    """
    n, h, w, c = feature_map.shape
    features = jnp.asarray(feature_map, jnp.float32).reshape(n, h * w, c)
    marginals, energy = marginals_of(head), isinstance(target, str)
    if target is None or energy:
        target = jnp.argmax(head(features.mean(axis=1)), axis=-1)
    evidence = marginals.evidence(features, head, target, "float32", energy)
    rows = coalitions.reshape(-1, h * w).astype(jnp.float32)

    def add(total: Array, coalition: Float[Array, " p"]) -> tuple[Array, None]:
        return total + marginals.pair_differences(evidence, target, coalition, energy), None

    total, _ = jax.lax.scan(add, jnp.zeros((n, h * w, h * w)), rows)
    return jnp.where(jnp.eye(h * w, dtype=bool)[None], 0.0, total / len(rows))


@dataclass(frozen=True)
class PairInteractions(Extractor):
    """Of each image the interactions of all pairs of positions, `[n, p, p]`, in row order.

    Attributes:
      value: which index.
      coalitions: about how many.
      explain: what a coalition is worth: the target's probability, or the energy.
    """

    name: ClassVar[str] = "interactions"

    value: Value = "banzhaf"
    coalitions: int = COALITIONS
    explain: Literal["probability", "energy"] = "probability"

    def __post_init__(self):
        fits = 2 <= self.coalitions <= MOST
        require(fits, f"{self.name}.coalitions", self.coalitions, f"2 to {MOST}")

    @property
    def random(self) -> bool:
        return True

    def __call__(self, context: Context) -> Float[Array, "n p p"]:
        context.require_mean_pooling(self.name)
        features = context.feature_map
        positions = features.shape[1] * features.shape[2]
        drawn = draw_coalitions(context.key, self.coalitions, positions, self.value)
        target: Target = "energy" if self.explain == "energy" else context.target
        return pair_interactions(features, context.head, drawn, target)


@dataclass(frozen=True)
class Interaction(Attribution):
    """How much a position says together with others beyond what they say apart.

    Attributes:
      value: which index.
      coalitions: about how many.
      explain: what a coalition is worth: the target's probability, or the energy.
      position: the one whose interactions are shown, counted along the rows from 0; None: the sum
        over all others.
    """

    name: ClassVar[str] = "interaction"
    paper: ClassVar[str] = "Grabisch & Roubens 1999, over the coalitions of SOFA"
    random: ClassVar[bool] = True

    value: Value = "banzhaf"
    coalitions: int = COALITIONS
    explain: Literal["probability", "energy"] = "probability"
    position: int | None = None

    def __post_init__(self):
        fits = 2 <= self.coalitions <= MOST
        require(fits, f"{self.name}.coalitions", self.coalitions, f"2 to {MOST}")
        fits = self.position is None or self.position >= 0
        require(fits, f"{self.name}.position", self.position, "0 or more")

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        context.require_mean_pooling(self.name)
        n, h, w, _ = context.feature_map.shape
        pairs = PairInteractions(self.value, self.coalitions, self.explain)(context)
        if self.position is None:
            return pairs.sum(axis=2).reshape(n, h, w)
        wanted = f"one of the map's {h * w} positions, 0 to {h * w - 1}"
        require(self.position < h * w, f"{self.name}.position", self.position, wanted)
        return pairs[:, self.position].reshape(n, h, w)
