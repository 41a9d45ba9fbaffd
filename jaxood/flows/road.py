"""How faithful attribution maps are: pixels are removed, and the class watched (ROAD)."""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxood.attribution.heatmap import heatmap
from jaxood.attribution.registry import attributions
from jaxood.data.class_names import find_class
from jaxood.data.images import ImageSet
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, choose, require
from jaxood.files import fingerprint
from jaxood.flows.attribute import SCALES, AttributionSource, Scale, several
from jaxood.flows.evaluate import require_seed, skipped_lines
from jaxood.flows.sources import ModelSource, load_model
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.maps import MapSource, read_maps, unique
from jaxood.perturbation.results import (
    RANDOM,
    append_curves,
    join_random,
    load_curves,
    summary,
)
from jaxood.perturbation.road import (
    ORDERS,
    Curves,
    Explained,
    RoadSettings,
    image_number,
    perturbed_images,
    road_curves,
)
from jaxood.report.curves import draw_curves, draw_strip, table, write_results
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.runner.features import Skipped
from jaxood.runner.runner import Progress, Runner, skipped_of

RANDOM_GRID = (7, 7)  # positions of a random map, for a model without a feature map
CURVES = "curves.jsonl"
FILES = ("curves.csv", "areas.csv", "curves.json", "road.png", "strip.png", "manifest.json")
MOST_STEPS, MOST_MAPS = 10_000, 1_000
STRIP = 6  # fractions that the strip shows


@dataclass(frozen=True)
class RoadResult:
    """What `road` found.

    Attributes:
      curves: one an image and map, in the order of methods and images; random maps singly.
      summary: mean curves and areas with intervals, by method.
      sample: the first image with its maps, for the strip.
      strip: indices among the fractions of those that the strip shows.
      settings: what else decided the result.
    """

    model: LoadedModel = field(repr=False)
    images: ImageSet = field(repr=False)
    road: RoadSettings
    curves: tuple[Curves, ...] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    sample: tuple[Explained, ...] = field(repr=False)
    strip: tuple[int, ...]
    skipped: tuple[Skipped, ...]
    seed: int
    settings: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        skipped = skipped_lines("images", self.skipped, len(self.images))
        return "\n".join([*skipped, table(dict(self.summary))])

    def areas(self) -> dict[str, Float[np.ndarray, "n 3"]]:
        """By method, the areas of each image: MoRF, LeRF, half their difference."""
        return {
            method: np.array([curve.areas(self.road.fractions) for curve in images.values()])
            for method, images in join_random(self.curves).items()
        }

    def save(self, folder: Path | str) -> Path:
        """Writes curves.csv, areas.csv, curves.json, manifest.json, road.png and strip.png."""
        folder = Path(folder)
        found = dict(self.summary)
        about = manifest(
            self.settings,
            self.model,
            {"images": (self.images, self.skipped)},
            road=found["settings"],
        )
        put_aside(folder, FILES, about)
        write_results(folder, join_random(self.curves), found)
        draw_curves(folder / "road.png", found)
        if self.sample:
            self._draw_strip(folder / "strip.png")
        else:
            logging.getLogger("jaxood").warning("the first image is gone: no strip.png")
        write_json(folder / "manifest.json", about)
        return folder

    def _draw_strip(self, path: Path) -> None:
        shown = list(self.strip)
        items = [item for item in self.sample if not item.method.startswith(f"{RANDOM}/")]
        items.append(next(item for item in self.sample if item.method == f"{RANDOM}/0"))
        pictures = perturbed_images(self.model, items, self.road, self.seed)[:, shown]
        name = items[0].id
        confidence = {c.method: c.confidence for c in self.curves if c.id == name}
        draw_strip(
            path,
            pictures,
            [(item.method.partition("/")[0], order) for item in items for order in ORDERS],
            [self.road.fractions[i] for i in shown],
            [row[shown] for item in items for row in confidence[item.method]],
            f"{name.rpartition('/')[2]}: what the model saw, and the probability of the class",
        )


def strip_indices(chosen: Sequence[float] | None, fractions: tuple[float, ...]) -> list[int]:
    """Indices among the fractions of those that the strip shows.

    Raises:
      UsageError: for a fraction that is not measured.
    """
    if chosen is None:
        indices = np.linspace(0, len(fractions) - 1, min(STRIP, len(fractions)))
        return sorted(set(indices.round().astype(int).tolist()))
    for fraction in chosen:
        if min(abs(fraction - measured) for measured in fractions) > 1e-9:
            listed = " ".join(f"{measured:g}" for measured in fractions)
            raise UsageError("strip", fraction, f"one of the fractions measured: {listed}")
    return [int(np.argmin(np.abs(np.asarray(fractions) - fraction))) for fraction in chosen]


@dataclass(frozen=True)
class _Maps:
    """Where every map of an image comes from.

    Attributes:
      names: of each image, all different.
      given: maps from elsewhere, by method and image's index; None where there is none.
      target: class to follow; None: each image's top class.
    """

    runner: Runner
    images: ImageSet
    names: Sequence[str]
    extractors: Mapping[str, Any]
    given: Mapping[str, Sequence[np.ndarray | None]]
    random_maps: int
    target: int | None
    scale: Scale
    batch_size: int
    seed: int

    @property
    def wanted(self) -> list[str]:
        return [*self.extractors, *self.given, *(f"{RANDOM}/{i}" for i in range(self.random_maps))]

    def of(
        self, indices: Sequence[int], skipped: list[Skipped]
    ) -> Generator[Explained, None, None]:
        """Images with every map that is asked for, as they are read."""
        side = self.runner.model.preprocessing.crop
        grid, chosen = self._grid(side), np.asarray(indices, int)
        enlarge = jax.jit(partial(heatmap, size=(side, side), scale=self.scale))
        some = self.images.subset(chosen)
        stream = self.runner.stream(
            some,
            tuple(self.extractors.values()),
            batch_size=self.batch_size,
            target=self.target,
            seed=self.seed,
        )
        with closing(stream):  # type: ignore[type-var]  # a generator
            for batch, found in stream:
                skipped += [
                    replace(image, index=int(chosen[image.index]))
                    for image in skipped_of(batch, some)
                ]
                valid = np.flatnonzero(batch.valid)
                if not len(valid):
                    continue
                indices_of_rows = chosen[batch.indices[valid]]
                names = [self.names[index] for index in indices_of_rows]
                maps = {name: np.asarray(found.extras[name])[valid] for name in self.extractors}
                maps |= {
                    name: np.stack([rows[i] for i in indices_of_rows])
                    for name, rows in self.given.items()
                }
                for i in range(self.random_maps):
                    maps[f"{RANDOM}/{i}"] = np.stack([self._random(i, n, grid) for n in names])
                maps = {
                    name: rows if rows.shape[1:] == (side, side) else np.asarray(enlarge(rows))
                    for name, rows in maps.items()
                }
                targets = np.asarray(found.logits)[valid].argmax(axis=1)
                if self.target is not None:
                    targets = np.full(len(valid), self.target)
                for row, name in enumerate(names):
                    image, target = batch.images[valid[row]], int(targets[row])
                    for method, rows in maps.items():
                        yield Explained(name, image, target, method, rows[row])

    def _random(self, draw: int, name: str, grid: tuple[int, int]) -> Float[np.ndarray, "h w"]:
        generator = np.random.default_rng([self.seed, draw, image_number(name)])
        return generator.random(grid, np.float32)

    def _grid(self, side: int) -> tuple[int, int]:
        model = self.runner.model
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.dtype(model.dtype))
        shape = nnx.eval_shape(lambda model, x: model(x), model.module, image).feature_map
        return RANDOM_GRID if shape is None else shape.shape[1:3]

    def fingerprints(self, road: RoadSettings) -> dict[str, str]:
        """By method: changes with anything that its curves depend on."""

        def digest(name: str) -> object:
            if name in self.given:
                return fingerprint(
                    [None if row is None else row.tobytes() for row in self.given[name]]
                )
            return self.extractors[name].identity() if name in self.extractors else name

        model = self.runner.model.identity()
        about = (model, road, self.seed, self.scale, self.target)
        return {name: fingerprint(*about, digest(name)) for name in self.wanted}


def road(
    model: ModelSource,
    images: Any,
    methods: AttributionSource | Sequence[AttributionSource] | None = None,
    *,
    maps: Mapping[str, MapSource] | None = None,
    random_maps: int = 3,
    target: str | int | None = None,
    scale: Scale = "paper",
    steps: int = 50,
    fractions: Sequence[float] | None = None,
    strip: Sequence[float] | None = None,
    convention: str = "exact",
    imputation: str = "linear",
    noise: float = 0.01,
    before_normalisation: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    store: Path | str | None = None,
    progress: Progress | None = None,
) -> RoadResult:
    """Measures how fast an image's class goes when what a map calls relevant is removed.

    MoRF removes the most relevant pixels first: a faithful map makes the probability fall fast, a
    small area is good. LeRF removes the least relevant first: a large area is good. Random maps
    always stand beside the methods (Rong et al., ICML 2022).

    Args:
      model: see `jaxood.load_model`.
      images: paths, folders, lists, PIL images, uint8 arrays of any size, or an image set.
      methods: attributions, as for `jaxood.attribute`; None: banzhaf, unless `maps` are given.
      maps: maps from elsewhere by name: an NPZ file with `ids` and an array of that name (as
        `attribute` writes them), or an array [n, h, w], a map an image.
      random_maps: so many an image, whose mean is the baseline.
      target: class to follow, by index, name or WordNet id; None: each image's top class.
      scale: contrast of a map before it is enlarged: "paper", 2^(z/2), or "unit", as it is.
      steps: fractions 0, 1/steps ... of the pixels are removed; `fractions`: these instead.
      strip: fractions shown in the strip of pictures; None: six of those measured.
      convention: "exact", so many pixels; "notebook", all at or above a percentile.
      imputation: "linear", "mean", "zero" or "blur".
      noise: standard deviation of what is added to removed pixels.
      before_normalisation: imputes values in [0, 1], as ROAD's authors do.
      store: folder for curves.jsonl, from which an interrupted run goes on.
      progress: told how many perturbed images are classified, and how many there are.

    Raises:
      UsageError: for a wrong argument or map, before an image is read where that is possible.
    """
    require_seed(seed)
    choose("scale", scale, SCALES)
    require(1 <= steps <= MOST_STEPS, "steps", steps, f"1 to {MOST_STEPS}")
    require(1 <= random_maps <= MOST_MAPS, "random_maps", random_maps, f"1 to {MOST_MAPS}")
    chosen = fractions if fractions is not None else [step / steps for step in range(steps)]
    settings = RoadSettings(
        tuple(sorted(set(chosen))), convention, imputation, noise, before_normalisation
    )
    shown = strip_indices(strip, settings.fractions)
    if methods is None and not maps:
        methods = "banzhaf"
    extractors = attributions([] if methods is None else several(methods))
    found = image_set(images)
    given = read_maps(maps or {}, found.ids, list(extractors))
    runner = Runner(load_model(model))
    runner.check(tuple(extractors.values()), batch_size, len(found))
    classes = runner.model.class_names
    number = None if target is None else find_class(str(target), classes)
    _check_lacking(given, found, runner.model)
    source = _Maps(
        runner,
        found,
        unique(found.ids),
        extractors,
        given,
        random_maps,
        number,
        scale,
        batch_size,
        seed,
    )
    curves, sample, skipped = _measured(source, settings, store, progress)
    joined = join_random(curves)
    return RoadResult(
        runner.model,
        found,
        settings,
        tuple(curves),
        summary(joined, settings, seed),
        tuple(sample),
        tuple(shown),
        tuple(skipped),
        seed,
        {
            "methods": {name: one.identity() for name, one in extractors.items()},
            "maps": list(given),
            "random_maps": random_maps,
            "target": target,
            "scale": scale,
            "batch_size": batch_size,
            "seed": seed,
        },
    )


def _check_lacking(
    given: Mapping[str, Sequence[np.ndarray | None]], images: ImageSet, model: LoadedModel
) -> None:
    """Only images that cannot be decoded may be without a map, as `attribute` leaves them out.

    Raises:
      UsageError: for another.
    """
    for name, maps in given.items():
        lacking = np.array([i for i, one in enumerate(maps) if one is None], int)
        if not len(lacking):
            continue
        with closing(images.subset(lacking).batches(model.preprocessing, 32)) as batches:
            for batch in batches:
                for i in batch.indices[batch.valid]:
                    got = f"no map {name} of {images.ids[lacking[i]]}"
                    raise UsageError("maps", got, "a map of every image")


def _measured(
    source: _Maps, settings: RoadSettings, store: Path | str | None, progress: Progress | None
) -> tuple[list[Curves], list[Explained], list[Skipped]]:
    """Curves of every image and map, those of an earlier run among them."""
    path = None if store is None else Path(store) / CURVES
    prints, wanted = source.fingerprints(settings), source.wanted
    index = {name: i for i, name in enumerate(source.names)}
    curves = [] if path is None else load_curves(path, prints)
    curves = [curve for curve in curves if curve.id in index]
    done = {(curve.id, curve.method) for curve in curves}
    todo = [i for name, i in index.items() if any((name, method) not in done for method in wanted)]
    sample: list[Explained] = []
    skipped: list[Skipped] = []
    work = 2 * len(settings.fractions)
    classified, total = 0, work * (len(index) * len(wanted) - len(done))

    def explained() -> Generator[Explained, None, None]:
        with closing(source.of(todo, skipped)) as items:
            for item in items:
                if not sample or item.id == sample[0].id:
                    sample.append(item)
                if (item.id, item.method) not in done:
                    yield item

    def told(images: int) -> None:
        nonlocal classified
        classified += images
        if progress:
            progress(classified, total - work * len(wanted) * len(skipped))

    if todo:
        told(0)
        with closing(explained()) as items:
            for curve in road_curves(
                source.runner,
                items,
                settings,
                batch_size=source.batch_size,
                seed=source.seed,
                progress=told,
            ):
                if path is not None:
                    append_curves(path, curve, prints[curve.method])
                curves.append(curve)
    if not curves:
        wrong = f"{len(index)}, none of which can be decoded"
        raise UsageError("images", wrong, "images", f"{skipped[0].id}: {skipped[0].reason}")
    curves.sort(key=lambda curve: (wanted.index(curve.method), index[curve.id]))
    first = curves[0].id
    if not sample or sample[0].id != first:  # it is from an earlier run
        sample = list(source.of([index[first]], []))
    return curves, sample, skipped
