"""Where the objects of images are: boxes of PASCAL VOC, ImageNet or COCO, or masks.

Every object of an annotation counts, whatever its class. Boxes and masks are in pixels of the whole
image; they are resized and cut as the image is.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool
from PIL import Image

from jaxood.data.decode import FORMATS, square
from jaxood.errors import UsageError, require
from jaxood.files import fingerprint
from jaxood.preprocessing import Preprocessing

WANTED = "a folder of .xml boxes or .png masks named as the images are, or a .json file of COCO's"

Region = Bool[np.ndarray, "h w"]
Source = Callable[[], Region]  # of the whole image


def regions(
    source: Path | str, ids: Sequence[str], preprocessing: Preprocessing
) -> Callable[[int], Region | None]:
    """By the index of an image, its objects' pixels after cropping.

    Args:
      source: a folder of XML files with boxes (PASCAL VOC's, ImageNet's) or of masks (PNG, objects
        are what is not 0), named as the images are; or a JSON file of COCO's.
      ids: names of images.

    Returns:
      None for an image of which nothing is said, or whose objects the crop has cut off.

    Raises:
      UsageError: for something else, or when nothing is said of any image. A damaged file of one
        image is told when its turn comes.
    """
    path = Path(source)
    if path.is_dir():
        known = _of_folder(path)
    elif path.suffix.lower() == ".json" and path.is_file():
        known = _of_coco(path)
    else:
        raise UsageError("objects", source, WANTED)
    named = [known.get(_stem(name)) for name in ids]
    require(any(named), "objects", f"{source}, which names none of the {len(ids)} images", WANTED)

    def region(index: int) -> Region | None:
        whole = named[index]
        if whole is None:
            return None
        picture = Image.fromarray(whole().astype(np.uint8) * 255)
        cut = np.asarray(square(picture, preprocessing, "nearest")) > 0
        return cut if cut.any() else None

    return region


def regions_fingerprint(source: Path | str) -> str:
    """Changes when files of annotations do."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(str(file), file.stat()) for file in files]
    return fingerprint([(name, found.st_size, found.st_mtime_ns) for name, found in stats])


def _stem(name: str) -> str:
    return PurePath(name).stem


def _of_folder(folder: Path) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() == ".xml":
                found[path.stem] = partial(_of_xml, path)
            elif path.suffix.lower() == ".png":
                found.setdefault(path.stem, partial(_of_mask, path))
    return found


def _of_xml(path: Path) -> Region:
    """Corners are pixels, counted from 1, and belong to the box."""
    try:
        root = ElementTree.parse(path).getroot()
        height, width = (int(_text(root, f"size/{side}")) for side in ("height", "width"))
        boxes = []
        for box in root.iterfind("object/bndbox"):
            corner = [float(_text(box, name)) for name in ("xmin", "ymin", "xmax", "ymax")]
            boxes.append((corner[0] - 1, corner[1] - 1, corner[2], corner[3]))
        return _filled(boxes, height, width)
    except (ElementTree.ParseError, OSError, ValueError, OverflowError) as error:
        raise UsageError(
            "objects", f"{path} ({error})", "boxes as PASCAL VOC writes them"
        ) from None


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text


def _of_mask(path: Path) -> Region:
    try:
        with Image.open(path, formats=FORMATS) as image:
            mask = np.asarray(image)
    except Exception as error:  # PIL's plugins raise anything
        raise UsageError("objects", f"{path} ({error})", "a mask as PNG") from None
    return (mask.any(axis=2) if mask.ndim == 3 else mask) != 0


def _of_coco(path: Path) -> dict[str, Source]:
    """Boxes are x, y, width, height, counted from 0."""
    try:
        content = json.loads(path.read_bytes())
        boxes: dict[object, list[tuple[float, ...]]] = {}
        for one in content["annotations"]:
            x, y, width, height = map(float, one["bbox"])
            boxes.setdefault(one["image_id"], []).append((x, y, x + width, y + height))
        return {
            _stem(image["file_name"]): _coco_source(image, boxes[image["id"]])
            for image in content["images"]
            if image["id"] in boxes
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "objects", f"{path} ({error!r})", "annotations as COCO writes them"
        ) from None


def _coco_source(image: Mapping, boxes: Sequence[tuple[float, ...]]) -> Source:
    height, width = int(image["height"]), int(image["width"])
    return partial(_filled, boxes, height, width)


def _filled(boxes: Sequence[tuple[float, ...]], height: int, width: int) -> Region:
    """Pixels whose centre lies in a box of left, top, right, bottom edges."""
    require(
        0 < height * width <= (Image.MAX_IMAGE_PIXELS or height * width) and height > 0,
        "objects",
        f"an image of {width} x {height} pixels",
        "sizes of images",
    )
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    found = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        within = (rows > top) & (rows < bottom)
        found |= within[:, None] & ((columns > left) & (columns < right))[None]
    return found
