"""Detectors on arrays that you have: no model, no image.

knn = detector("knn", k=50).fit(train_features)
scores = knn.score(test_features)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int

from jaxood.detectors.contract import State
from jaxood.detectors.grammar import with_parameters
from jaxood.detectors.method import Method
from jaxood.detectors.scoring import host_outputs, score_rows
from jaxood.errors import UsageError, require
from jaxood.heads import Head
from jaxood.outputs import AnyArray, ModelOutputs

IMAGES = "It works on images, not on features alone: use jaxood.fit"

Extras = Mapping[str, Float[AnyArray, "n ..."]]


@dataclass(frozen=True)
class FittedDetector:
    """A method, what it was fitted to, and the head that it uses, where it uses one.

    Attributes:
      channels: of the features that it was fitted on; None where that is not known.
    """

    method: Method
    state: State = field(repr=False)
    head: Head | None = field(default=None, repr=False)
    channels: int | None = None

    def score(
        self,
        features: object = None,
        *,
        logits: Float[AnyArray, "n k"] | None = None,
        extras: Extras | None = None,
    ) -> Float[np.ndarray, " n"]:
        """One score a row; higher is more in-distribution.

        Args:
          features: what the head takes (pooled), [n, c]; ModelOutputs; or an object with
            attributes pooled, logits and extras. None for a method that reads logits alone.
          logits: in place of the head's.
          extras: what the method's extractors kept of the images, by their keys.

        Raises:
          UsageError: for arrays that cannot be scored, or when something is missing.
        """
        outputs = _outputs(self.method, self.head, features, logits, extras, self.channels)
        return score_rows(self.method, self.state, outputs, self.head)


@dataclass(frozen=True)
class UnfittedDetector:
    """A method, to be fitted on arrays; it may stand wherever a method may."""

    method: Method

    def fit(
        self,
        features: object = None,
        labels: Int[AnyArray, " n"] | None = None,
        *,
        head: Head | None = None,
        logits: Float[AnyArray, "n k"] | None = None,
    ) -> FittedDetector:
        """Fits on arrays of in-distribution images.

        Args:
          features, logits: as for `FittedDetector.score`; none where nothing is fitted.
          labels: a class a row, where the method needs them.
          head: for methods that need one, and for logits that are not given.

        Raises:
          UsageError: for arrays that it cannot be fitted on, or when something is missing.
        """
        method = self.method
        name = f"method {method.name}"
        if method.needs_head:
            remedy = "Give a head, such as jaxood.LinearHead(kernel, bias)"
            require(head is not None, "head", "None", f"one, as {name} uses it", remedy)
        train, channels = None, None if head is None else head.kernel.shape[0]
        if method.needs_train:
            train = _outputs(method, head, features, logits, None, channels)
            channels = train.pooled.shape[1] if _has_features(train) else channels
        elif features is not None or logits is not None:
            _outputs(method, head, features, logits, None, channels)
        marks = None if labels is None else np.asarray(labels)
        return FittedDetector(method, method.fit_state(train, marks, head), head, channels)


def detector(method: Any, **parameters: object) -> UnfittedDetector:
    """A detector for arrays that you have: `detector("knn", k=50).fit(train).score(test)`.

    Args:
      method: a name, composed with "+", an import path, or an object of your own.
      parameters: of the method's last part.

    Raises:
      UsageError: an unknown name or parameter, or an order that makes no sense.
    """
    return UnfittedDetector(with_parameters(method, **parameters))


def _has_features(outputs: ModelOutputs) -> bool:
    return outputs.pooled.shape[1] > 0


def _outputs(
    method: Method,
    head: Head | None,
    features: object,
    logits: Any,
    extras: Extras | None,
    channels: int | None,
) -> ModelOutputs:
    """Checked arrays as outputs; features without channels stand in for none."""
    name = f"method {method.name}"
    if features is not None and hasattr(features, "pooled"):
        given = cast(Any, features)
        features = given.pooled
        logits = given.logits if logits is None else logits
        extras = given.extras if extras is None else extras
    extras = extras or {}
    missing = [key for key in method.extractors if key not in extras]
    if missing:
        raise UsageError("extras", f"none called {missing[0]}", f"it, for {name}", IMAGES)
    kept = {key: _checked("extras", extras[key], None) for key in method.extractors}
    needs_features = bool({"pooled", "penultimate"} & {*method.reads})
    if features is None:
        require(not needs_features, "features", "None", f"an array [n, c], as {name} reads them")
        lead = [_checked("logits", logits, 2)] if logits is not None else list(kept.values())
        require(bool(lead), "logits", "None", f"logits or features, as {name} reads them")
        pooled = np.empty((len(lead[0]), 0), np.float32)
    else:
        pooled = _checked("features", features, 2)
        if channels is not None:
            got, wanted = f"{pooled.shape[1]} channels", f"{channels}, as the head or the fit has"
            require(pooled.shape[1] == channels, "features", got, wanted)
    if logits is not None:
        logits = _checked("logits", logits, 2)
        if head is not None:
            got, wanted = f"{logits.shape[1]} classes", f"{head.kernel.shape[1]}, as the head has"
            require(logits.shape[1] == head.kernel.shape[1], "logits", got, wanted)
    elif "logits" in method.reads:
        remedy = "Give them, or a head"
        require(head is not None, "logits", "None", f"logits, as {name} reads them", remedy)
    for argument, array in (("logits", logits), *((f"extras {key}", kept[key]) for key in kept)):
        if array is not None:
            got, wanted = f"{len(array)} rows", f"{len(pooled)}, as many as of the others"
            require(len(array) == len(pooled), argument, got, wanted)
    if features is None:
        return ModelOutputs(None, pooled, pooled, logits, kept)
    return host_outputs(head, pooled, logits, kept)


def _checked(argument: str, values: Any, ndim: int | None) -> np.ndarray:
    """The values in float32 on the host.

    Raises:
      UsageError: when they are no array of numbers, empty, of other dimensions, or not finite.
    """
    wanted = "an array of numbers" if ndim is None else "an array of numbers with two dimensions"
    try:
        array = np.asarray(values)
        numbers = array.real.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise UsageError(argument, type(values).__name__, wanted) from error
    got = f"{array.dtype} values of shape {array.shape}"
    right = not np.iscomplexobj(array) and array.ndim > 0 and ndim in (None, array.ndim)
    require(right, argument, got, wanted)
    require(array.size > 0, argument, got, "at least one row, and one column")
    wrong = np.unique(np.argwhere(~np.isfinite(numbers))[:, 0])
    if len(wrong):
        got = f"values that are not finite in {len(wrong)} of {len(numbers)} rows"
        raise UsageError(argument, got, "finite values", f"The first: row {wrong[0]}")
    return numbers
