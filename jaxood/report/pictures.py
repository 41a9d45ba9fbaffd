"""Heat maps as people look at them: over the image, and methods beside each other."""

import textwrap
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
FRAME = 100  # of a picture's shorter side, how wide each of a frame's two lines is
MARGIN = 0.06  # inches between pictures of a grid
CELL = 1.84  # inches of the longer side of a picture of a grid
CAPTION = 1.6  # inches left of a row of a grid
LINE = 0.17  # inches of a line of text
WIDE = 24  # letters above a picture of a grid
ACROSS = 6  # pictures of a grid beside each other: what a page holds


def palette(colours: str = COLOURS) -> UInt8[np.ndarray, "256 3"]:
    """The colours of the 256 levels of a heat map.

    Raises:
      UsageError: for a colour map that matplotlib does not have.
    """
    import matplotlib

    colour_map = matplotlib.colormaps[choose("colours", colours, matplotlib.colormaps)]
    return (255 * colour_map(np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


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


def laid_over(
    image: UInt8[np.ndarray, "H W 3"],
    inside: tuple[slice, slice],
    above: UInt8[np.ndarray, "h w 3"],
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "H W 3"]:
    """A whole picture with something above the part that a model saw, and a frame around it.

    Args:
      inside: rows and columns of that part.
    """
    rows, columns = inside
    drawn = image.copy()
    width = max(1, min(image.shape[:2]) // FRAME)
    for colour, out in ((0, 2 * width), (255, width)):  # seen on any ground
        top, left = max(rows.start - out, 0), max(columns.start - out, 0)
        drawn[top : rows.stop + out, left : columns.stop + out] = colour
    drawn[inside] = blended(image[inside], above, alpha)
    return drawn


def shortened(text: str, most: int) -> str:
    """At most so many letters, the middle left out."""
    end = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - end]}…{text[-end:]}"


def grid_figure(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str],
    overlays: Mapping[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    colours: str = COLOURS,
) -> "Figure":
    """Images as rows, each with its caption and one overlay a method, and the scale of colours.

    More than `ACROSS` pictures of an image go on in a line below, each with its title. Images may
    differ in size.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    columns = {textwrap.fill(name, WIDE): found for name, found in overlays.items()}
    columns = {"image": images, **columns}
    across = min(len(columns), ACROSS)
    lines = -(-len(columns) // across)
    title = LINE * max(1 + name.count("\n") for name in columns) + 0.05
    titled = title if lines > 1 else 0.0  # room above each picture, not above the first row only
    heights = [CELL * min(1.0, image.shape[0] / image.shape[1]) for image in images]
    step = [
        max(lines * (height + MARGIN + titled), LINE * (1 + caption.count("\n")) + 2 * MARGIN)
        for height, caption in zip(heights, captions, strict=True)
    ]
    top, bottom = (0.1 if titled else title + 0.1), 0.55
    size = (CAPTION + (CELL + MARGIN) * across, top + sum(step) + bottom)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")

    def axes_at(x, y, wide, high):
        """Axes from inches, from the upper left corner of the figure."""
        return figure.add_axes(
            (x / size[0], 1 - (y + high) / size[1], wide / size[0], high / size[1])
        )

    for row, (caption, height) in enumerate(zip(captions, heights, strict=True)):
        y = top + sum(step[:row])
        figure.text(
            (CAPTION - 0.1) / size[0],
            1 - (y + titled) / size[1],
            caption,
            ha="right",
            va="top",
            fontsize=8.5,
            linespacing=1.4,
            parse_math=False,
        )
        for column, (name, pictures) in enumerate(columns.items()):
            line, place = divmod(column, across)
            below = titled + line * (height + MARGIN + titled)
            axes = axes_at(CAPTION + place * (CELL + MARGIN), y + below, CELL, height)
            axes.imshow(pictures[row], interpolation="lanczos")
            axes.set_axis_off()
            if row == 0 or titled:
                axes.set_title(name, fontsize=9.5, pad=5, parse_math=False)
    bar = axes_at((CAPTION + size[0]) / 2 - 1.2, size[1] - bottom + 0.16, 2.4, 0.1)
    scale = figure.colorbar(
        ScalarMappable(cmap=matplotlib.colormaps[colours]), cax=bar, orientation="horizontal"
    )
    scale.set_ticks([0, 1], labels=["least relevant", "most relevant"], fontsize=8)
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, pad=3)
    return figure
