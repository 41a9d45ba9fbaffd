"""Heat maps as people look at them: over the image, and methods beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from jaxood.errors import choose
from jaxood.files import whole_file
from jaxood.report.figures import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "inferno"  # even in lightness, so told apart by all readers, and in grey print
MARGIN = 0.06  # inches between pictures of a grid
CELL = 1.9  # inches a picture of a grid
TITLE = 0.22  # inches above a picture of a grid
ACROSS = 6  # pictures of a grid beside each other: what a page holds


def palette(colours: str = COLOURS) -> UInt8[np.ndarray, "256 3"]:
    """The colours of the 256 levels of a heat map.

    Raises:
      UsageError: for a colour map that matplotlib does not have.
    """
    import matplotlib

    colour_map = matplotlib.colormaps[choose("colours", colours, matplotlib.colormaps)]
    return (255 * colour_map(np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    heat: UInt8[np.ndarray, "h w"],
    colours: UInt8[np.ndarray, "256 3"],
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """`(1 - alpha) image + alpha colour of the heat`."""
    return blended(image, colours[heat], alpha)


def blended(
    image: UInt8[np.ndarray, "h w 3"], above: UInt8[np.ndarray, "h w 3"], alpha: float
) -> UInt8[np.ndarray, "h w 3"]:
    """`(1 - alpha) image + alpha above`."""
    blend = (1 - alpha) * image.astype(np.float32) + alpha * above.astype(np.float32)
    return blend.round().astype(np.uint8)


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Whole or not at all; makes the folder."""
    from PIL import Image

    with whole_file(path) as partial:
        Image.fromarray(image).save(partial, "PNG")


def grid_figure(
    images: UInt8[np.ndarray, "n h w 3"],
    captions: Sequence[str],
    overlays: Mapping[str, UInt8[np.ndarray, "n h w 3"]],
    colours: str = COLOURS,
) -> "Figure":
    """Images as rows, each with its caption and one overlay a method, and the scale of colours.

    More than `ACROSS` pictures of an image go on in a line below, each with its title.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    columns = {"image": images, **overlays}
    across = min(len(columns), ACROSS)
    lines = -(-len(columns) // across)
    rows, side = len(images), images.shape[1] / images.shape[2]
    width, height = CELL * across, CELL * side
    left, top, bottom = 1.5, 0.35, 0.55
    titled = TITLE if lines > 1 else 0.0  # room above each picture, not above the first row only
    step = lines * (height + MARGIN + titled)
    size = (left + width + MARGIN, top + rows * step + bottom)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")

    def axes_at(x, y, wide, high):
        """Axes from inches, from the upper left corner of the figure."""
        return figure.add_axes(
            (x / size[0], 1 - (y + high) / size[1], wide / size[0], high / size[1])
        )

    for row, caption in enumerate(captions):
        y = top + row * step + titled
        figure.text(
            (left - 0.1) / size[0],
            1 - (y + height / 2) / size[1],
            caption,
            ha="right",
            va="center",
            fontsize=8.5,
            linespacing=1.4,
        )
        for column, (name, pictures) in enumerate(columns.items()):
            line, place = divmod(column, across)
            below = line * (height + MARGIN + titled)
            axes = axes_at(left + place * CELL, y + below, CELL - MARGIN, height)
            axes.imshow(pictures[row], aspect="auto", interpolation="lanczos")
            axes.set_axis_off()
            if row == 0 or titled:
                axes.set_title(name, fontsize=9.5, pad=5)
    bar = axes_at(left + width / 2 - 1.2, size[1] - bottom + 0.16, 2.4, 0.1)
    scale = figure.colorbar(
        ScalarMappable(cmap=matplotlib.colormaps[colours]), cax=bar, orientation="horizontal"
    )
    scale.set_ticks([0, 1], labels=["least relevant", "most relevant"], fontsize=8)
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, pad=3)
    return figure
