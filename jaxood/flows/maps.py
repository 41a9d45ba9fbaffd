"""Every map of every image that a measure is to see: computed, from elsewhere, and random."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float

from jaxood.attribution.heatmap import heatmap, upsample
from jaxood.attribution.registry import attributions
from jaxood.context import Attribution
from jaxood.data.class_names import find_class
from jaxood.data.images import ImageSet
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, require
from jaxood.files import fingerprint
from jaxood.flows.attribute import AttributionSource, Scale, several
from jaxood.flows.sources import ModelSource, load_model
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.maps import MapSource, read_maps, unique
from jaxood.perturbation.measure import Measure
from jaxood.perturbation.subject import RANDOM, Subject, image_number
from jaxood.processes import is_first
from jaxood.runner.batch_size import AUTO, BatchSize
from jaxood.runner.features import Skipped
from jaxood.runner.runner import MOST_ROWS, Runner, skipped_of

RANDOM_GRID = (7, 7)  # positions of a random map, for a model without a feature map
MOST_MAPS = 1_000

Region = Callable[[int], Bool[np.ndarray, "h w"] | None]  # by an image's index


@dataclass(frozen=True)
class MapsOfImages:
    """Where every map of an image comes from.

    Attributes:
      names: of each image, all different.
      given: maps from elsewhere, by method and image's index; None where there is none.
      target: class to follow; None: each image's top class.
      scale: contrast of a map before it is enlarged; None: it is enlarged as it is.
      batch_size: altered images a step.
      group: images whose maps are computed at once.
      region: where the object of an image is.
      objects: changes when what `region` says does.
    """

    runner: Runner
    images: ImageSet
    names: Sequence[str]
    extractors: Mapping[str, Attribution]
    given: Mapping[str, Sequence[np.ndarray | None]]
    random_maps: int
    target: int | None
    scale: Scale | None
    batch_size: int
    group: int
    seed: int
    region: Region = lambda index: None
    objects: str = ""

    @property
    def wanted(self) -> list[str]:
        return [*self.extractors, *self.given, *(f"{RANDOM}/{i}" for i in range(self.random_maps))]

    def of(
        self, indices: Sequence[int], skipped: list[Skipped]
    ) -> Generator[list[Subject], None, None]:
        """Images with every map that is asked for, as they are read."""
        side = self.runner.model.preprocessing.crop
        grid, chosen = self._grid(side), np.asarray(indices, int)
        enlarge = jax.jit(partial(_enlarged, (side, side), self.scale))
        some = self.images.subset(chosen)
        stream = self.runner.stream(
            some,
            tuple(self.extractors.values()),
            batch_size=self.group,
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
                yield [
                    Subject(
                        name,
                        batch.images[valid[row]],
                        int(targets[row]),
                        {method: rows[row] for method, rows in maps.items()},
                        self.region(int(indices_of_rows[row])),
                    )
                    for row, name in enumerate(names)
                ]

    def named(self, names: Sequence[str], kept: Sequence[Subject]) -> list[Subject]:
        """Images by name: those that were kept, and in the first process the others, computed."""
        found = {subject.id: subject for subject in kept}
        lacking = [self.names.index(name) for name in names if name not in found]
        if lacking and is_first():
            found |= {one.id: one for subjects in self.of(lacking, []) for one in subjects}
        return [found[name] for name in names if name in found]

    def _random(self, draw: int, name: str, grid: tuple[int, int]) -> Float[np.ndarray, "h w"]:
        generator = np.random.default_rng([self.seed, draw, image_number(name)])
        return generator.random(grid, np.float32)

    def _grid(self, side: int) -> tuple[int, int]:
        model = self.runner.model
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.dtype(model.array_type))
        shape = nnx.eval_shape(lambda model, x: model(x), model.module, image).feature_map
        return RANDOM_GRID if shape is None else shape.shape[1:3]

    def fingerprints(self, measure: Measure) -> dict[str, str]:
        """By method: changes with anything that what a measure says of its maps depends on."""

        def digest(name: str) -> object:
            if name in self.given:
                return fingerprint(
                    [None if row is None else row.tobytes() for row in self.given[name]]
                )
            return self.extractors[name].identity() if name in self.extractors else name

        model = self.runner.model.identity()
        objects = self.objects if measure.places else ""
        about = (model, measure.identity() + objects, self.seed, self.scale, self.target)
        return {name: fingerprint(*about, digest(name)) for name in self.wanted}


def _enlarged(size: tuple[int, int], scale: Scale | None, maps):
    return upsample(maps, size) if scale is None else heatmap(maps, size, scale)


def maps_of_images(
    model: ModelSource,
    images: Any,
    methods: AttributionSource | Sequence[AttributionSource] | None,
    maps: Mapping[str, MapSource] | None,
    *,
    random_maps: int,
    target: str | int | None,
    scale: Scale | None,
    batch_size: BatchSize,
    group: int = MOST_ROWS,
    seed: int,
) -> MapsOfImages:
    """Reads and checks what there is to measure, before an image is read where that is possible.

    Args:
      methods: None: banzhaf, unless `maps` are given.
      batch_size: of the altered images that follow.
      group: images whose maps are computed at once, at most; never more than `batch_size`.

    Raises:
      UsageError: for a wrong argument or map.
    """
    require(1 <= random_maps <= MOST_MAPS, "random_maps", random_maps, f"1 to {MOST_MAPS}")
    if methods is None and not maps:
        methods = "banzhaf"
    extractors = attributions([] if methods is None else several(methods))
    found = image_set(images)
    given = read_maps(maps or {}, found.ids, list(extractors))
    runner = Runner(load_model(model))
    if batch_size == AUTO:
        batch_size = runner.check((), AUTO)
    group = runner.check(tuple(extractors.values()), min(group, batch_size), len(found))
    number = None if target is None else find_class(str(target), runner.model.class_names)
    _check_lacking(given, found, runner.model)
    return MapsOfImages(
        runner,
        found,
        unique(found.ids),
        extractors,
        given,
        random_maps,
        number,
        scale,
        batch_size,
        group,
        seed,
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
