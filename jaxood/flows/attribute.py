"""Which places of an image a decision rests on: maps by several methods, in one pass."""

import logging
import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jaxood.attribution.heatmap import heats
from jaxood.attribution.registry import attributions
from jaxood.context import Attribution
from jaxood.data.class_names import find_class
from jaxood.data.images import ImageSet
from jaxood.data.shares import require_same_images
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, choose, require, require_seed
from jaxood.files import write_whole
from jaxood.flows.evaluate import SetProgress, skipped_lines
from jaxood.flows.sources import ModelSource, load_model
from jaxood.models.registry import LoadedModel
from jaxood.report.attribution_page import Explained, attribution_page
from jaxood.report.figures import check_format, figure_image, write_figure
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.pictures import COLOURS, blended, grid_figure, overlay, palette, write_png
from jaxood.report.tables import write_arrays
from jaxood.runner.features import Features, Skipped
from jaxood.runner.runner import Runner

FILES = ("maps.npz", "overlays", "predictions.json", "grid.png", "report.html", "manifest.json")
IN_PAGE = 50  # images, the first ones
SHOWN = 5  # predictions that are printed
BATCH = 32  # images whose pictures are drawn at once
SCALES = ("paper", "unit")

AttributionSource = str | Attribution | type[Attribution]

Scale = Literal["paper", "unit"]
Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class AttributionResult:
    """What `attribute` found; a row an image that could be decoded.

    Attributes:
      images: the image set, of which `indices` could be decoded.
      maps: by method; one value a position of a layer, or a pixel.
      target: the class that the maps explain.
      scale: contrast of pictures, see `jaxood.attribution.heatmap.heatmap`.
      settings: what else decided the result.
    """

    model: LoadedModel = field(repr=False)
    images: ImageSet = field(repr=False)
    maps: Mapping[str, Float[np.ndarray, "n h w"]] = field(repr=False)
    target: Int[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n k"] = field(repr=False)
    indices: Int[np.ndarray, " n"]
    skipped: tuple[Skipped, ...]
    top: int = 5
    scale: Scale = "paper"
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return [self.images.ids[index] for index in self.indices]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """Of each image: its name, its `top` classes, and the class explained."""
        return [{"image": name, **self._prediction(row)} for row, name in enumerate(self.ids)]

    def _prediction(self, row: int) -> dict[str, Any]:
        probabilities, names = self.probabilities[row], self.model.class_names

        def entry(index: int) -> dict[str, Any]:
            probability = float(probabilities[index])
            return {"class": index, "name": names[index], "probability": probability}

        best = np.argsort(-probabilities, kind="stable")[: self.top]
        return {
            "predicted": [entry(int(index)) for index in best],
            "target": entry(int(self.target[row])),
        }

    def _caption(self, row: int) -> str:
        """The file's name, and what `caption` says."""
        name = textwrap.fill(PurePath(self.ids[row]).name, 20)
        return f"{name}\n{caption(self._prediction(row))}"

    def __str__(self) -> str:
        lines = skipped_lines("images", self.skipped, len(self.images))
        for row, name in enumerate(self.ids[:SHOWN]):
            top = self._prediction(row)["predicted"][0]
            lines.append(f"{name}: {top['name']} ({100 * top['probability']:.1f} %)")
        if len(self.indices) > SHOWN:
            lines.append(f"... and {len(self.indices) - SHOWN} more images")
        return "\n".join(lines)

    def heats(self, rows: slice) -> dict[str, UInt8[np.ndarray, "n H W"]]:
        """By method, maps at the image's size, 0 to 255."""
        size = (self.model.preprocessing.crop,) * 2
        return {name: heats(maps[rows], size, self.scale) for name, maps in self.maps.items()}

    def overlays(
        self, colours: str = COLOURS, alpha: float = 0.5
    ) -> Generator[tuple[int, Picture, dict[str, Picture]], None, None]:
        """Row, cropped image, and the image under each method's colours.

        Images are read again, as they are not kept in memory.
        """
        shades = palette(colours)
        chosen = self.images.subset(self.indices)
        batches = chosen.batches(self.model.preprocessing, min(BATCH, len(chosen)))
        with closing(batches):
            for batch in batches:
                first = int(batch.indices[0])
                heats = self.heats(slice(first, first + BATCH))
                for i in np.flatnonzero(batch.valid):
                    image = batch.images[i]
                    drawn = {
                        name: overlay(image, heat[i], shades, alpha) for name, heat in heats.items()
                    }
                    yield first + int(i), image, drawn

    def save(
        self,
        folder: Path | str,
        *,
        colours: str = COLOURS,
        alpha: float = 0.5,
        grid: int = 8,
        figures: str = "png",
    ) -> Path:
        """Writes maps.npz, overlays/, grid.png, predictions.json, report.html and manifest.json.

        Args:
          colours: a colour map of matplotlib.
          alpha: share of the colours in an overlay.
          grid: images in grid.png, the first ones.
          figures: the format of the grid: "png", "svg" or "pdf".
        """
        check_format(figures)
        check_pictures(colours, alpha, grid)
        folder, shown, explained, written = Path(folder), [], [], 0
        about = manifest(self.settings, self.model, {"images": (self.images, self.skipped)})
        put_aside(folder, FILES, about)
        arrays = {"ids": np.array(self.ids), "target": self.target, **self.maps}
        write_arrays(folder / "maps.npz", arrays)
        for row, image, coloured in self.overlays(colours, alpha=1.0):
            index, told = self.indices[row], self._prediction(row)
            written += 1
            drawn = {name: blended(image, above, alpha) for name, above in coloured.items()}
            stem = f"{index:05d}-{PurePath(self.images.ids[index]).stem}"
            for name, picture in drawn.items():
                write_png(folder / "overlays" / f"{stem}.{name}.png", picture)
            if row < IN_PAGE:
                classes = told["predicted"], told["target"]
                explained.append(Explained(self.ids[row], *classes, image, coloured))
            if row < grid:
                shown.append((image, self._caption(row), drawn))
        skipped = {image.id: image.reason for image in self.skipped}
        found = {"model": self.model.name, "images": self.predictions, "skipped": skipped}
        write_json(folder / "predictions.json", found)
        if written < len(self.indices):
            gone = len(self.indices) - written
            logging.getLogger("jaxood").warning("no overlays of images that are gone: %d", gone)
        if shown:
            write_figure(folder / f"grid.{figures}", _grid(shown, list(self.maps), colours))
        notes = skipped_lines("images", self.skipped, len(self.images))
        if len(self.indices) > IN_PAGE:
            notes.append(f"the first {IN_PAGE} of {len(self.indices)} images")
        title = f"What {self.model.label} looks at"
        page = attribution_page(title, notes, explained, about)
        write_whole(folder / "report.html", page.encode())
        write_json(folder / "manifest.json", about)
        return folder

    def show(self, rows: int = 8, *, colours: str = COLOURS, alpha: float = 0.5) -> Image.Image:
        """The first images beside their maps, as a picture: a notebook shows it as it is."""
        shown = []
        with closing(self.overlays(colours, alpha)) as overlays:
            for row, image, drawn in overlays:
                shown.append((image, self._caption(row), drawn))
                if row + 1 == rows:
                    break
        require(shown, "images", "none that can be read again", "those that were attributed")
        return figure_image(_grid(shown, list(self.maps), colours))


def check_pictures(colours: str, alpha: float, grid: int) -> None:
    """Raises UsageError for what `AttributionResult.save` cannot draw; before a pass."""
    palette(colours)
    require(0 < alpha <= 1, "alpha", alpha, "above 0 and at most 1")
    require(grid >= 1, "grid", grid, "at least 1")


def _grid(shown, methods: Sequence[str], colours: str):
    """Cropped images, captions and overlays as a figure."""
    cropped, captions, overlays = zip(*shown, strict=True)
    columns = {name: np.stack([drawn[name] for drawn in overlays]) for name in methods}
    return grid_figure(np.stack(cropped), captions, columns, colours)


def caption(prediction: Mapping[str, Any]) -> str:
    """The explained class, and the top class where that is another."""
    top, target = prediction["predicted"][0], prediction["target"]
    lines = [f"{textwrap.fill(target['name'], 18)}\n{100 * target['probability']:.1f} %"]
    if top["class"] != target["class"]:
        lines.append(f"(top: {textwrap.fill(top['name'], 18)}\n{100 * top['probability']:.1f} %)")
    return "\n".join(lines)


def attribute(
    model: ModelSource,
    images: Any,
    methods: AttributionSource | Sequence[AttributionSource] = "banzhaf",
    *,
    target: str | int | None = None,
    layer: str | None = None,
    coalitions: int | Literal["auto"] | None = None,
    explain: Literal["probability", "energy"] | None = None,
    samples: int | None = None,
    scale: Scale = "paper",
    top: int = 5,
    batch_size: int = 32,
    seed: int = 0,
    store: Path | str | None = None,
    progress: SetProgress | None = None,
) -> AttributionResult:
    """Attributes each image's class to its places, by one or several methods in one pass.

    Args:
      model: see `jaxood.load_model`.
      images: paths, folders, lists, PIL images, uint8 arrays of any size, or an image set.
      methods: names, such as "banzhaf" or "score-cam[layer=layer3.5]", import paths or objects.
      target: class to explain, by index, name or WordNet id; None: each image's top class.
      layer: stage for activation maps; None: the model's choice.
      coalitions: random subsets of positions for banzhaf and shapley; "auto": until the ranking
        is stable; None: 240.
      explain: what banzhaf and shapley attribute; None: the class's probability.
      samples: copies of an image for smoothgrad-cam++, smoothgrad, ss-cam, is-cam; None: theirs.
      scale: contrast of pictures: "paper", 2^(z/2) as SOFA's, or "unit", the values as they are.
      top: classes told of each image.
      seed: of the draws, the same for every image.
      store: folder where maps are kept, for an interrupted run to go on.
      progress: given a set's name, returns what is told (images done, images in all).

    Raises:
      UsageError: when a method and the model do not go together, before an image is read; when no
        image can be decoded.
    """
    require_seed("seed", seed)
    choose("scale", scale, SCALES)
    require(top >= 1, "top", top, "at least 1")
    chosen = attributions(
        several(methods), layer=layer, coalitions=coalitions, explain=explain, samples=samples
    )
    found = image_set(images)
    loaded = load_model(model)
    number = None if target is None else find_class(str(target), loaded.class_names)
    runner, extractors = Runner(loaded), tuple(chosen.values())
    runner.check(extractors, batch_size, len(found))
    require_same_images([found])
    features = runner.extract(
        found,
        extractors,
        batch_size=batch_size,
        target=number,
        seed=seed,
        store=Path(store) if store else None,
        progress=progress("images") if progress else None,
    )
    for name, maps in features.extras.items():
        wrong = [row for row, one in enumerate(maps) if not np.isfinite(one).all()]
        if wrong:
            first = found.ids[features.indices[wrong[0]]]
            got = f"{name} of {len(wrong)} images that is not finite"
            raise UsageError("methods", got, "finite maps", f"The first: {first}")
    settings = {
        "methods": list(chosen),
        "target": target,
        "scale": scale,
        "batch_size": batch_size,
        "seed": seed,
    }
    return AttributionResult(
        loaded,
        found,
        dict(features.extras),
        explained(features, number),
        np.asarray(jax.nn.softmax(features.logits)),
        features.indices,
        features.skipped,
        top,
        scale,
        settings,
    )


def several(methods: AttributionSource | Sequence[AttributionSource]) -> list[AttributionSource]:
    """One or several attributions as a list; see `jaxood.attribution.registry.attributions`."""
    found = [methods] if isinstance(methods, str | type | Attribution) else list(methods)
    require(bool(found), "methods", "none", "one or more")
    return found


def explained(features: Features, target: int | None) -> Int[np.ndarray, " n"]:
    """The class that each image's maps explain."""
    if target is None:
        return features.predicted.astype(np.int32)
    return np.full(len(features), target, np.int32)
