"""A score of every layer, and one number of them all.

  s_l = score of the mean of layer l over its positions, by a detector fitted on that layer alone
  z_l = (s_l - m_l) / d_l            m_l, d_l: mean and standard deviation of s_l on known images
  p_l = (1 + #{known images with a score of at most s_l}) / (1 + their number)

  mean    mean of z_l over layers
  std     minus the standard deviation of z_l over layers: how far they are from agreeing
  fisher  sum of log p_l: Fisher's way to combine tests, one a layer

The known images are a tenth of the training images, every tenth row, on which the detectors are
not fitted: the scores of those that they are fitted on are too high.

Li, Li, Wang, Zeng, Tan, Xie: "Enhancing Out-of-Distribution Detection with Multitesting-based
Layer-wise Feature Fusion" (MLOD), 2024, combine nearest-neighbour scores of layers by Fisher's and
other tests: `aggregate[of=knn[k=50],by=fisher]`; their known images are validation images.

`of` is any detector that reads features alone. By default of the last layer of each block;
`layers=all`, or names joined by "/"; a model without named layers has one, its feature map.
Kept for an image are l c floats, c of the widest layer; narrower ones have zeros after theirs. A
detector whose state has another size for every layer (`cop`, `corp`) cannot be taken.
"""

import functools
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxood.detectors.contract import Detector
from jaxood.detectors.layers import LayerMeans
from jaxood.errors import UsageError, require
from jaxood.outputs import ModelOutputs
from jaxood.spelling import build, class_of, name_of, parameters_of, read

LEFT_OUT = 10  # one row of so many
FEATURES = {"pooled", "penultimate"}


@functools.cache
def state_of(inner: type) -> Any:
    """The class of a state: the scores of the known images, and all layers' states of `inner`."""
    fields: list[tuple[str, Any]] = [("known", Float[Array, "l b"])]
    for name, kind in typing.get_type_hints(inner).items():
        shape = getattr(kind, "dim_str", None)
        fields.append((name, Array if shape is None else Shaped[Array, f"l {shape}"]))
    return NamedTuple("AggregateState", fields)


@dataclass(frozen=True)
class Aggregate(Detector):
    """Scores of all layers by one detector, combined.

    Attributes:
      of: the detector that scores a layer: its name, with parameters or without, or an object.
      by: how the layers' scores are combined.
    """

    name: ClassVar[str] = "aggregate"
    paper: ClassVar[str] = "Li, Li, Wang, Zeng, Tan, Xie, 2024"
    needs_train: ClassVar[bool] = True

    of: str | Detector = "mahalanobis"
    by: Literal["mean", "std", "fisher"] = "mean"
    layers: str = "ends"

    def __post_init__(self):
        one = self.detector
        alone = {*one.reads} <= FEATURES and not (one.needs_head or one.extractors or one.view)
        got, wanted = f"{self.of}, which reads more", "a detector that reads features alone"
        require(alone, "aggregate.of", got, wanted)
        memory = parameters_of(one).get("memory", "device")
        require(memory == "device", "aggregate.of", f"{self.of}", "a bank with memory=device")

    @property
    def detector(self) -> Detector:
        """What scores a layer."""
        if isinstance(self.of, Detector):
            return self.of
        from jaxood.detectors.registry import DETECTORS  # which has this module in it

        name, values = read(self.of, "aggregate.of")
        return build(name, class_of(name, DETECTORS, Detector, "aggregate.of"), values)

    @property
    def State(self) -> type:  # type: ignore[override]  # noqa: N802
        return state_of(self.detector.State)

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        return self.detector.needs_labels

    @property
    def extractors(self):
        return (LayerMeans(self.layers),)

    def check(self, labels, classes):
        self.detector.check(labels, classes)

    def _layers(self, outputs) -> list[ModelOutputs]:
        rows = outputs.extras[self.extractors[0].key]
        parts = (rows[:, layer] for layer in range(rows.shape[1]))
        nothing: Any = None
        return [ModelOutputs(None, part, part, nothing) for part in parts]

    def fit(self, train, labels, head):
        one, layers = self.detector, self._layers(train)
        known = np.arange(len(layers[0].pooled)) % LEFT_OUT == LEFT_OUT - 1
        got, wanted = f"{len(known)} training images", f"at least {2 * LEFT_OUT}"
        require(known.sum() > 1, f"method {self.name}", got, wanted)
        several = self.by != "std" or len(layers) > 1
        require(several, "aggregate.by", "std of a single layer", "mean, or several layers")
        marks = None if labels is None else np.asarray(labels)[~known]
        states, scores = [], []
        for layer in layers:
            fitted_on, left_out = (
                jax.tree.map(lambda a, m=members: np.asarray(a)[m], layer)
                for members in (~known, known)
            )
            states.append(one.fit(fitted_on, marks, None))
            scores.append(np.sort(np.asarray(one.score(states[-1], left_out, None))))
        try:
            stacked = [jnp.stack(parts) for parts in zip(*states, strict=True)]
        except ValueError:
            got, wanted = f"{name_of(one)}, whose states differ in size", "one whose do not"
            raise UsageError("aggregate.of", f"{got} from layer to layer", wanted) from None
        return self.State(jnp.asarray(np.stack(scores), jnp.float32), *stacked)

    def score(self, state, outputs, head):
        one, combined = self.detector, []
        for index, layer in enumerate(self._layers(outputs)):
            own = one.State(*(part[index] for part in state[1:]))
            scores, known = one.score(own, layer, None), state.known[index]
            if self.by == "fisher":
                below = jnp.searchsorted(known, scores, side="right")
                combined.append(jnp.log((1 + below) / (1 + len(known))))
            else:
                spread = known.std()
                combined.append((scores - known.mean()) / jnp.where(spread == 0, 1.0, spread))
        layers = jnp.stack(combined)
        if self.by == "std":
            return -layers.std(axis=0)
        return layers.sum(axis=0) if self.by == "fisher" else layers.mean(axis=0)
