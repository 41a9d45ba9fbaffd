"""Decoding bit for bit as torchvision does it; batches of one size; what is named and left out."""

import io

import numpy as np
import pytest
from PIL import Image
from references import import_torchvision, package_file

from jaxood.data.decode import UndecodableImage, decode
from jaxood.data.images import Arrays, ImageFiles
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(width * height)
    coarse = generator.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def torchvision_bytes(content: bytes, preprocessing: Preprocessing) -> np.ndarray:
    transforms = import_torchvision("torchvision.transforms")
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    both = transforms.Compose(
        [
            transforms.Resize(preprocessing.resize, interpolation),
            transforms.CenterCrop(preprocessing.crop),
        ]
    )
    return np.asarray(both(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(256, 224),
        Preprocessing(235, 224, "bicubic"),
        Preprocessing(384, 384, "bicubic"),
        Preprocessing(8, 8),
    ],
)
@pytest.mark.parametrize("size", [(640, 427), (301, 500), (333, 333), (50, 40), (256, 256), (1, 9)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_bytes_are_torchvisions(preprocessing, size, kind):
    content = encoded(picture(*size), kind)
    expected = torchvision_bytes(content, preprocessing)
    np.testing.assert_array_equal(decode(content, preprocessing), expected)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16")],
)
def test_every_mode_is_converted_as_pil_does(kind, mode):
    image = picture(90, 70, "L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        assert image.mode == "I;16"
    content = encoded(image, kind)
    expected = torchvision_bytes(content, SMALL)
    np.testing.assert_array_equal(decode(content, SMALL), expected)


def test_real_photographs_are_torchvisions():
    for name in ("chelsea.png", "rocket.jpg", "astronaut.png", "microaneurysms.png"):
        content = package_file("skimage", "data", name).read_bytes()
        for preprocessing in (Preprocessing(256, 224), Preprocessing(235, 224, "bicubic")):
            expected = torchvision_bytes(content, preprocessing)
            np.testing.assert_array_equal(decode(content, preprocessing), expected)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [picture(60, 50), picture(50, 60).resize((60, 50))]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(content, SMALL), torchvision_bytes(content, SMALL))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "not an image that PIL knows"),
        (encoded(picture(90, 70), "JPEG")[:900], "truncated"),
        (encoded(picture(90, 70), "PNG")[:900], "truncated"),
        (encoded(picture(4000, 1), "PNG"), "too thin"),
    ],
)
def test_undecodable_content_is_told(content, reason):
    with pytest.raises(UndecodableImage, match=reason):
        decode(content, Preprocessing(256, 224))


@pytest.fixture
def mixed_folder(tmp_path):
    """Good and bad files; returns the folder and the names of the good ones."""
    good = {
        "b plain.jpg": encoded(picture(90, 70), "JPEG"),
        "cmyk.JPEG": encoded(picture(90, 70, "CMYK"), "JPEG"),
        "grey.png": encoded(picture(70, 90, "L"), "PNG"),
        "grüße an 図.png": encoded(picture(64, 64), "PNG"),
        "moving.gif": encoded(
            picture(64, 50), "GIF", save_all=True, append_images=[picture(64, 50)]
        ),
    }
    bad = {
        "cut.jpg": encoded(picture(90, 70), "JPEG")[:700],
        "text.jpg": b"this is text",
        "zero.png": b"",
    }
    for name, content in (good | bad).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(good["grey.png"])
    return tmp_path, good, bad


def test_batches_have_one_size_and_mark_what_is_bad(mixed_folder):
    folder, good, bad = mixed_folder
    images = ImageFiles.from_path(folder)
    assert images.ids == tuple(sorted(good | bad))
    batches = list(images.batches(SMALL, 3))
    assert [batch.images.shape for batch in batches] == [(3, 32, 32, 3)] * 3
    indices = np.concatenate([batch.indices for batch in batches])
    np.testing.assert_array_equal(indices, [0, 1, 2, 3, 4, 5, 6, 7, -1])
    assert set(images.skipped) == set(bad)
    for batch in batches:
        for image, valid, index in zip(*batch, strict=True):
            if index < 0 or images.ids[index] in bad:
                assert not valid and not image.any()
            else:
                assert valid
                np.testing.assert_array_equal(image, decode(good[images.ids[index]], SMALL))


def test_batches_go_on_in_the_middle(mixed_folder):
    images = ImageFiles.from_path(mixed_folder[0])
    whole = np.concatenate([batch.images for batch in images.batches(SMALL, 2)])
    rest = np.concatenate([batch.images for batch in images.batches(SMALL, 2, start=4)])
    np.testing.assert_array_equal(rest, whole[4:])


def test_class_folders_give_labels(tmp_path):
    def filled(root, names):
        for name in names:
            (tmp_path / root / name).mkdir(parents=True)
            (tmp_path / root / name / "x.png").write_bytes(encoded(picture(9, 9), "PNG"))
        return ImageFiles.from_path(tmp_path / root)

    named = filled("named", ["zebra", "ant"])
    assert (named.labels.tolist(), named.labels_are_classes) == ([0, 1], False)
    numbers = filled("numbers", ["0", "10", "2"])  # sorted as text, numbered by value
    assert (numbers.labels.tolist(), numbers.labels_are_classes) == ([0, 10, 2], True)
    wnids = filled("wnids", ["n01440764", "n15075141"])
    assert (wnids.labels.tolist(), wnids.labels_are_classes) == ([0, 999], True)
    assert named.ids == ("ant/x.png", "zebra/x.png")


def test_lists_are_relative_to_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(encoded(picture(40, 40), "PNG"))
    (tmp_path / "list.txt").write_text("in/a b.png 7\nin/c.png 3\nin/missing.png 3\n")
    images = ImageFiles.from_path(tmp_path / "list.txt")
    assert images.labels.tolist() == [7, 3, 3]
    (batch,) = images.batches(SMALL, 4)
    assert batch.valid.tolist() == [True, True, False, False]
    assert images.skipped == {"in/missing.png": "No such file or directory"}


def test_missing_and_empty_folders_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="a folder, an image or a .txt list that exists"):
        ImageFiles.from_path(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="without an image in it, wanted files ending in"):
        ImageFiles.from_path(tmp_path)


def test_fingerprint_changes_with_a_file(mixed_folder):
    folder, _, _ = mixed_folder
    before = ImageFiles.from_path(folder).fingerprint()
    assert ImageFiles.from_path(folder).fingerprint() == before
    (folder / "grey.png").write_bytes(encoded(picture(70, 91, "L"), "PNG"))
    assert ImageFiles.from_path(folder).fingerprint() != before


def test_arrays_of_another_size_are_refused():
    with pytest.raises(UsageError, match=r"images \(9, 9, 3\), wanted \(32, 32, 3\)"):
        next(Arrays(np.zeros((4, 9, 9, 3), np.uint8), None, "own").batches(SMALL, 2))
