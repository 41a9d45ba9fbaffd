"""Fits methods on extracted features, scores every set by them, and measures."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxood.data.images import ImageSet
from jaxood.detectors.contract import State
from jaxood.detectors.method import Method
from jaxood.detectors.scoring import host_outputs, score_by_all
from jaxood.errors import UsageError
from jaxood.metrics.ood import Metrics, measure
from jaxood.metrics.resamples import forget
from jaxood.models.registry import LoadedModel
from jaxood.outputs import ModelOutputs
from jaxood.report.tables import MethodResult, Scores
from jaxood.runner.features import Features
from jaxood.runner.runner import Progress, Runner

STATES = 1 << 27  # bytes of fitted states, above which features go to the devices once more


class SetFeatures(NamedTuple):
    """An image set, and what was extracted of it."""

    images: ImageSet
    features: Features

    @property
    def ids(self) -> list[str]:
        """What each row is called."""
        return [self.images.ids[index] for index in self.features.indices]

    @property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """The class of each row."""
        labels = self.images.labels
        return None if labels is None else labels[self.features.indices]


class TestedSets(NamedTuple):
    """The sets that are scored."""

    id_test: SetFeatures
    ood: Mapping[str, SetFeatures]
    shifted: Mapping[str, SetFeatures]


class _Work:
    """How much of what is to be done is done, for whoever wants to be told."""

    def __init__(self, total: int, progress: Progress | None):
        self._done, self._total, self._progress = 0, total, progress
        self.done(0)

    def done(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)

    def end(self) -> None:
        """Methods that failed have no more to do."""
        if self._done < self._total:
            self.done(self._total - self._done)


Fitted = tuple[ModelOutputs, Int[np.ndarray, " _"] | None]  # what methods are fitted on: labels too
FittedOn = tuple[SetFeatures | None, SetFeatures | None]  # training and validation images
Key = tuple[str, str]  # role and name of a set
Failures = dict[Method, UsageError]


def scores_by_set(
    runner: Runner,
    methods: Sequence[Method],
    fitted_on: FittedOn,
    named: Mapping[Key, SetFeatures],
    progress: Progress | None = None,
) -> tuple[dict[Method, dict[Key, Float[np.ndarray, " _"]]], Failures]:
    """Of each method the scores of every set; and why other methods have none.

    Args:
      fitted_on: training and validation images.
      progress: told how many images methods were fitted on or have scored, and how many that is
        of all: each counts once a method.
    """
    model = runner.model

    def given(found: SetFeatures | None) -> Fitted | None:
        return None if found is None else (outputs_of(model, found.features), found.labels)

    tested = {key: (outputs_of(model, found.features), found.ids) for key, found in named.items()}
    failures: Failures = {}
    scores: dict[Method, dict[Key, np.ndarray]] = {method: {} for method in methods}
    train, validation = map(given, fitted_on)
    fits = 0 if train is None else len(train[0].logits)
    rows = sum(len(ids) for _, ids in tested.values())
    work = _Work(len(methods) * (fits + rows), progress)
    fitting = _fitted(methods, model.head, train, validation, failures, lambda: work.done(fits))
    for states in fitting:
        for key, (outputs, ids) in tested.items():
            if not states:  # all have failed
                break
            found = score_by_all(states, outputs, model.head, runner.mesh, ids, together=True)
            work.done(len(states) * len(ids))
            for method, values in found.items():
                if isinstance(values, UsageError):
                    failures[method] = values
                    del states[method]
                else:
                    scores[method][key] = values
    work.end()
    whole = {method: found for method, found in scores.items() if method not in failures}
    return whole, {method: failures[method] for method in methods if method in failures}


def scored(
    runner: Runner,
    methods: Sequence[Method],
    fitted_on: FittedOn,
    sets: TestedSets,
    fpr_convention: str,
    seed: int,
    progress: Progress | None = None,
) -> tuple[tuple[MethodResult, ...], dict[str, str]]:
    """Results, and why other methods have none: one that fails does not take others with it.

    Raises:
      UsageError: when no method is left.
    """
    named: dict[Key, SetFeatures] = {("id", ""): sets.id_test}
    named |= {("ood", name): found for name, found in sets.ood.items()}
    named |= {("shifted", name): found for name, found in sets.shifted.items()}
    scores, failures = scores_by_set(runner, methods, fitted_on, named, progress)
    by_method = {
        method: Scores(
            found["id", ""],
            {name: found["ood", name] for name in sets.ood},
            {name: found["shifted", name] for name in sets.shifted},
        )
        for method, found in scores.items()
    }
    metrics, full_spectrum = _measured(by_method, sets, fpr_convention, seed)
    for method, error in failures.items():
        if len(methods) == 1:
            raise error
        logging.getLogger("jaxood").warning("%s: %s", method.name, error)
    if not by_method:
        first = next(iter(failures.values()))
        raise UsageError("methods", f"{len(methods)}, none of which gave scores", "one", str(first))
    results = tuple(
        MethodResult(
            method.name,
            None if method.plain is None else method.plain.name,
            found,
            metrics[method],
            full_spectrum[method],
        )
        for method, found in by_method.items()
    )
    return results, {method.name: str(error) for method, error in failures.items()}


def _fitted(
    methods: Sequence[Method],
    head,
    train: Fitted | None,
    validation: Fitted | None,
    failures: Failures,
    done: Callable[[], None],
) -> Iterator[dict[Method, State]]:
    """The states of methods, some at a time, as many as may lie on the devices together."""
    outputs, labels = train or (None, None)
    states: dict[Method, State] = {}
    for method in methods:
        try:
            states[method] = method.fit_state(outputs, labels, head, validation)
        except UsageError as error:
            failures[method] = error
        done()
        if sum(leaf.nbytes for leaf in jax.tree.leaves([*states.values()])) > STATES:
            yield states
            states.clear()
    if states:
        yield states


def _measured(
    scores: Mapping[Method, Scores], sets: TestedSets, convention: str, seed: int
) -> tuple[dict[Method, dict[str, Metrics]], dict[Method, dict[str, Metrics]]]:
    """Metrics by OOD set; and with shifted sets counted as in distribution, where there are any.

    A set after the other, each by all methods: resamples of as many images are drawn once.
    """
    metrics: dict[Method, dict[str, Metrics]] = {method: {} for method in scores}
    full_spectrum: dict[Method, dict[str, Metrics]] = {method: {} for method in scores}
    every_id = {m: np.concatenate([one.id, *one.shifted.values()]) for m, one in scores.items()}
    for name in sets.ood:
        for method, one in scores.items():
            metrics[method][name] = measure(one.id, one.ood[name], convention, seed)
    for name in sets.ood if sets.shifted else ():
        for method, one in scores.items():
            known = every_id[method]
            full_spectrum[method][name] = measure(known, one.ood[name], convention, seed)
    forget()
    return metrics, full_spectrum


def outputs_of(model: LoadedModel, features: Features) -> ModelOutputs:
    """Extracted features at the depths that methods read, on the host."""
    return host_outputs(model.head, features.pooled, features.logits, features.extras)
