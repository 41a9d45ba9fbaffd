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
from jaxood.data.decode import Whole
from jaxood.data.images import ImageSet, squares, wholes
from jaxood.data.shares import require_same_images
from jaxood.data.sources import image_set
from jaxood.errors import UsageError, choose, require, require_seed
from jaxood.files import write_whole
from jaxood.flows.sources import ModelSource, load_model
from jaxood.models.registry import LoadedModel
from jaxood.report.attribution_page import Explained, attribution_page
from jaxood.report.figures import check_format, figure_image, write_figure
from jaxood.report.manifest import manifest, put_aside, write_json
from jaxood.report.pictures import (
    COLOURS,
    grid_figure,
    laid_over,
    palette,
    shortened,
    write_png,
)
from jaxood.report.tables import write_arrays
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Features, Skipped, skipped_lines
from jaxood.runner.runner import Runner, SetProgress

FILES = (
    "maps.npz",
    "overlays",
    "strips",
    "predictions.json",
    "grid.png",
    "report.html",
    "manifest.json",
)
IN_PAGE = 50  # images, the first ones
SHOWN = 5  # predictions that are printed
BATCH = 32  # images whose pictures are drawn at once
LETTERS = 40  # of a file's name in another's, and in a caption
SCALES = ("paper", "unit")

AttributionSource = str | Attribution | type[Attribution]

Scale = Literal["paper", "unit"]
Picture = UInt8[np.ndarray, "_ _ 3"]


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
        name = textwrap.fill(shortened(PurePath(self.ids[row]).name, LETTERS), 20)
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
        self, colours: str = COLOURS, alpha: float = 0.5, *, cropped: bool = False
    ) -> Generator[tuple[int, Picture, dict[str, Picture]], None, None]:
        """Row, image, and the image under each method's colours.

        Images are read again, as they are not kept in memory: whole, with a frame around what the
        model saw of them, where the image set has more than that.

        Args:
          cropped: only what the model saw.
        """
        for row, picture, above in self._coloured(colours, cropped):
            yield row, picture.pixels, _over(picture, above, alpha)

    def _coloured(
        self, colours: str, cropped: bool
    ) -> Generator[tuple[int, Whole, dict[str, Picture]], None, None]:
        """Row, image, and each method's colours of what the model saw."""
        shades = palette(colours)
        chosen = self.images.subset(self.indices)
        read = squares if cropped else wholes
        first, heats = -BATCH, {}
        with closing(read(chosen, self.model.preprocessing, min(BATCH, len(chosen)))) as pictures:
            for row, picture in pictures:
                if row >= first + BATCH:
                    first = row - row % BATCH
                    heats = self.heats(slice(first, first + BATCH))
                above = {name: shades[heat[row - first]] for name, heat in heats.items()}
                yield row, picture, above

    def save(
        self,
        folder: Path | str,
        *,
        colours: str = COLOURS,
        alpha: float = 0.5,
        grid: int = 8,
        strips: int = 50,
        cropped: bool = False,
        figures: str = "png",
    ) -> Path:
        """Writes maps.npz, predictions.json, report.html, manifest.json and pictures.

        Pictures are overlays/, one an image and method; strips/, one an image, beside all its maps;
        grid.png, several images.

        Args:
          colours: a colour map of matplotlib.
          alpha: share of the colours in an overlay.
          grid: images in grid.png, the first ones.
          strips: images that have a strip, the first ones.
          cropped: pictures of what the model saw, not of whole images.
          figures: the format of strips and grid: "png", "svg" or "pdf".
        """
        check_format(figures)
        check_pictures(colours, alpha, grid, strips)
        folder, shown, explained, written = Path(folder), [], [], 0
        about = manifest(self.settings, self.model, {"images": (self.images, self.skipped)})
        put_aside(folder, FILES, about)
        arrays = {"ids": np.array(self.ids), "target": self.target, **self.maps}
        write_arrays(folder / "maps.npz", arrays)
        for row, picture, above in self._coloured(colours, cropped):
            index, told = self.indices[row], self._prediction(row)
            written += 1
            drawn = _over(picture, above, alpha)
            name = PurePath(self.images.ids[index]).stem[:LETTERS]
            stem = f"{index:05d}-{name}"
            for method, overlay in drawn.items():
                write_png(folder / "overlays" / f"{stem}.{method}.png", overlay)
            if row < IN_PAGE:
                classes = told["predicted"], told["target"]
                whole = _over(picture, above, 1.0)
                explained.append(Explained(self.ids[row], *classes, picture.pixels, whole))
            one = picture.pixels, self._caption(row), drawn
            if row < strips:
                strip = _grid([one], list(self.maps), colours)
                write_figure(folder / "strips" / f"{stem}.{figures}", strip)
            if row < grid:
                shown.append(one)
        skipped = {image.id: image.reason for image in self.skipped}
        found = {"model": self.model.name, "images": self.predictions, "skipped": skipped}
        write_json(folder / "predictions.json", found)
        log = logging.getLogger("jaxood")
        if written < len(self.indices):
            log.warning("no overlays of images that are gone: %d", len(self.indices) - written)
        if 0 < strips < len(self.indices):
            log.warning("strips of the first %d of %d images", strips, len(self.indices))
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

    def show(
        self,
        rows: int = 8,
        *,
        colours: str = COLOURS,
        alpha: float = 0.5,
        cropped: bool = False,
    ) -> Image.Image:
        """The first images beside their maps, as a picture: a notebook shows it as it is."""
        shown = []
        with closing(self.overlays(colours, alpha, cropped=cropped)) as overlays:
            for row, image, drawn in overlays:
                shown.append((image, self._caption(row), drawn))
                if row + 1 == rows:
                    break
        require(shown, "images", "none that can be read again", "those that were attributed")
        return figure_image(_grid(shown, list(self.maps), colours))


def check_pictures(colours: str, alpha: float, grid: int, strips: int) -> None:
    """Raises UsageError for what `AttributionResult.save` cannot draw; before a pass."""
    palette(colours)
    require(0 < alpha <= 1, "alpha", alpha, "above 0 and at most 1")
    require(grid >= 1, "grid", grid, "at least 1")
    require(strips >= 0, "strips", strips, "at least 0")


def _over(picture: Whole, above: Mapping[str, Picture], alpha: float) -> dict[str, Picture]:
    """By method, the picture under its colours."""
    return {
        name: laid_over(picture.pixels, picture.inside, one, alpha) for name, one in above.items()
    }


def _grid(shown, methods: Sequence[str], colours: str):
    """Images, captions and overlays as a figure."""
    images, captions, overlays = zip(*shown, strict=True)
    columns = {name: [drawn[name] for drawn in overlays] for name in methods}
    return grid_figure(images, captions, columns, colours)


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
    batch_size: BatchSize = DEFAULT,
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
    batch_size = runner.check(extractors, batch_size, len(found))
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
