"""What the pictures share: colours, and a figure as a whole file."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from jaxood.errors import choose
from jaxood.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito: told apart by all readers.
BLUE, ORANGE = "#0072B2", "#D55E00"
CURVES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00")
GREY = "#5F5F5F"  # of a baseline
DASHES = ("-", "-.", ":")  # of lines that have the same colour
DPI = 130
FORMATS = ("png", "svg", "pdf")  # of figures in files
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same figure, the same bytes


def check_format(figures: str) -> None:
    """Raises UsageError for a format that figures are not written in."""
    choose("figures", figures, FORMATS)


def write_figure(path: Path, figure: "Figure") -> None:
    """In the format that the name ends with, whole or not at all; makes the folder."""
    from matplotlib import rc_context

    kind = path.suffix[1:]
    with whole_file(path) as partial, rc_context({"svg.hashsalt": path.name}), _any_letters():
        figure.savefig(partial, dpi=DPI, format=kind, metadata=UNDATED.get(kind))


def figure_image(figure: "Figure") -> Image.Image:
    """What `write_figure` writes as PNG, as a picture in memory."""
    content = io.BytesIO()
    with _any_letters():
        figure.savefig(content, dpi=DPI, format="png")
    return Image.open(content)


def line(methods: Sequence[str], name: str, baseline: str = "") -> dict[str, str]:
    """Colour and dashes of a method's line, of 21 all different; the baseline's is grey."""
    if name == baseline:
        return {"color": GREY, "linestyle": "--"}
    index = [one for one in methods if one != baseline].index(name)
    dashes = DASHES[index // len(CURVES) % len(DASHES)]
    return {"color": CURVES[index % len(CURVES)], "linestyle": dashes}


@contextmanager
def _any_letters() -> Iterator[None]:
    """Letters of a file's name that the font lacks are drawn as boxes, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
