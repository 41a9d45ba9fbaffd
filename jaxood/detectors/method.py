"""A method as an object: a view, transforms and a detector, all with their parameters."""

import functools
import itertools
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Int

from jaxood.context import Extractor, View
from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import (
    DEPTHS,
    SPLITS,
    Depth,
    Detector,
    Split,
    State,
    Step,
    Transform,
    check_labels,
    numbers_apart,
    restricted,
    row_count,
    with_numbers,
)
from jaxood.detectors.logit_scores import Energy
from jaxood.detectors.statistics import differ
from jaxood.errors import UsageError, require
from jaxood.heads import Head
from jaxood.outputs import AnyArray, ModelOutputs, model_outputs
from jaxood.spelling import label, name_of, spelled_out

ENERGY = Energy()


@dataclass(frozen=True)
class Method:
    """What scores an image; hashable, and equal to another of the same parts and parameters.

    Attributes:
      transforms: applied in order, before the detector.
      view: its features take the place of pooled ones, before the transforms.
    """

    detector: Detector
    transforms: tuple[Transform, ...] = ()
    view: View | None = None

    def __post_init__(self):
        for first, second in itertools.pairwise(self.transforms):
            one, two = label(first), label(second)
            require(first != second, "method", f"{one} twice in a row", "it once")
            if first.changes_logits_only:
                got, wanted = f"{two} after {one}", f"{one} as the last transform"
                raise UsageError("method", got, wanted, "It changes the logits only")
        for step in self.steps:
            got, wanted = f"{label(step)} with fits_on {step.fits_on!r}", " or ".join(SPLITS)
            require(step.fits_on in SPLITS, "method", got, wanted)
        if self.view and self.detector.view:
            name = name_of(self.detector)
            wanted = f"{name} alone, which has a view already"
            raise UsageError("method", f"the view {name_of(self.view)} before {name}", wanted)

    @property
    def steps(self) -> tuple[Transform | Detector, ...]:
        """What is fitted, in order."""
        return (*self.transforms, self.detector)

    @property
    def parts(self) -> tuple[View | Transform | Detector, ...]:
        """All of which it is made, but for an energy that goes without saying."""
        parts = self._all_parts
        return parts[:-1] if len(parts) > 1 and self.detector == ENERGY else parts

    @property
    def _all_parts(self) -> tuple[View | Transform | Detector, ...]:
        return (*([self.view] if self.view else ()), *self.steps)

    @property
    def name(self) -> str:
        """Reads back as this method: its parts with the parameters that differ from defaults."""
        return "+".join(map(label, self.parts))

    @property
    def spelled_out(self) -> str:
        """Reads back as this method when defaults have changed: with every parameter."""
        return "+".join(map(spelled_out, self._all_parts))

    @property
    def plain(self) -> "Method | None":
        """The same detector without view and transforms; None where it stands without."""
        return Method(self.detector) if self.view or self.transforms else None

    @property
    def source(self) -> View | None:
        """The view that gives the features: the method's, or one that its detector brings."""
        return self.view or self.detector.view

    @property
    def extractors(self) -> dict[str, Extractor]:
        """What the one pass over the images must keep for this method, by extra's key."""
        found: list[Extractor] = [self.source] if self.source else []
        found.extend(one for step in self.steps for one in step.extractors)
        return {one.key: one for one in found}

    @property
    def needs_train(self) -> bool:
        return any(step.needs_train for step in self.steps)

    @property
    def needs_labels(self) -> bool:
        return any(step.needs_labels for step in self.steps)

    def fitted_on(self, split: Split, validation: bool) -> tuple[Step, ...]:
        """Its steps that are fitted on the images of a split.

        Args:
          validation: whether there are validation images.
        """

        def chosen(step: Step) -> Split:
            return step.fits_on if validation else "train"

        return tuple(step for step in self.steps if step.needs_train and chosen(step) == split)

    @property
    def needs_head(self) -> bool:
        return self.source is not None or any(step.needs_head for step in self.steps)

    @property
    def reads(self) -> tuple[Depth, ...]:
        """The depths of a model's outputs that it reads; with a view, only what that kept."""
        return self._reads(len(self.steps))

    def _reads(self, count: int) -> tuple[Depth, ...]:
        """What the first `count` steps read."""
        if self.source:
            return ()
        read = {depth for step in self.steps[:count] for depth in step.reads}
        return tuple(depth for depth in DEPTHS if depth in read)

    def check(
        self,
        labels: object,
        classes: int | None,
        split: Split = "train",
        validation: bool = False,
    ) -> None:
        """Raises UsageError for labels of a split's images that some step cannot be fitted on.

        For methods that need labels, before the pass over the images.

        Args:
          validation: whether there are validation images.
        """
        needy = [step for step in self.fitted_on(split, validation) if step.needs_labels]
        if needy:
            checked = check_labels(labels, classes)
            for step in needy:
                step.check(checked, classes)

    def check_head(self, head: Head) -> None:
        """Raises UsageError for a head that some step cannot work with; before the pass."""
        for step in self.steps:
            step.check_head(head)

    def fit_state(
        self,
        train: ModelOutputs | None,
        labels: Int[np.ndarray, " n"] | None,
        head: Head | None,
        validation: tuple[ModelOutputs, Int[np.ndarray, " v"] | None] | None = None,
    ) -> State:
        """Fits the steps in order, each on what the steps before it make of its images.

        Args:
          train: outputs on in-distribution images, with this method's extras, on the host; None
            where no step is fitted on them.
          labels: their classes; None where no step needs them.
          head: None where `needs_head` is false.
          validation: the same two of images that were held out, for steps that ask for them.

        Raises:
          UsageError: when something that a step needs is missing or wrong.
        """
        given = cast(Head, head)
        if head is not None:
            self.check_head(head)
        states: list[State] = []
        for index, step in enumerate(self.steps):
            seen, marks, split = cast(ModelOutputs, train), labels, "train"
            if validation is not None and step.fits_on == "validation":
                (seen, marks), split = validation, "validation"
            if step.needs_train:
                seen, marks = self._checked(step, split, seen, marks)
            if step.needs_train and (index or self.source):
                keys = {one.key for earlier in self.steps[:index] for one in earlier.extractors}
                keys |= {one.key for one in step.extractors}
                keys |= {self.source.key} if self.source else set()
                needed = restricted(seen, self._reads(index + 1), tuple(sorted(keys)))
                plain, numbers = numbers_apart(self.transforms[:index])
                kept = step.reads, tuple(one.key for one in step.extractors)
                before = functools.partial(
                    _outputs_before, self.source, plain, kept, numbers, states, given
                )
                seen = map_blocks(before, needed)
            if step.needs_train:
                _require_difference(self.name, step, seen)
            states.append(step.fit(seen, marks, given))
        return tuple(states)

    def _checked(
        self, step: Step, split: str, outputs: ModelOutputs | None, labels: Any
    ) -> tuple[ModelOutputs, Int[np.ndarray, " n"] | None]:
        """What a step is fitted on, when it is whole.

        Raises:
          UsageError: otherwise.
        """
        called = "training" if split == "train" else "validation"
        if outputs is None or not len(outputs.pooled):
            raise UsageError(f"method {self.name}", f"no {called} images", "some to fit on")
        if not step.needs_labels:
            return outputs, labels
        if labels is None:
            raise UsageError(f"method {self.name}", f"{called} images without labels", "labels")
        classes = None if outputs.logits is None else outputs.logits.shape[1]
        checked = check_labels(labels, classes)
        step.check(checked, classes)
        rows = len(outputs.pooled)
        got = f"{len(checked)} of them for {rows} {called} images"
        require(len(checked) == rows, "labels", got, "one for each")
        return outputs, checked

    def score(self, state: State, outputs: ModelOutputs, head: Head | None) -> AnyArray:
        """One score a row, [n]; higher is more in-distribution. Pure, jit-able, and per row."""
        return score_by(self.source, self.steps, state, head, outputs)


def _require_difference(name: str, step: Transform | Detector, train: ModelOutputs) -> None:
    """Raises UsageError where all that a step is fitted on is the same for every image."""
    arrays = [getattr(train, depth) for depth in step.reads]
    arrays += [train.extras[one.key] for one in step.extractors]
    got = f"outputs that are all alike on {row_count(train)} training images"
    remedy = "Look at the images and the weights"
    differs = not arrays or any(map(differ, arrays))
    require(differs, f"method {name}", got, "ones that differ", remedy)


def score_by(
    source: View | None,
    steps: tuple[Step, ...],
    states: State,
    head: Head | None,
    outputs: ModelOutputs,
) -> AnyArray:
    """What `Method.score` gives, of the parts of a method; the last step is its detector."""
    *transforms, detector = steps
    outputs = _prepared(source, tuple(transforms), states[:-1], head, outputs)  # type: ignore[arg-type]
    return cast(Detector, detector).score(states[-1], outputs, cast(Head, head))


def _prepared(
    source: View | None,
    transforms: tuple[Transform, ...],
    states: State,
    head: Any,  # None where nothing uses it
    outputs: ModelOutputs,
) -> ModelOutputs:
    """The outputs as the step after the transforms given sees them."""
    if source:
        outputs = model_outputs(head, outputs.extras[source.key], extras=outputs.extras)
    for transform, state in zip(transforms, states, strict=True):
        outputs = transform.apply(state, outputs, head)
    return outputs


# Compiled once for all methods that begin alike.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _outputs_before(source, transforms, kept, numbers, states, head, outputs) -> ModelOutputs:
    """What a step is fitted on: no more than it reads, as it goes back to the host."""
    transforms = with_numbers(transforms, numbers)
    return restricted(_prepared(source, transforms, states, head, outputs), *kept)
