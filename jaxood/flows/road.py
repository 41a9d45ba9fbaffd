"""How faithful attribution maps are: pixels are removed, and the class watched (ROAD)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxood.data.images import ImageSet
from jaxood.errors import UsageError, choose, require_seed
from jaxood.flows.attribute import SCALES, AttributionSource, Scale
from jaxood.flows.maps import maps_of_images
from jaxood.flows.measuring import measured
from jaxood.flows.sources import ModelSource
from jaxood.models.registry import LoadedModel
from jaxood.perturbation.maps import MapSource
from jaxood.perturbation.results import join_random, summary
from jaxood.perturbation.road import (
    ORDERS,
    Curves,
    Explained,
    Road,
    RoadSettings,
    curves_of,
    perturbed_images,
)
from jaxood.perturbation.subject import RANDOM
from jaxood.report.curves import draw_curves, draw_strip, table, write_results
from jaxood.report.figures import check_format
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.pictures import shortened
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Skipped, skipped_lines
from jaxood.runner.runner import Progress

FILES = ("curves.csv", "areas.csv", "curves.json", "road.png", "strip.png", "manifest.json")
STRIP = 6  # fractions that the strip shows


@dataclass(frozen=True)
class RoadResult:
    """What `road` found.

    Attributes:
      curves: one an image and map, in the order of methods and images; random maps singly.
      summary: mean curves and areas with intervals, by method.
      sample: the first image with its maps, for the strip; of several processes the first has it.
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

    def save(self, folder: Path | str, *, figures: str = "png") -> Path:
        """Writes curves.csv, areas.csv, curves.json, manifest.json, road.png and strip.png.

        Args:
          figures: the format of the pictures: "png", "svg" or "pdf".
        """
        check_format(figures)
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
        draw_curves(folder / f"road.{figures}", found)
        if self.sample:
            self._draw_strip(folder / f"strip.{figures}")
        else:
            logging.getLogger("jaxood").warning("the first image is gone: no strip.%s", figures)
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
            f"{shortened(PurePath(name).name, 60)}: what the model saw, "
            f"and the probability of {self.model.class_names[items[0].target]}",
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
    batch_size: BatchSize = DEFAULT,
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
      store: folder for measured.jsonl, from which an interrupted run goes on.
      progress: told how many perturbed images are classified, and how many there are.

    Raises:
      UsageError: for a wrong argument or map, before an image is read where that is possible.
    """
    require_seed("seed", seed)
    choose("scale", scale, SCALES)
    chosen = None if fractions is None else tuple(sorted(set(fractions)))
    measure = Road(steps, convention, imputation, noise, before_normalisation, chosen)
    settings = measure.settings
    shown = strip_indices(strip, settings.fractions)
    source = maps_of_images(
        model,
        images,
        methods,
        maps,
        random_maps=random_maps,
        target=target,
        scale=scale,
        batch_size=batch_size,
        seed=seed,
    )
    findings, skipped, kept = measured(source, [measure], store, progress)
    curves = [curves_of(finding) for finding in findings]
    sample = [
        Explained(first.id, first.image, first.target, method, given)
        for first in source.named([curves[0].id], kept)
        for method, given in first.maps.items()
    ]
    return RoadResult(
        source.runner.model,
        source.images,
        settings,
        tuple(curves),
        summary(join_random(curves), settings, seed),
        tuple(sample),
        tuple(shown),
        tuple(skipped),
        seed,
        {
            "methods": {name: one.identity() for name, one in source.extractors.items()},
            "maps": list(source.given),
            "random_maps": random_maps,
            "target": target,
            "scale": scale,
            "batch_size": source.batch_size,
            "seed": seed,
        },
    )
