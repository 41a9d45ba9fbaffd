"""What purification by a map gains in telling OOD images: the other use of a faithful map."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxood.attribution.baselines import RandomCAM
from jaxood.context import Attribution
from jaxood.data.suites import Suite
from jaxood.detectors.logit_scores import Energy
from jaxood.detectors.method import Method
from jaxood.detectors.sfp import SpatialPurification
from jaxood.errors import UsageError
from jaxood.flows.evaluate import evaluate
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.statistics import spearman
from jaxood.perturbation.subject import RANDOM
from jaxood.report.faithfulness import Cell
from jaxood.runner.runner import Runner, SetProgress


@dataclass(frozen=True)
class Purification:
    """Energy after SFP by each map against energy alone, on one suite.

    Attributes:
      energy: AUROC of energy alone, mean over the OOD sets.
      auroc: of energy after purification, by method; "random" is SFP by random channel weights.
      refused: why a method's maps purify nothing, by method.
    """

    suite: str
    energy: float
    auroc: Mapping[str, float]
    refused: Mapping[str, str]

    @property
    def gain(self) -> dict[str, float]:
        """By method, how much purification adds to the AUROC."""
        return {method: value - self.energy for method, value in self.auroc.items()}

    def agreement(self, cells: tuple[Cell, ...]) -> dict[str, float]:
        """By column, Spearman's correlation over methods of faithfulness and gain.

        Positive where maps that a measure calls better gain more; of columns with three methods or
        more, random among them. Few methods: read it as a hint.
        """
        found: dict[str, float] = {}
        for column in dict.fromkeys(cell.column for cell in cells):
            known = [c for c in cells if c.column == column and c.method in self.auroc]
            if len(known) >= 3:
                good = [cell.mean if cell.better == "high" else -cell.mean for cell in known]
                gain = [self.gain[cell.method] for cell in known]
                found[column] = spearman(np.array(good), np.array(gain))
        return found

    def __str__(self) -> str:
        gains = sorted(self.gain.items(), key=lambda entry: -entry[1])
        told = ", ".join(f"{method} {100 * gain:+.2f}" for method, gain in gains)
        lines = [
            f"AUROC gain of sfp by each map over energy ({100 * self.energy:.2f}) "
            f"on {self.suite}, in points: {told}"
        ]
        lines += [f"{method}: no sfp: {reason}" for method, reason in self.refused.items()]
        return "\n".join(lines)


def purification(
    model: LoadedModel,
    suite: Suite,
    attributions: Mapping[str, Attribution],
    batch_size: int,
    seed: int,
    store: Path | None,
    progress: SetProgress | None = None,
) -> Purification:
    """Evaluates SFP by each attribution, and by random channel weights.

    Raises:
      UsageError: see `jaxood.evaluate`.
    """
    views = {name: SpatialPurification(by=one) for name, one in attributions.items()}
    views[RANDOM] = SpatialPurification(by=RandomCAM())
    runner, refused = Runner(model), {}
    for name, view in views.items():
        try:
            runner.check([view], batch_size)
        except UsageError as error:
            refused[name] = str(error)
    methods = {
        name: Method(Energy(), view=view) for name, view in views.items() if name not in refused
    }
    found = evaluate(
        model,
        suite,
        [Energy(), *methods.values()],
        batch_size=batch_size,
        seed=seed,
        store=store,
        progress=progress,
    )
    mean = {result.method: result.mean("auroc") for result in found.results}
    auroc = {name: mean[one.name] for name, one in methods.items() if one.name in mean}
    refused |= {
        name: found.failures[one.name] for name, one in methods.items() if name not in auroc
    }
    return Purification(suite.name, mean[Method(Energy()).name], auroc, refused)
