"""What detectors and transforms are. Scores are higher for in-distribution, everywhere.

A method is a view (jaxood/context.py), then transforms, then a detector.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxood.context import Extractor, View
from jaxood.errors import require
from jaxood.heads import Head
from jaxood.outputs import AnyArray, ModelOutputs
from jaxood.spelling import parameters_of, spelled_out

State = Any  # of a method: a tuple of its steps' states, each of the step's class `State`
Depth = Literal["pooled", "penultimate", "logits"]
Split = Literal["train", "validation"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
SPLITS: tuple[Split, ...] = get_args(Split)
StepT = TypeVar("StepT", bound="Step")
Numbers = tuple[tuple[Any, ...], ...]  # of each step, in the order of its `numbers`


class Step(ABC):  # noqa: B024 (its two kinds have the abstract methods)
    """What detectors and transforms share: frozen dataclasses of parameters, all with defaults.

    Attributes:
      name: what methods call it; one of the user's own is called by its import path.
      paper: where it comes from.
      State: the class of what `fit` returns: a flat NamedTuple of arrays, so that a fitted step
        can be written to a file and rebuilt from one.
      needs_train: whether `fit` looks at outputs of in-distribution images.
      fits_on: which images those are: "train", what the model was trained on; or "validation", for
        what is calibrated or tuned on images that were held out. Where there are none, a step
        that asks for them is fitted on the training images.
      needs_labels: whether it looks at their labels.
      needs_head: whether it uses the head; where it does not, the head may be None.
      numbers: parameters that decide no shape and no branch of what is scored: numbers in its
        arithmetic, or used by `fit` alone. Methods that differ in them are compiled once.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    State: ClassVar[type] = tuple
    needs_train: ClassVar[bool] = False
    fits_on: ClassVar[Split] = "train"
    needs_labels: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return spelled_out(self)

    @property
    def reads(self) -> tuple[Depth, ...]:
        """The depths of the outputs that it reads; the others may be None.

        A class attribute where no parameter decides it.
        """
        return ()

    @property
    def extractors(self) -> tuple[Extractor, ...]:
        """What it reads from `outputs.extras`, each under its `key`."""
        return ()

    def check(self, labels: Int[np.ndarray, " n"], classes: int | None) -> None:
        """Raises UsageError for labels that it cannot be fitted on; before anything is computed.

        Args:
          labels: passed by `check_labels`.
          classes: of the model; None where no model and no logits are given.
        """
        return None

    def check_head(self, head: Head) -> None:
        """Raises UsageError for a head that it cannot work with; before anything is computed."""
        return None

    def fit(
        self,
        train: ModelOutputs | None,
        labels: Int[np.ndarray, " n"] | None,
        head: Head | None,
    ) -> Any:
        """Host side, once; may raise UsageError.

        Args:
          train: of the images that `fits_on` names; has passed the steps before this one; None
            unless `needs_train`.
          labels: passed by `check`; None unless `needs_labels`.
        """
        return ()

    def restored(self, state: Any) -> Any:
        """A state of host arrays, as a file has it, back where `fit` leaves it.

        Raises:
          UsageError: when it is not one that `fit` could have made.
        """
        return jax.tree.map(jnp.asarray, state)


class Detector(Step):
    """`score` is jit-able, and a row's score does not depend on the other rows."""

    @property
    def view(self) -> View | None:
        """The view that the detector brings with it: ODIN's nudged image."""
        return None

    @abstractmethod
    def score(self, state: Any, outputs: ModelOutputs, head: Head) -> Float[AnyArray, " n"]:
        """Higher is more in-distribution."""
        ...


class Transform(Step):
    """Changes the outputs before they are scored; `apply` is jit-able and per row.

    Attributes:
      changes_logits_only: a later transform would compute the logits anew from penultimate
        features, and so undo this one: it comes last.
    """

    changes_logits_only: ClassVar[bool] = False

    @abstractmethod
    def apply(self, state: Any, outputs: ModelOutputs, head: Head) -> ModelOutputs:
        """For features, `jaxood.outputs.with_penultimate`."""
        ...


def check_labels(
    labels: object, classes: int | None, argument: str = "labels"
) -> Int[np.ndarray, " n"]:
    """The labels as an array, when each is a class.

    Raises:
      UsageError: otherwise, or when one is not below `classes` (None: any will do).
    """
    array = np.asarray(labels)
    require(
        array.ndim == 1 and np.issubdtype(array.dtype, np.integer),
        argument,
        f"{array.dtype} values of shape {array.shape}",
        "a whole number for each training image",
    )
    wrong = (array < 0) | (array >= (np.inf if classes is None else classes))
    if wrong.any():
        got = f"{array[wrong][0]} as label of image {np.flatnonzero(wrong)[0]}"
        wanted = "a class, 0 or more" if classes is None else f"a class, 0 to {classes - 1}"
        require(False, argument, got, wanted)
    return array


def numbers_apart(steps: tuple[StepT, ...]) -> tuple[tuple[StepT, ...], Numbers]:
    """The steps with defaults in the place of their `numbers`, and these."""

    def plain(step):
        defaults = parameters_of(type(step))
        return replace(step, **{n: defaults[n] for n in step.numbers}) if step.numbers else step

    numbers = tuple(tuple(getattr(step, name) for name in step.numbers) for step in steps)
    return tuple(map(plain, steps)), numbers


def with_numbers(steps: tuple[StepT, ...], numbers: Numbers) -> tuple[StepT, ...]:
    """The steps with `numbers`, which may be traced: nothing is checked."""
    found = []
    for step, values in zip(steps, numbers, strict=True):
        found.append(copy.copy(step))
        for name, value in zip(step.numbers, values, strict=True):
            object.__setattr__(found[-1], name, value)
    return tuple(found)


def restricted(
    outputs: ModelOutputs, depths: tuple[Depth, ...], keys: tuple[str, ...]
) -> ModelOutputs:
    """Only what is read, None for the rest, so that nothing else is copied to a device."""
    values: dict[str, Any] = {
        depth: getattr(outputs, depth) if depth in depths else None for depth in DEPTHS
    }
    return ModelOutputs(None, **values, extras={key: outputs.extras[key] for key in keys})


def row_count(outputs: ModelOutputs) -> int:
    """How many images; also of outputs that lack depths."""
    array: AnyArray = jax.tree.leaves(outputs)[0]
    return array.shape[0]
