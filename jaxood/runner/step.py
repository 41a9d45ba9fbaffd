"""The compiled step: a uint8 batch, one forward pass, one context for every extractor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jaxood.context import Context, Extractor, LayerExtractor, Model, Pooling, StagedModel
from jaxood.models.blocked import forward
from jaxood.outputs import AnyArray
from jaxood.preprocessing import Preprocessing

TOP_CLASS = -1  # in the place of a target


class Extracted(NamedTuple):
    """What the step keeps of a batch, in float32: the feature map lives and dies in there.

    Attributes:
      extras: what each extractor gave, by its key.
    """

    pooled: Float[AnyArray, "n c"]
    logits: Float[AnyArray, "n k"]
    extras: Mapping[str, Float[AnyArray, "n ..."]]


@dataclass(frozen=True)
class ExtractionStep:
    """Normalises, runs the network, and everything that needs what the network has at hand.

    Attributes:
      dtype: of normalised images, and of what the backbone makes of them.
      pooling: of the model.
    """

    preprocessing: Preprocessing
    dtype: str
    pooling: Pooling
    extractors: tuple[Extractor, ...] = ()

    def __call__(
        self,
        model: Model,
        images: UInt8[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Extracted:
        """`target`: classes to explain, or `TOP_CLASS`."""
        normalised = self.preprocessing.normalise(images, jnp.dtype(self.dtype))
        return self.extract(model, normalised, target, key)

    def extract(
        self,
        model: Model,
        normalised: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Extracted:
        """The same from images that are normalised already."""
        stages = self._stages(model)
        over_layers = [one for one in self.extractors if isinstance(one, LayerExtractor)]
        outputs, layers, reduced = forward(model, normalised, stages, over_layers)
        target = jnp.where(target < 0, jnp.argmax(outputs.logits, axis=-1), target)
        context = Context(normalised, outputs, model, target, key, self.pooling, layers, reduced)
        extras = {extractor.key: extractor(context) for extractor in self.extractors}
        found = Extracted(outputs.pooled, outputs.logits, extras)
        return jax.tree.map(lambda array: array.astype(jnp.float32), found)

    def _stages(self, model: Model) -> tuple[str, ...]:
        if not isinstance(model, StagedModel):
            return ()
        wanted = (stage for extractor in self.extractors for stage in extractor.stages(model))
        return tuple(dict.fromkeys(wanted))
