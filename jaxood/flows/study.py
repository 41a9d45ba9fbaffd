"""Several models, suites and seeds: an evaluation of each, and one table of all."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jaxood.data.suite import Suite
from jaxood.data.suite_table import SuiteTable
from jaxood.data.suites import source_of
from jaxood.data.suites import suite as suite_of
from jaxood.errors import UsageError, require
from jaxood.files import file_name
from jaxood.flows.evaluate import evaluate
from jaxood.flows.request import MethodSource, Tune, check_request
from jaxood.flows.sources import ModelSource, load_model, model_of_suite
from jaxood.models.registry import LoadedModel
from jaxood.report.joined import Report, joined
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.runner import SetProgress

Models = Mapping[str, ModelSource | Sequence[ModelSource]] | Sequence[ModelSource]
Load = Callable[[ModelSource], LoadedModel]


def study(
    models: Models | None,
    suites: str | Suite | Sequence[str | Suite],
    methods: MethodSource | Sequence[MethodSource] = "sfp",
    *,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Mapping[str, object]] | None = None,
    sweeps: Mapping[str, Mapping[str, Sequence[object]]] | None = None,
    tune: Tune = None,
    batch_size: BatchSize = DEFAULT,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    fpr_convention: str = "plain",
    full_spectrum: bool = False,
    root: Path | str | None = None,
    output: Path | str | None = None,
    cache_images: Path | str | None = None,
    load: Load = load_model,
    progress: Callable[[str], SetProgress] | None = None,
) -> Report:
    """Evaluates every model on every suite with every seed.

    A run that gives no result, as that of a method whose needs a suite does not meet, is told of in
    the report and does not take the others with it. What is not told here is as in
    `jaxood.evaluate`.

    Args:
      models: by what they are called in tables; weights of several trainings of one model are a
        sequence, whose results are averaged. Without names: what the weights say they are of.
        None: of each suite the model that belongs to it.
      suites: names, or suites.
      seeds: of the random draws: bank, coalitions, intervals.
      root: the folder in which the images of the suites lie, of those that need one.
      output: folder where the result of each run is written as it comes, and the features, from
        which an interrupted study goes on.
      load: what makes a model of a source.
      progress: given the name of a run, what `jaxood.evaluate` takes.

    Raises:
      UsageError: for several models that would be called the same, and for what else can be known
        before the first run; and when no run can be made.
    """
    require(bool(seeds), "seeds", "none", "one or more")
    for seed in seeds:
        check_request(methods, settings, sweeps, fpr_convention, seed, tune)
    several = [suites] if isinstance(suites, str | Suite) else suites
    built = [_suite(source, root) for source in several]
    names = [suite.name for suite in built]
    require(bool(names) and len({*names}) == len(names), "suites", names, "one or more, each once")
    labelled = [(suite, _labelled(models, suite, load)) for suite in built]
    reports: list[Report] = []
    refused: list[UsageError] = []
    for suite, runs in labelled:
        for label, number, source in runs:
            model = load(source)
            for seed in seeds:
                run = f"{label}{number} on {suite.name}, seed {seed}"
                try:
                    result = evaluate(
                        model,
                        suite,
                        methods,
                        settings=settings,
                        sweeps=sweeps,
                        tune=tune,
                        batch_size=batch_size,
                        bank_fraction=bank_fraction,
                        balanced_bank=balanced_bank,
                        fpr_convention=fpr_convention,
                        full_spectrum=full_spectrum,
                        seed=seed,
                        store=None if output is None else Path(output) / "features",
                        cache_images=cache_images,
                        progress=progress(run) if progress else None,
                    )
                except UsageError as error:
                    refused.append(error)
                    logging.getLogger("jaxood").warning("%s: %s", run, error)
                    reports.append(Report((), failures={run: str(error)}))
                    continue
                result = replace(result, label=label)
                failures = {f"{run}, {name}": text for name, text in result.failures.items()}
                reports.append(replace(result.report, failures=failures))
                if output is not None:
                    parts = (file_name(f"{label}{number}"), file_name(suite.name), f"seed-{seed}")
                    result.save(Path(output).joinpath(*parts))
    if len(refused) == len(reports):
        raise refused[0]
    return joined(reports)


def _suite(source: str | Suite, root: Path | str | None) -> Suite:
    table = source_of(source)
    needed = isinstance(table, SuiteTable) and table.needs_root
    return suite_of(source, root if needed else None)


def _labelled(
    models: Models | None, suite: Suite, load: Load
) -> list[tuple[str, str, ModelSource]]:
    """What each model is called, a number where weights share a name, and the model.

    Each is loaded once, so that what is wrong with it is said before the first run.
    """
    if models is None:
        models = [model_of_suite(suite.name)]
    if isinstance(models, Mapping):
        found = []
        for label, given in models.items():
            several = given if isinstance(given, list | tuple) else [given]
            for number, source in enumerate(several, 1):
                load(source)
                found.append((label, f" ({number})" if len(several) > 1 else "", source))
        return found
    labels: dict[str, ModelSource] = {}
    for source in models:
        label = load(source).label
        wanted = "a name for each, such as NAME=FILE"
        require(label not in labels, "models", f"two that are called {label}", wanted)
        labels[label] = source
    return [(label, "", source) for label, source in labels.items()]
