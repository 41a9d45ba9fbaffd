"""What `evaluate` found, as text, tables, pictures and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxood.data.suite import Suite
from jaxood.detectors.method import Method
from jaxood.files import write_whole
from jaxood.flows.examples import examples
from jaxood.flows.scoring import SetFeatures
from jaxood.flows.tuning import Tuning
from jaxood.models.registry import LoadedModel
from jaxood.report import plots, tables
from jaxood.report.evaluation_page import evaluation_page
from jaxood.report.figures import check_format
from jaxood.report.joined import Report
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.rows import FULL_SPECTRUM, Run, accuracy_row, rows_of
from jaxood.report.tables import MethodResult, SetArrays, set_keys
from jaxood.runner.features import Skipped, skipped_lines

FILES = (
    "metrics.csv",
    "metrics.json",
    "table.md",
    "table.tex",
    "scores.csv",
    "scores.npz",
    "roc.png",
    "scores.png",
    "report.html",
    "manifest.json",
)
PRECISION = "precision.csv"  # beside them, where arithmetics were compared
TUNING = "tuning.csv"  # and where parameters were tuned


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found.

    Attributes:
      results: one a method: scores, metrics.
      failures: what went wrong, by the name of a method that has no result.
      methods: all of them, by name.
      train: the training images that methods were fitted on; None where none is.
      bank: indices in the suite's training set of the images of `train`.
      validation: the validation images that methods were fitted or tuned on; None where none is.
      ood_validation: on which, beside `validation`, parameters were tuned; None where none were.
      shifted: covariate-shifted ID sets, by name; empty where they were not asked for.
      shared: by a set, a line about images that an earlier set has too.
      accuracies: top-1, of the ID test set and shifted ones whose labels are the model's classes.
      maps: the extras that are maps of where a score rests.
      settings: what else decided the result.
      tuning: what was tried of methods whose parameters were tuned.
      label: what the model is called in tables.
    """

    model: LoadedModel
    suite: Suite
    results: tuple[MethodResult, ...]
    failures: Mapping[str, str]
    methods: Mapping[str, Method]
    train: SetFeatures | None
    id_test: SetFeatures
    ood: Mapping[str, SetFeatures]
    bank: Int[np.ndarray, " b"] | None
    shared: Mapping[str, str]
    accuracies: Mapping[str, float]
    fpr_convention: str
    seed: int
    label: str
    maps: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    validation: SetFeatures | None = None
    shifted: Mapping[str, SetFeatures] = field(default_factory=dict)
    ood_validation: SetFeatures | None = None
    tuning: Tuning | None = None

    @property
    def report(self) -> Report:
        """The numbers, a row each; joins with those of other runs."""
        run = Run(
            self.label,
            self.model.weights_hash[:8],
            self.suite.name,
            self.seed,
            self.suite.groups,
            self.fpr_convention,
        )
        rows = rows_of(run, self.results)
        tested = {self.id_test.images.name: self.id_test, **self.shifted}
        for name, accuracy in self.accuracies.items():
            rows.append(accuracy_row(run, name, accuracy, len(tested[name].features)))
        return Report(tuple(rows))

    @property
    def accuracy(self) -> float | None:
        """Top-1 on the ID test set; None where its labels are not the model's classes."""
        return self.accuracies.get(self.id_test.images.name)

    @property
    def _accuracy_lines(self) -> list[str]:
        return [f"accuracy on {name}: {100 * top:.2f} %" for name, top in self.accuracies.items()]

    @property
    def sets(self) -> dict[str, SetFeatures]:
        """All of them, by what they are called in files."""
        members = self._members
        keys = set_keys(members)
        return {
            keys[role, name]: found
            for role, named in members.items()
            for name, found in named.items()
        }

    @property
    def _members(self) -> dict[str, Mapping[str, SetFeatures]]:
        """By role and name."""
        tuned_on = self.ood_validation
        return {
            "train": {} if self.train is None else {"train": self.train},
            "validation": {} if self.validation is None else {"validation": self.validation},
            "OOD validation": {} if tuned_on is None else {"OOD validation": tuned_on},
            "id": {self.id_test.images.name: self.id_test},
            "shifted": self.shifted,
            "ood": self.ood,
        }

    @property
    def skipped(self) -> dict[str, tuple[Skipped, ...]]:
        """The undecodable images of each set."""
        return {name: found.features.skipped for name, found in self.sets.items()}

    def __str__(self) -> str:
        return self.text()

    def text(self, sort: str | None = None, bold: bool = False) -> str:
        """Tables and what must be known besides; for options see `jaxood.report.tables.table`."""
        how = self.fpr_convention, sort, bold
        lines = [tables.table(self.results, *how)] if self.results else []
        if self.shifted and self.results:
            metrics = [m for m in self.report.metrics if m.startswith(FULL_SPECTRUM)]
            lines += ["", *map(str, self.report.tables(metrics[:2]))]
        lines += [f"{name}: no result: {reason}" for name, reason in self.failures.items()]
        lines += self.tuning.lines if self.tuning else []
        lines += self._accuracy_lines
        lines += [f"warning: {line}" for line in self.shared.values()]
        for name, found in self.sets.items():
            lines += skipped_lines(name, found.features.skipped, len(found.images))
        return "\n".join(lines)

    def save(self, folder: Path | str, *, figures: str = "png") -> Path:
        """Writes tables, scores, pictures, a page to look at and the manifest: `FILES`.

        Every file is whole or absent; the folder is made.

        Args:
          figures: the format of the curves: "png", "svg" or "pdf".
        """
        check_format(figures)
        folder, name = Path(folder), self.id_test.images.name
        keys = set_keys(self._members)
        arrays = [
            SetArrays(key, found.ids, found.features.predicted, found.labels)
            for key, found in self.sets.items()
        ]
        about = manifest(
            self.settings,
            self.model,
            {key: (found.images, found.features.skipped) for key, found in self.sets.items()},
            methods={name: method.spelled_out for name, method in self.methods.items()},
            failures=self.failures,
            shared=self.shared,
            accuracy=self.accuracy,
            accuracies=self.accuracies,
            bank=self.bank,
            **({"tuned": self.tuning.chosen} if self.tuning else {}),
        )
        put_aside(folder, (*FILES, PRECISION, TUNING), about)
        if self.tuning:
            self.tuning.save(folder / TUNING)
        path = folder / "scores.npz"
        tables.write_arrays(path, tables.score_arrays(self.results, name, keys, arrays))
        if self.results:
            self.report.save(folder)
            tables.write_scores(folder / "scores.csv", self.results, keys, arrays)
            plots.draw_roc(folder / f"roc.{figures}", self.results, name)
            plots.draw_histograms(folder / f"scores.{figures}", self.results, name)
        write_whole(folder / "report.html", self._page(about).encode())
        write_json(folder / "manifest.json", about)
        return folder

    def _page(self, about: Mapping[str, object]) -> str:
        """report.html; its images are those of the method with the best mean AUROC."""
        name = self.id_test.images.name
        notes = [*(self.tuning.lines if self.tuning else []), *self._accuracy_lines]
        warnings = [f"{name}: no result: {why}" for name, why in self.failures.items()]
        warnings += self.shared.values()
        for key, found in self.sets.items():
            warnings += skipped_lines(key, found.features.skipped, len(found.images))
        summary, shown, ranked_by = None, [], ""
        if self.results:
            (summary,) = self.report.tables(sort="auroc")
            best = max(self.results, key=lambda result: result.mean("auroc"))
            ranked_by = best.method
            sets = [(name, self.id_test, best.scores.id)]
            sets += [(key, found, best.scores.ood[key]) for key, found in self.ood.items()]
            shown = [
                examples(self.model, key, found.images, found.features, scores, self.maps)
                for key, found, scores in sets
            ]
        title = f"{self.label} on {self.suite.name}"
        return evaluation_page(
            title, notes, warnings, summary, self.results, name, ranked_by, shown, about
        )
