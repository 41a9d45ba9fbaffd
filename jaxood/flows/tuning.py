"""Parameters of methods, chosen on validation images: no test image has been read by then."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxood.data.suite import Suite
from jaxood.detectors.method import Method
from jaxood.errors import UsageError
from jaxood.flows.fitting import CHECK
from jaxood.flows.request import Family
from jaxood.flows.scoring import FittedOn, SetFeatures, scores_by_set
from jaxood.metrics.ood import auroc
from jaxood.report.rows import write_csv
from jaxood.runner.runner import Runner

ROLES = {"id_validation": "ID", "ood_validation": "OOD"}


class Candidate(NamedTuple):
    """One that was tried.

    Attributes:
      asked: the method as it was asked for.
      method: with the parameters that were tried.
      auroc: of ID against OOD validation images; None where there are no scores.
      n_id, n_ood: images.
      reason: why there are no scores.
    """

    asked: str
    method: str
    auroc: float | None
    chosen: bool
    n_id: int
    n_ood: int
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """What was tried, and what was chosen of it."""

    methods: tuple[Method, ...]
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> dict[str, list[str]]:
        """By a method as it was asked for; several where it was asked for several times."""
        found: dict[str, list[str]] = {}
        for one in self.candidates:
            if one.chosen:
                found.setdefault(one.asked, []).append(one.method)
        return found

    @property
    def lines(self) -> list[str]:
        """What is said of it."""
        return [
            f"tuned {one.asked}: {one.method}, AUROC {100 * one.auroc:.2f} on validation images"
            for one in self.candidates
            if one.chosen and one.auroc is not None
        ]

    def save(self, path: Path) -> None:
        """A CSV, a row a candidate."""
        write_csv(path, Candidate._fields, self.candidates)


def require_validation(suite: Suite) -> None:
    """Raises UsageError where a suite lacks images to tune on."""
    for role in ROLES:
        if role in suite.missing:
            wanted = "images that parameters are tuned on"
            raise UsageError("suite", suite.missing[role], wanted, CHECK)
    lacking = [name for role, name in ROLES.items() if getattr(suite, role) is None]
    if lacking:
        got = f"suite {suite.name} without {' and '.join(lacking)} validation images"
        remedy = "Name them in a TOML table of your own; or take --sweep, and report every value"
        raise UsageError("tune", got, "one with both", remedy)


def tuned(
    runner: Runner,
    families: Sequence[Family],
    fitted_on: FittedOn,
    known: SetFeatures,
    foreign: SetFeatures,
) -> Tuning:
    """Of each family the candidate with the highest AUROC; of equal ones the first.

    A candidate that cannot be fitted or scored is left out, with its reason; where none can be,
    the first stands, and its failure is told as that of any method.

    Args:
      fitted_on: training and validation images, with all that the candidates need of them.
      known, foreign: ID and OOD validation images.
    """
    several = [family.candidates for family in families if len(family.candidates) > 1]
    methods = list(dict.fromkeys(one for candidates in several for one in candidates))
    sets = {("id", ""): known, ("ood", ""): foreign}
    scores, failures = scores_by_set(runner, methods, fitted_on, sets)
    found = {one: auroc(by_set["id", ""], by_set["ood", ""]) for one, by_set in scores.items()}
    counts = len(known.features), len(foreign.features)
    chosen, rows = [], []
    for family in families:
        best = max(family.candidates, key=lambda one: found.get(one, -1.0))
        chosen.append(best)
        if len(family.candidates) > 1:
            rows += [_row(family, one, one == best, found, failures, counts) for one in family[1]]
    for row in rows:
        if row.reason:
            logging.getLogger("jaxood").warning("not tried: %s: %s", row.method, row.reason)
    return Tuning(tuple(dict.fromkeys(chosen)), tuple(rows))


def _row(
    family: Family,
    one: Method,
    chosen: bool,
    found: Mapping[Method, float],
    failures: Mapping[Method, UsageError],
    counts: tuple[int, int],
) -> Candidate:
    reason = str(failures[one]) if one in failures else ""
    return Candidate(family.asked.name, one.name, found.get(one), chosen, *counts, reason)
