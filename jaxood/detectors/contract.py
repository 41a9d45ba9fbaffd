"""What a detector and a transform are. Scores are higher for in-distribution, everywhere."""

from typing import Any, Protocol

from jaxtyping import Array, Float, Int

from jaxood.outputs import Head, ModelOutputs

State = Any  # a pytree of arrays; () where nothing is fitted


class Detector(Protocol):
    """A frozen dataclass of hyper-parameters with two pure functions."""

    def fit(self, train: ModelOutputs, labels: Int[Array, " n"] | None, head: Head) -> State:
        """Host side, once; may raise UsageError. `train` has passed the same transforms."""
        ...

    def score(self, state: State, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]:
        """Jit-able; a row's score does not depend on the other rows."""
        ...


class Transform(Protocol):
    """Changes the outputs before they are scored; `apply` is jit-able and per row."""

    def fit(self, train: ModelOutputs, labels: Int[Array, " n"] | None, head: Head) -> State: ...

    def apply(self, state: State, outputs: ModelOutputs, head: Head) -> ModelOutputs: ...
