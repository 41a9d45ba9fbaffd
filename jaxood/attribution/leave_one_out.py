"""Leave-one-out: what the class loses when a position goes and all others stay.

    map_i = v(all) - v(all without i)

with the v of `coalitions`: exactly, by the one coalition of all positions, for linear heads and
those with a norm (`linear_marginals`, `norm_marginals`). The marginal at the other end of what
Shapley's value averages over; says nothing of positions that stand in for each other.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.attribution.coalitions import marginals_of
from jaxood.context import Attribution, Context


@dataclass(frozen=True)
class LeaveOneOut(Attribution):
    """What the class loses without each position alone, exactly.

    Attributes:
      explain: what is lost: the target's probability, or the energy, which asks for no target.
    """

    name: ClassVar[str] = "leave-one-out"
    paper: ClassVar[str] = "Robnik-Sikonja, Kononenko, TKDE 2008"

    explain: Literal["probability", "energy"] = "probability"

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        context.require_mean_pooling(self.name)
        features, head, target = context.feature_map, context.head, context.target
        n, h, w, c = features.shape
        marginals, energy = marginals_of(head), self.explain == "energy"
        rows = features.reshape(n, h * w, c)
        evidence = marginals.evidence(rows, head, target, "float32", energy)
        everything = jnp.ones((1, h * w))
        lost = marginals.differences(evidence, target, everything, "float32", energy)
        return lost.reshape(n, h, w)
