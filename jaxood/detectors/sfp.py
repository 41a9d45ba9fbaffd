"""Spatial feature purification: pool only the positions that the decision rests on.

Zhu, Yan, Xie (IJCV 2025): the positions with the lowest attribution are left out of the mean that
the head sees, `pooled = (1/keep) * sum_{i kept} f_i`; they keep 34 of 49. Attribution divides by
all p positions and purification by the number kept: the former asks what a position adds, the
latter what the picture would be without the others. Theirs is the Banzhaf value; here any
attribution ranks the positions.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxood.attribution.coalitions import MOST, CoalitionValue
from jaxood.attribution.registry import attribution
from jaxood.context import Attribution, Context, Extractor, StagedModel, View
from jaxood.errors import UsageError, require
from jaxood.ranking import kept_positions
from jaxood.spelling import name_of, read

COALITIONS = 64  # are enough to tell the positions to keep


def purify(
    feature_map: Float[Array, "n h w c"], attribution: Float[Array, "n h w"], keep: int
) -> Float[Array, "n c"]:
    """Mean of the feature map over its `keep` positions of highest attribution."""
    kept = kept_positions(attribution, keep)[..., None]
    return jnp.sum(feature_map, axis=(1, 2), dtype=jnp.float32, where=kept) / keep


@dataclass(frozen=True)
class SpatialPurification(View):
    """Purified pooled features; the attribution explains the model's top class.

    A map that is finer than the feature map by whole factors (of pixels, or of an earlier layer)
    is averaged down to it.

    Attributes:
      by: the attribution that ranks the positions: an object, or its name or import path, with
        parameters or without.
      coalitions: how many estimate `by`, where that is "banzhaf" or "shapley"; None: 64. Their
        factors are in bfloat16 then. An object, or a name with parameters, is taken as it is.
      keep_fraction: of the positions, rounded to a whole number of them.
    """

    name: ClassVar[str] = "sfp"
    paper: ClassVar[str] = "Zhu, Yan, Xie: SOFA, IJCV 2025"

    by: str | Attribution = "banzhaf"
    coalitions: int | None = None
    keep_fraction: float = 34 / 49

    def __post_init__(self):
        count = self.coalitions
        fits = count is None or 2 <= count <= MOST
        require(fits, "sfp.coalitions", count, f"2 to {MOST}")
        counted = isinstance(self.attribution, CoalitionValue) and self._named_only
        wanted = "none unless sfp.by is banzhaf or shapley, without parameters"
        require(count is None or counted, "sfp.coalitions", count, wanted)
        wanted = "above 0 and at most 1"
        require(0.0 < self.keep_fraction <= 1.0, "sfp.keep_fraction", self.keep_fraction, wanted)

    @property
    def _named_only(self) -> bool:
        """Whether `by` leaves the parameters open."""
        return isinstance(self.by, str) and not read(self.by, "sfp.by")[1]

    @property
    def attribution(self) -> Attribution:
        """What ranks the positions."""
        ranking = attribution(self.by, "sfp.by")
        if isinstance(ranking, CoalitionValue) and self._named_only:
            return replace(ranking, coalitions=self.coalitions or COALITIONS, precision="bfloat16")
        return ranking

    @property
    def random(self) -> bool:
        return self.attribution.random

    def stages(self, model: StagedModel) -> tuple[str, ...]:
        return self.attribution.stages(model)

    def identity(self) -> str:
        effective = self.attribution.identity(), self.keep_fraction, self.version
        return " ".join(map(str, (name_of(self), *effective)))

    @property
    def map(self) -> "RankedPositions":
        return RankedPositions(self)

    def __call__(self, context: Context) -> Float[Array, "n c"]:
        context.require_mean_pooling(self.name)
        values = self.map(context)
        _, h, w = values.shape
        keep = max(1, round(self.keep_fraction * (h * w)))
        return purify(context.feature_map, values, keep)


@dataclass(frozen=True)
class RankedPositions(Extractor):
    """A value a position of the feature map, by which purification ranks them.

    Attributes:
      of: the purification; its attribution explains the model's top class.
    """

    name: ClassVar[str] = "positions"

    of: SpatialPurification = SpatialPurification()

    @property
    def random(self) -> bool:
        return self.of.random

    def stages(self, model: StagedModel) -> tuple[str, ...]:
        return self.of.stages(model)

    def __call__(self, context: Context) -> Float[Array, "n h w"]:
        top = jnp.argmax(context.outputs.logits, axis=-1)
        _, h, w, _ = context.feature_map.shape
        ranking = self.of.attribution
        return averaged(ranking(replace(context, target=top)), (h, w), ranking)


def averaged(
    maps: Float[Array, "n h w"], size: tuple[int, int], ranking: Attribution
) -> Float[Array, "n h2 w2"]:
    """Maps as means over the blocks that each position of a grid of `size` covers.

    Raises:
      UsageError: where such blocks do not fit.
    """
    n, h, w = maps.shape
    if (h, w) == size:
        return maps
    rows, columns = size
    if h % rows or w % columns:
        raise UsageError(
            "sfp.by",
            f"{ranking.key}, whose maps here are {h} x {w}",
            f"maps of the feature map's {rows} x {columns} positions, or whole multiples of it",
        )
    return maps.reshape(n, rows, h // rows, columns, w // columns).mean(axis=(2, 4))
