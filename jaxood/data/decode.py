"""From an image file to the uint8 square that a model takes, bit for bit as torchvision does it."""

import io
import os
import stat
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxood.preprocessing import Preprocessing

# What files are opened as: other plugins of PIL start programs (EPS) or are hardly ever used.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 1 << 30  # of a file
LARGE = 1 << 24  # pixels; images of more are decoded one at a time, so that memory has a bound
MAX_SIDE = 20_000  # pixels of the longer side after resizing: 1.2 GB at a crop of 224 x 20,000


# One thread: each has a part of the heap of its own, which keeps what a large image took.
_for_large = ThreadPoolExecutor(1)

Made = TypeVar("Made")


class UndecodableImage(Exception):
    """An image that is left out of a run, and why."""


class Whole(NamedTuple):
    """A picture as it was resized, with what is cut off before a model sees it.

    Attributes:
      inside: rows and columns of the square that a model takes.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    inside: tuple[slice, slice]


def prepare(image: Image.Image, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Converts to RGB, resizes the shorter side, cuts the central square.

    Equal to torchvision's `Resize(int)` and `CenterCrop` on a PIL image, roundings included.

    Raises:
      UndecodableImage: for a strip so thin that resizing it would not fit in memory, and for
        numbers whose range is not known (see `to_rgb`).
    """
    return np.asarray(square(to_rgb(image), preprocessing, preprocessing.interpolation))


def uncut(pixels: UInt8[np.ndarray, "h w 3"]) -> Whole:
    """A picture of which a model takes everything."""
    return Whole(pixels, (slice(0, pixels.shape[0]), slice(0, pixels.shape[1])))


def whole(image: Image.Image, preprocessing: Preprocessing) -> Whole:
    """As `prepare`, but nothing is cut off.

    Raises:
      UndecodableImage: as `prepare`.
    """
    image = _resized(to_rgb(image), preprocessing, preprocessing.interpolation)
    left, top, right, bottom = _central(image.size, preprocessing.crop)
    return Whole(np.asarray(image), (slice(top, bottom), slice(left, right)))


def square(image: Image.Image, preprocessing: Preprocessing, interpolation: str) -> Image.Image:
    """An image of any mode, resized by that filter of PIL's and cut; see `prepare`.

    Raises:
      UndecodableImage: for a strip so thin that resizing it would not fit in memory.
    """
    image = _resized(image, preprocessing, interpolation)
    return image.crop(_central(image.size, preprocessing.crop))


def _resized(image: Image.Image, preprocessing: Preprocessing, interpolation: str) -> Image.Image:
    width, height = image.size
    short, long = sorted((width, height))
    resized = preprocessing.resize, int(preprocessing.resize * long / short)
    if resized[1] > MAX_SIDE:
        raise UndecodableImage(f"{width} x {height} is too thin to resize")
    size = resized if width <= height else resized[::-1]
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling[interpolation.upper()])


def _central(size: tuple[int, int], crop: int) -> tuple[int, int, int, int]:
    """The square in the middle: left, top, right, bottom."""
    left, top = (int(round((side - crop) / 2.0)) for side in size)
    return left, top, left + crop, top + crop


def to_rgb(image: Image.Image) -> Image.Image:
    """As PIL converts it, but numbers of more than 8 bits are scaled where PIL would cut them off.

    Of 16 bits the upper 8 are kept, as PIL does with three channels of 16 bits. Floats must lie
    in [0, 1].

    Raises:
      UndecodableImage: for floats beyond [0, 1], and whole numbers of 32 bits.
    """
    if image.mode == "RGB":  # converting would copy it
        return image
    # PIL reads PGM files of 16 bits into 32, and scales them to the range of 16.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "I":
        raise UndecodableImage("pixels are whole numbers of 32 bits, whose range is not known")
    elif image.mode == "F":
        values = np.asarray(image)
        if not (np.min(values) >= 0 and np.max(values) <= 1):  # NaN is neither
            raise UndecodableImage("pixels are floats, and not all of them in [0, 1]")
        image = Image.fromarray(np.round(values * np.float32(255)).astype(np.uint8))
    return image.convert("RGB")


def decode(content: bytes, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the first frame of an encoded image and prepares it.

    Memory: three bytes a pixel, twice, for one image of up to `PIL.Image.MAX_IMAGE_PIXELS` at a
    time, and for one of up to `LARGE` pixels a thread.

    Raises:
      UndecodableImage: when PIL cannot read the whole of it, or it has more pixels than that.
    """
    return _decoded(content, lambda image: prepare(image, preprocessing))


def decode_whole(content: bytes, preprocessing: Preprocessing) -> Whole:
    """As `decode`, but nothing is cut off."""
    return _decoded(content, lambda image: whole(image, preprocessing))


def _decoded(content: bytes, make: Callable[[Image.Image], Made]) -> Made:
    if not content:
        raise UndecodableImage("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > (Image.MAX_IMAGE_PIXELS or pixels):
                raise Image.DecompressionBombError
            if pixels > LARGE:
                return _for_large.submit(make, image).result()
            return make(image)
    except UndecodableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than the {Image.MAX_IMAGE_PIXELS} pixels allowed"
        raise UndecodableImage(reason) from None
    except Image.UnidentifiedImageError:
        raise UndecodableImage(f"not an image of a format read ({', '.join(FORMATS)})") from None
    except Exception as error:  # PIL's plugins raise anything from SyntaxError to struct.error
        lines = str(error).strip().splitlines()
        raise UndecodableImage(lines[0] if lines else type(error).__name__) from None


def read(path: str, preprocessing: Preprocessing) -> UInt8[np.ndarray, "h w 3"]:
    """Reads and decodes one file.

    Raises:
      UndecodableImage: when it cannot be read, or not as an image.
    """
    return decode(_content(path), preprocessing)


def read_whole(path: str, preprocessing: Preprocessing) -> Whole:
    """As `read`, but nothing is cut off."""
    return decode_whole(_content(path), preprocessing)


def _content(path: str) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise UndecodableImage("not a regular file")
        if status.st_size > MAX_BYTES:
            raise UndecodableImage(f"{status.st_size} bytes, more than the {MAX_BYTES} allowed")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UndecodableImage(error.strerror or str(error)) from None


def silence_pil() -> None:
    """PIL warns about harmless oddities of files (palettes, EXIF): not once an image, please."""
    warnings.filterwarnings("ignore", module="PIL")
