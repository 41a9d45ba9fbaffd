"""Images that a method is surest of and those it doubts, with the maps that were kept of them."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from jaxtyping import Float, Int

from jaxood.attribution.heatmap import heats
from jaxood.data.decode import Whole
from jaxood.data.images import ImageSet, wholes
from jaxood.models.registry import LoadedModel
from jaxood.report.evaluation_page import Example, Examples
from jaxood.report.pictures import laid_over, palette
from jaxood.runner.features import Features

EACH = 6  # images at each end


def examples(
    model: LoadedModel,
    name: str,
    images: ImageSet,
    features: Features,
    scores: Float[np.ndarray, " n"],
    maps: Sequence[str],
) -> Examples:
    """The images of the highest and the lowest scores; each once where there are few.

    Args:
      maps: the extras that are maps, to be laid over the images.
    """
    order = np.argsort(scores, kind="stable")
    lowest = order[: min(EACH, len(order) // 2)]
    highest = order[len(lowest) :][::-1][:EACH]
    rows = np.concatenate([highest, lowest])
    pictures = _read(model, images, features.indices[rows])
    side = (model.preprocessing.crop,) * 2
    warm = {name: heats(features.extras[name][rows], side) for name in maps}
    shades = palette()
    found = []
    for position, row in enumerate(rows):
        picture = pictures.get(int(features.indices[row]))
        if picture is None:  # it is gone since
            continue
        number = int(features.predicted[row])
        label = model.class_names[number] if model.class_names else f"class {number}"
        caption = f"{scores[row]:.3f} · {label} · {images.ids[features.indices[row]]}"
        pixels, inside = picture
        drawn = [laid_over(pixels, inside, shades[heat[position]]) for heat in warm.values()]
        found.append((position, Example(caption, (pixels, *drawn))))
    return Examples(
        name,
        [example for position, example in found if position < len(highest)],
        [example for position, example in found if position >= len(highest)],
    )


def _read(model: LoadedModel, images: ImageSet, indices: Int[np.ndarray, " m"]) -> dict[int, Whole]:
    """By index, images as people know them; they are not kept during a pass."""
    chosen = np.unique(indices)
    with closing(wholes(images.subset(chosen), model.preprocessing, len(chosen))) as pictures:
        return {int(chosen[row]): picture for row, picture in pictures}
