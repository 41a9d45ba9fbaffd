"""How faithful attribution maps are, by every measure that the field uses: one table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxood.attribution.heatmap import heats
from jaxood.data.decode import Whole, uncut
from jaxood.data.images import ImageSet, wholes
from jaxood.data.objects import regions, regions_fingerprint
from jaxood.data.suites import Suite
from jaxood.data.suites import suite as suite_of
from jaxood.errors import UsageError, require, require_seed
from jaxood.files import write_whole
from jaxood.flows.attribute import AttributionSource
from jaxood.flows.maps import maps_of_images
from jaxood.flows.measuring import measured
from jaxood.flows.purification import Purification, purification
from jaxood.flows.sources import ModelSource, model_of_suite
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.maps import MapSource, unique
from jaxood.perturbation.measure import Finding, Measure
from jaxood.perturbation.measures import MEASURES, AnyMeasure, measures_of
from jaxood.perturbation.subject import RANDOM, Subject
from jaxood.report.faithfulness import (
    Cell,
    ColumnValues,
    Movement,
    cells_of,
    columns_of,
    curves_of,
    draw_curves,
    draw_table,
    gains_over_random,
    mean_ranks,
    movement_table,
    movements,
    table,
    write_results,
)
from jaxood.report.faithfulness_page import Found, Pictured, Purified, faithfulness_page
from jaxood.report.figures import check_format
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.pictures import laid_over, palette
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Skipped, skipped_lines
from jaxood.runner.runner import Progress, SetProgress

GROUP = 1  # images whose maps are computed at once: what is measured on them takes far longer
FILES = (
    "values.csv",
    "table.csv",
    "table.md",
    "curves.csv",
    "faithfulness.json",
    "faithfulness.png",
    "curves.png",
    "report.html",
    "manifest.json",
)
IN_PAGE = 80  # maps, of the first images

MeasureSource = AnyMeasure | Sequence[AnyMeasure]


@dataclass(frozen=True)
class FaithfulnessResult:
    """What `faithfulness` found.

    Attributes:
      measures: by key.
      findings: one a measure, map and image; random maps singly ("random/0"...).
      shown: the first images with their maps, for the page; of several processes the first has
        them.
      settings: what else decided the result.
      variants: of each measure, by what was changed; empty unless stability was asked for.
      purification: what the maps gain in telling OOD images, where a suite was given.
    """

    model: LoadedModel = field(repr=False)
    images: ImageSet = field(repr=False)
    measures: Mapping[str, Measure]
    findings: tuple[Finding, ...] = field(repr=False)
    shown: tuple[Subject, ...] = field(repr=False)
    skipped: tuple[Skipped, ...]
    seed: int
    settings: Mapping[str, object] = field(default_factory=dict)
    variants: Mapping[Measure, Mapping[str, Sequence[Measure]]] = field(default_factory=dict)
    purification: Purification | None = None

    @cached_property
    def columns(self) -> dict[str, ColumnValues]:
        """By measure (and column, where a measure has several): a value an image and method."""
        return columns_of(self.findings, self.measures)

    @cached_property
    def table(self) -> tuple[Cell, ...]:
        """A cell a column and method: mean over images, interval, rank, images won."""
        return tuple(
            cell for column in self.columns.values() for cell in cells_of(column, self.seed)
        )

    def values(self, column: str) -> dict[str, Float[np.ndarray, " n"]]:
        """By method, a value an image."""
        return dict(self.columns[column].values)

    @property
    def random_wins(self) -> dict[str, dict[str, list[str]]]:
        """By column and method: images on which the random maps are as good, or better."""
        found: dict[str, dict[str, list[str]]] = {}
        for name, column in self.columns.items():
            for method, images in column.images.items():
                gains = gains_over_random(column, method)
                if gains is not None:
                    lost = [image for image, gain in zip(images, gains, strict=True) if gain <= 0]
                    found.setdefault(name, {})[method] = lost
        return found

    @cached_property
    def stability(self) -> list[Movement]:
        """How much each column moves with seed, baseline and resolution."""
        return movements(self.findings, self.variants)

    def __str__(self) -> str:
        lines = skipped_lines("images", self.skipped, len(self.images))
        lines.append(table(self.table))
        ranks = mean_ranks(self.table)
        if len(self.columns) > 1 and ranks:
            told = ", ".join(f"{method} {rank:.1f}" for method, rank in ranks.items())
            lines.append(f"mean rank: {told}")
        if self.stability:
            lines += ["", movement_table(self.stability)]
        if self.purification is not None:
            lines += ["", str(self.purification)]
        return "\n".join(lines)

    def save(self, folder: Path | str, *, figures: str = "png") -> Path:
        """Writes values.csv, table.csv, table.md, curves.csv, faithfulness.json and pictures.

        report.html has it all in one file, and the first images under their maps.

        Args:
          figures: the format of the pictures: "png", "svg" or "pdf".
        """
        check_format(figures)
        folder = Path(folder)
        about = manifest(
            self.settings,
            self.model,
            {"images": (self.images, self.skipped)},
            measures={key: measure.identity() for key, measure in self.measures.items()},
        )
        put_aside(folder, FILES, about)
        curves = curves_of(self.findings, self.measures, self.seed)
        write_results(folder, self.columns, self.table, curves, self.measures)
        found: dict[str, object] = {
            "table": [vars(cell) for cell in self.table],
            "mean_ranks": mean_ranks(self.table),
            "random_wins": self.random_wins,
            "stability": [vars(one) for one in self.stability],
        }
        purified = None
        if self.purification is not None:
            gain, agreement = self.purification.gain, self.purification.agreement(self.table)
            purified = Purified(**asdict(self.purification), gain=gain, agreement=agreement)
            found["purification"] = purified._asdict()
        write_json(folder / "faithfulness.json", found)
        draw_table(folder / f"faithfulness.{figures}", self.table)
        if curves:
            draw_curves(folder / f"curves.{figures}", curves, self.measures)
        told = Found(
            self.columns,
            self.table,
            curves,
            self.measures,
            self.random_wins,
            self.stability,
            purified,
        )
        notes = skipped_lines("images", self.skipped, len(self.images))
        title = f"How faithful maps of {self.model.label} are"
        page = faithfulness_page(title, notes, told, self._pictured(), about)
        write_whole(folder / "report.html", page.encode())
        write_json(folder / "manifest.json", about)
        return folder

    def _pictured(self) -> Iterator[Pictured]:
        """The images shown: whole, where they can be read again, else what the model saw."""
        names, shades = unique(self.images.ids), palette()
        chosen = np.array([names.index(subject.id) for subject in self.shown], int)
        found: dict[int, Whole] = {}
        if len(chosen):
            some, preprocessing = self.images.subset(chosen), self.model.preprocessing
            with closing(wholes(some, preprocessing, len(chosen))) as pictures:
                found = dict(pictures)
        for row, subject in enumerate(self.shown):
            picture = found.get(row, uncut(subject.image))
            maps = {name: map for name, map in subject.maps.items() if _is_shown(name)}
            grey = heats(np.stack(list(maps.values())), subject.size)
            drawn = {
                name.partition("/")[0]: laid_over(picture.pixels, picture.inside, shades[heat], 1.0)
                for name, heat in zip(maps, grey, strict=True)
            }
            target = self.model.class_names[subject.target]
            yield Pictured(subject.id, target, picture.pixels, drawn)


def _is_shown(name: str) -> bool:
    """All maps, but of the random ones the first."""
    return name == f"{RANDOM}/0" or not name.startswith(f"{RANDOM}/")


def chosen_measures(measures: MeasureSource | None, objects: bool = False) -> dict[str, Measure]:
    """Measures by key; None: all that compute no map again, those of localisation with `objects`.

    Raises:
      UsageError: see `jaxood.perturbation.measures.measure`.
    """
    if measures is None:
        kinds = MEASURES.values()
        return measures_of([kind for kind in kinds if not kind.again and kind.places <= objects])
    several = [measures] if isinstance(measures, str | type | Measure) else list(measures)
    require(bool(several), "measures", "none", "one or more")
    return measures_of(several)


def faithfulness(
    model: ModelSource | None,
    images: Any = None,
    methods: AttributionSource | Sequence[AttributionSource] | None = None,
    *,
    measures: MeasureSource | None = None,
    maps: Mapping[str, MapSource] | None = None,
    random_maps: int = 3,
    objects: Path | str | None = None,
    suite: str | Suite | None = None,
    stability: bool = False,
    target: str | int | None = None,
    batch_size: BatchSize = DEFAULT,
    seed: int = 0,
    store: Path | str | None = None,
    progress: Progress | None = None,
    suite_progress: SetProgress | None = None,
) -> FaithfulnessResult:
    """Measures maps by many measures at once, random maps always beside them.

    Maps of a layer are enlarged as they are, bicubically; `jaxood.road` gives them SOFA's contrast
    first, unless told otherwise.

    Args:
      model: see `jaxood.load_model`; None: the one that belongs to the suite.
      images: paths, folders, lists, PIL images, uint8 arrays of any size, or an image set; None:
        the ID test set of the suite.
      methods: attributions, as for `jaxood.attribute`; None: banzhaf, unless `maps` are given.
      measures: names such as "insertion[baseline=mean]", import paths or objects (see
        `jaxood.list_measures`); None: all but those that compute maps again.
      maps: maps from elsewhere by name: an NPZ file with `ids` and an array of that name (as
        `attribute` writes them), or an array [n, h, w], a map an image.
      random_maps: so many an image, whose mean is the baseline.
      objects: where the objects are, for measures of localisation: a folder of XML boxes (PASCAL
        VOC's, ImageNet's) or of PNG masks, named as the images are, or a JSON file of COCO's.
      suite: also tells what SFP by each map gains in telling this suite's OOD images.
      stability: also tells how much each measure moves with seed, baseline and resolution, by
        measuring its variants: several times the work.
      target: class to follow, by index, name or WordNet id; None: each image's top class.
      batch_size: altered images a step.
      seed: of every draw; an image's draws depend on its name and on nothing else.
      store: folder for measured.jsonl, from which an interrupted run goes on.
      progress: told how many altered images are classified, and how many there are, about.
      suite_progress: of the evaluation on `suite`; see `jaxood.evaluate`.

    Raises:
      UsageError: for a wrong argument or map, before an image is read where that is possible.
    """
    require_seed("seed", seed)
    chosen = chosen_measures(measures, objects is not None)
    if objects is None and (placed := [one for one in chosen.values() if one.places]):
        raise UsageError("objects", "none", f"boxes or masks for measure {placed[0].key}")
    data = None if suite is None else suite_of(suite)
    if data is not None:
        images = data.id_test if images is None else images
        model = model_of_suite(data.name) if model is None else model
    require(images is not None, "images", "none", "images, or a suite")
    require(model is not None, "model", "none", "a model, or a suite that has one")
    source = maps_of_images(
        model,  # type: ignore[arg-type]  # it is not None
        images,
        methods,
        maps,
        random_maps=random_maps,
        target=target,
        scale=None,
        batch_size=batch_size,
        group=GROUP,
        seed=seed,
    )
    if not source.extractors and (again := [one for one in chosen.values() if one.again]):
        wanted = "methods, whose maps can be computed again"
        raise UsageError("methods", f"none, and measure {again[0].key}", wanted)
    if objects is not None:
        region = regions(objects, source.images.ids, source.runner.model.preprocessing)
        source = replace(source, region=region, objects=regions_fingerprint(objects))
    variants = {one: one.variants for one in chosen.values()} if stability else {}
    others = (
        one for by_change in variants.values() for found in by_change.values() for one in found
    )
    every = {one.key: one for one in (*chosen.values(), *others)}
    several = sum(map(_is_shown, source.wanted))
    most = max(1, IN_PAGE // several)
    findings, skipped, subjects = measured(source, list(every.values()), store, progress, most)
    ids = {finding.id for finding in findings}
    names = [name for name in source.names if name in ids][:most]
    purified = None
    if data is not None:
        kept = None if store is None else Path(store) / "features"
        purified = purification(
            source.runner.model,
            data,
            source.extractors,
            source.batch_size,
            seed,
            kept,
            suite_progress,
        )
    return FaithfulnessResult(
        source.runner.model,
        source.images,
        chosen,
        tuple(findings),
        tuple(source.named(names, subjects)),
        tuple(skipped),
        seed,
        {
            "methods": {name: one.identity() for name, one in source.extractors.items()},
            "maps": list(source.given),
            "measures": list(chosen),
            "random_maps": random_maps,
            "objects": None if objects is None else str(objects),
            "suite": None if data is None else data.name,
            "stability": stability,
            "target": target,
            "batch_size": source.batch_size,
            "seed": seed,
        },
        variants,
        purified,
    )
