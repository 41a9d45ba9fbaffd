"""Boxes and masks: what is read, how it is cropped, and one line for everything else."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxood.data.decode import prepare
from jaxood.data.objects import regions, regions_fingerprint
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

WHOLE = Preprocessing(20, 20)
VOC = """<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>{boxes}
</annotation>"""
BOX = """<object><name>n01440764</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def box(left, top, right, bottom, size=20):
    found = np.zeros((size, size), bool)
    found[top:bottom, left:right] = True
    return found


def voc(folder, name, *boxes, w=20, h=20):
    folder.mkdir(exist_ok=True)
    text = VOC.format(w=w, h=h, boxes="".join(BOX.format(*one) for one in boxes))
    (folder / name).write_text(text)
    return folder


def test_boxes_of_voc(tmp_path):
    source = voc(tmp_path / "x", "a.xml", (1, 1, 5, 10), (11, 16, 20, 20))
    (source / "deeper").mkdir()
    voc(source / "deeper", "c.xml", (3, 3, 3, 3))
    region = regions(source, ["some/a.JPEG", "b.png", "c.png"], WHOLE)
    np.testing.assert_array_equal(region(0), box(0, 0, 5, 10) | box(10, 15, 20, 20))
    assert region(1) is None
    np.testing.assert_array_equal(region(2), box(2, 2, 3, 3))


def test_boxes_of_coco(tmp_path):
    content = {
        "images": [
            {"id": 7, "file_name": "val/a.jpg", "width": 20, "height": 20},
            {"id": 8, "file_name": "b.jpg", "width": 20, "height": 20},
        ],
        "annotations": [
            {"image_id": 7, "bbox": [0, 0, 5, 10], "category_id": 1},
            {"image_id": 7, "bbox": [10.2, 15.4, 5.1, 3.3], "category_id": 2},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    region = regions(tmp_path / "coco.json", ["a.png", "b.png"], WHOLE)
    np.testing.assert_array_equal(region(0), box(0, 0, 5, 10) | box(10, 15, 15, 19))
    assert region(1) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_masks(tmp_path, mode):
    mask = box(3, 4, 9, 11)
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(regions(tmp_path, ["a.jpg"], WHOLE)(0), mask)


def test_they_are_cropped_as_the_image_is(tmp_path):
    """A picture that is bright where the object is goes through the images' own path."""
    preprocessing = Preprocessing(24, 20)
    source = voc(tmp_path / "x", "a.xml", (81, 21, 160, 60), w=240, h=120)
    image = np.zeros((120, 240, 3), np.uint8)
    image[20:60, 80:160] = 255
    seen = prepare(Image.fromarray(image), preprocessing)[..., 0] > 127
    np.testing.assert_array_equal(regions(source, ["a.png"], preprocessing)(0), seen)
    voc(tmp_path / "x", "a.xml", (1, 1, 10, 10), w=240, h=120)
    assert regions(source, ["a.png"], preprocessing)(0) is None  # cut off


def test_the_fingerprint_follows_the_files(tmp_path):
    source = voc(tmp_path / "x", "a.xml", (1, 1, 5, 10))
    before = regions_fingerprint(source)
    assert regions_fingerprint(source) == before
    voc(tmp_path / "x", "b.xml", (1, 1, 5, 10))
    assert regions_fingerprint(source) != before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a>",
        "<annotation/>",
        VOC.format(w="x", h=3, boxes=""),
        VOC.format(w=0, h=3, boxes=""),
        VOC.format(w=10**9, h=10**9, boxes=""),
        VOC.format(w=9, h=9, boxes="<object><bndbox/></object>"),
    ],
)
def test_damaged_xml(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    region = regions(tmp_path, ["a.jpg"], WHOLE)
    with pytest.raises(UsageError, match=r"objects: got "):
        region(0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images": [{}], "annotations": [3]}', "[" * 9999]
)
def test_damaged_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match="objects: got .*wanted annotations as COCO writes them"):
        regions(tmp_path / "a.json", ["a.jpg"], WHOLE)


def test_nothing_of_these_images(tmp_path):
    with pytest.raises(UsageError, match="objects: got .*none of the 1 images"):
        regions(voc(tmp_path / "x", "b.xml", (1, 1, 2, 2)), ["a.jpg"], WHOLE)
    with pytest.raises(UsageError, match="objects: got .*wanted a folder of .xml boxes"):
        regions(tmp_path / "nothing", ["a.jpg"], WHOLE)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="wanted a mask as PNG"):
        regions(tmp_path, ["a.jpg"], WHOLE)(0)
