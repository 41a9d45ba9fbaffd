"""From an image file to the uint8 square that a model takes, bit for bit as torchvision does it."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxood.preprocessing import Preprocessing

MAX_SIDE = 20_000  # pixels of the longer side after resizing: 1.2 GB at a crop of 224 x 20,000


class UndecodableImage(Exception):
    """An image that is left out of a run, and why."""


def prepare(image: Image.Image, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Converts to RGB, resizes the shorter side, cuts the central square.

    Equal to torchvision's `Resize(int)` and `CenterCrop` on a PIL image, roundings included.

    Raises:
      UndecodableImage: for a strip so thin that resizing it would not fit in memory.
    """
    if image.mode != "RGB":  # converting would copy it
        image = image.convert("RGB")
    width, height = image.size
    short, long = sorted((width, height))
    resized = preprocessing.resize, int(preprocessing.resize * long / short)
    if resized[1] > MAX_SIDE:
        raise UndecodableImage(f"{width} x {height} is too thin to resize")
    size = resized if width <= height else resized[::-1]
    if size != image.size:
        image = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    crop = preprocessing.crop
    left = int(round((size[0] - crop) / 2.0))
    top = int(round((size[1] - crop) / 2.0))
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


def decode(content: bytes, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the first frame of an encoded image and prepares it.

    Raises:
      UndecodableImage: when PIL cannot read the whole of it.
    """
    if not content:
        raise UndecodableImage("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return prepare(image, preprocessing)
    except UndecodableImage:
        raise
    except Image.UnidentifiedImageError:
        raise UndecodableImage("not an image that PIL knows") from None
    except Exception as error:  # PIL's plugins raise anything from SyntaxError to struct.error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UndecodableImage(reason) from None


def read(path: Path, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Reads and decodes one file.

    Raises:
      UndecodableImage: when it cannot be read, or not as an image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UndecodableImage(error.strerror or str(error)) from None
    return decode(content, preprocessing)


def silence_pil() -> None:
    """PIL warns about harmless oddities of files (palettes, EXIF): not once an image, please."""
    warnings.filterwarnings("ignore", module="PIL")
