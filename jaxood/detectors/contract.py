"""What a detector, a transform and a view are. Scores are higher for in-distribution, everywhere.

A *view* is an `Extractor` (jaxood/extraction.py) whose array takes the place of pooled; the
logits follow through the head. A method is a view, then transforms, then a detector.
"""

from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Float, Int

from jaxood.errors import UsageError
from jaxood.extraction import Extractor
from jaxood.outputs import Head, ModelOutputs

State = Any  # a NamedTuple of arrays, the step's `State` class; () where nothing is fitted


class Step(Protocol):
    """What detectors and transforms share: frozen dataclasses of hyper-parameters.

    Attributes:
      State: the class of what `fit` returns: a flat NamedTuple of arrays, so that a fitted step
        can be written to a file and rebuilt from one.
      needs_train: whether `fit` looks at training outputs.
      needs_labels: whether it looks at their labels.
    """

    State: ClassVar[type] = tuple
    needs_train: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    @property
    def extractors(self) -> dict[str, Extractor]:
        """What the step reads from `outputs.extras`, by the name it reads it under."""
        return {}

    def fit(self, train: ModelOutputs, labels: Int[Array, " n"] | None, head: Head) -> State:
        """Host side, once; may raise UsageError. `train` has passed the steps before this one."""
        return ()


class Detector(Step, Protocol):
    """`score` is jit-able, and a row's score does not depend on the other rows."""

    @property
    def view(self) -> tuple[str, Extractor] | None:
        """The view that belongs to the detector itself (ODIN's perturbed image), and its name."""
        return None

    def score(self, state: State, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]: ...


class Transform(Step, Protocol):
    """Changes the outputs before they are scored; `apply` is jit-able and per row.

    Attributes:
      changes_logits_only: a later transform would compute the logits anew from pooled, and so
        undo this one: it comes last.
    """

    changes_logits_only: ClassVar[bool] = False

    def apply(self, state: State, outputs: ModelOutputs, head: Head) -> ModelOutputs: ...


def require(holds: bool, argument: str, got: object, wanted: str, remedy: str = "") -> None:
    """Raises UsageError unless `holds`."""
    if not holds:
        raise UsageError(argument, got, wanted, remedy)
