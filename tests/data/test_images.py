"""Images in memory, and whatever a user calls images."""

import io
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image
from references import import_torchvision

from jaxood.data.decode import decode
from jaxood.data.files import ImageFiles
from jaxood.data.images import Arrays, ImageSet, Pictures, squares, wholes
from jaxood.data.sources import image_set
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)
RNG = np.random.default_rng(0)


def arrays(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(params=["arrays", "pictures", "files"])
def images(request, tmp_path) -> ImageSet:
    """Five labelled images."""
    labels, pixels = np.array([4, 1, 0, 3, 2]), arrays(5, 32, 32, 3)
    if request.param == "arrays":
        return Arrays(pixels, labels, "five", class_names=tuple("abcde"))
    if request.param == "pictures":
        return Pictures(list(pixels), "five", labels, True, tuple("abcde"))
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(encoded(picture(40, 40 + index), "PNG"))
    names = tuple(f"{index}.png" for index in range(5))
    return ImageFiles(str(tmp_path), names, "five", labels, True, tuple("abcde"))


def test_every_set_keeps_the_protocol(images):
    assert isinstance(images, ImageSet)
    batches = list(images.batches(SMALL, 2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4, -1]]
    assert [batch.valid.tolist() for batch in batches] == [[True] * 2, [True] * 2, [True, False]]
    assert all(batch.images.shape == (2, 32, 32, 3) and not batch.reasons for batch in batches)
    whole = np.concatenate([batch.images for batch in batches])
    (rest,) = images.batches(SMALL, 8, start=3)
    assert rest.indices.tolist() == [3, 4] + [-1] * 6
    np.testing.assert_array_equal(rest.images[:2], whole[3:5])

    part = images.subset(np.array([3, 0]))
    assert part.labels.tolist() == [3, 4] and len(part) == len(part.ids) == 2
    assert (part.name, part.labels_are_classes, part.class_names) == ("five", True, tuple("abcde"))
    np.testing.assert_array_equal(next(part.batches(SMALL, 2)).images, whole[[3, 0]])
    assert part.fingerprint() != images.fingerprint() == images.fingerprint()
    assert images.ids is images.ids  # not made anew
    with pytest.raises(AttributeError):
        images.labels = None


def torch_resized(content):
    """As torchvision resizes an image's shorter side to 40 pixels."""
    transforms = import_torchvision("torchvision.transforms")
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(transforms.Resize(40)(image.convert("RGB")))


def test_whole_pictures_hold_what_the_model_takes(tmp_path):
    contents = [encoded(picture(90, 60), "PNG"), encoded(picture(40, 70), "PNG")]
    for index, content in enumerate(contents):
        (tmp_path / f"{index}.png").write_bytes(content)
    (tmp_path / "2.png").write_bytes(b"no image")
    names = ("0.png", "1.png", "2.png")
    as_it_is = arrays(32, 32, 3)
    for images, last in (
        (ImageFiles(str(tmp_path), names, "files"), None),
        (Pictures([*contents, as_it_is]), as_it_is),
    ):
        found = dict(wholes(images, SMALL, 2))
        (batch,) = images.batches(SMALL, 3)
        assert list(found) == np.flatnonzero(batch.valid).tolist()
        for index, (pixels, inside) in found.items():
            np.testing.assert_array_equal(pixels[inside], batch.images[index])
        for index, content in enumerate(contents):
            np.testing.assert_array_equal(found[index].pixels, torch_resized(content))
        if last is not None:
            np.testing.assert_array_equal(found[2].pixels, last)
        cut = dict(squares(images, SMALL, 2))
        assert list(cut) == list(found) and all(one.pixels.shape[0] == 32 for one in cut.values())
    cropped = ImageFiles(str(tmp_path), names, "files", cropped=True)
    (batch,) = cropped.batches(SMALL, 3)
    found = dict(wholes(cropped, SMALL, 2))
    assert found[0].pixels.shape == (32, 48, 3)
    np.testing.assert_array_equal(found[0].pixels[found[0].inside], batch.images[0])
    squared = dict(wholes(Arrays(arrays(2, 32, 32, 3), None, "two"), SMALL, 2))
    assert [one.pixels.shape for one in squared.values()] == [(32, 32, 3)] * 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        lambda labels: Arrays(arrays(3, 32, 32, 3), labels, "three"),
        lambda labels: Pictures(list(arrays(3, 32, 32, 3)), "three", labels),
        lambda labels: ImageFiles("", ("a.png", "b.png", "c.png"), "three", labels),
    ],
)
def test_labels_must_be_as_many_as_the_images(make):
    with pytest.raises(UsageError, match=r"labels: got \(2,\) of 3 images, wanted \(3,\)"):
        make(np.array([0, 1]))


def test_arrays_of_another_size_are_refused():
    with pytest.raises(UsageError, match=r"images: got \(9, 9, 3\) in mine, wanted \(32, 32, 3\)"):
        next(Arrays(arrays(4, 9, 9, 3), None, "mine").batches(SMALL, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(4, 9, 9), (4, 9, 9, 1)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match=r"images: got uint8 .*, wanted uint8 \[n, h, w, 3\]"):
        Arrays(arrays(*shape), None, "mine")


def test_pictures_of_any_size_are_prepared_as_files_are():
    pictures = [picture(90, 70), picture(50, 80, "L"), picture(33, 32, "RGBA")]
    batch = next(Pictures(pictures).batches(SMALL, 3))
    for image, source in zip(batch.images, pictures, strict=True):
        np.testing.assert_array_equal(image, decode(encoded(source, "PNG"), SMALL))
    in_arrays = [np.asarray(source) for source in pictures[:2]]
    np.testing.assert_array_equal(
        next(Pictures(in_arrays).batches(SMALL, 2)).images, batch.images[:2]
    )


def test_arrays_of_the_models_size_are_taken_as_they_are():
    pixels = arrays(2, 32, 32, 3)
    batch = next(Pictures([pixels[0], Arrays(pixels, None, "x").images[1]]).batches(SMALL, 2))
    np.testing.assert_array_equal(batch.images, pixels)
    prepared = next(image_set(picture(32, 32)).batches(SMALL, 1)).images[0]
    assert not np.array_equal(prepared, np.asarray(picture(32, 32)))  # a picture is a picture


def test_a_picture_that_cannot_be_prepared_is_told(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(90, 70), "JPEG")[:900])
    with Image.open(tmp_path / "cut.jpg") as cut:  # its pixels are read when they are wanted
        pictures = Pictures([Image.new("RGB", (4000, 1)), picture(9, 9), cut])
        batch = next(pictures.batches(SMALL, 4))
    assert batch.valid.tolist() == [False, True, False, False]
    assert set(batch.reasons) == {0, 2}
    assert "too thin" in batch.reasons[0] and "truncated" in batch.reasons[2]


def test_fingerprints_tell_pictures_apart():
    grey = arrays(6, 8)
    kinds = [grey, grey.reshape(8, 6), np.repeat(grey[..., None], 3, 2), picture(6, 8)]
    assert len({Pictures([kind]).fingerprint() for kind in kinds}) == len(kinds)


def test_what_a_user_calls_images(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "a.png").write_bytes(encoded(picture(40, 40), "PNG"))
    (tmp_path / "list.txt").write_text("ant/a.png 3")
    for source in (tmp_path, str(tmp_path), tmp_path / "list.txt", tmp_path / "ant" / "a.png"):
        images = image_set(source)
        assert isinstance(images, ImageFiles) and images.name == Path(source).stem
        assert len(images) == 1
    assert image_set(tmp_path).class_names == ("ant",)
    assert image_set(tmp_path / "list.txt").labels.tolist() == [3]
    assert image_set(tmp_path, "mine").name == "mine"
    assert len(image_set([tmp_path, str(tmp_path / "ant" / "a.png")])) == 2
    assert image_set(images) is images

    for source, count in (
        (arrays(9, 7, 3), 1),
        (arrays(9, 7), 1),
        (arrays(4, 9, 7, 3), 4),
        (picture(9, 7), 1),
        ([picture(9, 7), arrays(5, 5, 3)], 2),
    ):
        images = image_set(source)
        assert isinstance(images, Pictures) and len(images) == count
        assert next(images.batches(SMALL, count)).valid.all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "train: got NoneType, wanted paths, PIL images"),
        (7, "train: got int"),
        ("", "train: got nothing, wanted a folder"),
        ([], "train: got none, wanted at least one image"),
        ("nowhere.png", "train: got nowhere.png, wanted a folder"),
        (["nowhere.png"], "train: got nowhere.png, wanted a folder"),
        ([picture(9, 9), "cat.png"], "train: got str at index 1, wanted PIL images, uint8"),
        (np.zeros((4, 4, 3)), r"train: got an array float64 \(4, 4, 3\) at index 0"),
        (arrays(4, 4, 4), r"train: got an array uint8 \(4, 4, 4\)"),
        (arrays(2, 4, 4, 1), r"train: got an array uint8 \(4, 4, 1\)"),
        (arrays(0, 4, 3), "train: got an array uint8"),
        (arrays(0, 4, 4, 3), "train: got none"),
    ],
)
def test_what_is_no_images(source, message):
    with pytest.raises(UsageError, match=message):
        image_set(source, argument="train")
