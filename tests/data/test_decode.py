"""Decoding bit for bit as torchvision does it, and what is no picture."""

import io
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image
from references import import_torchvision, package_file

from jaxood.data.decode import UndecodableImage, decode
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)


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
    [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1")],
)
def test_every_mode_is_converted_as_pil_does(kind, mode):
    content = encoded(picture(90, 70, mode), kind)
    expected = torchvision_bytes(content, SMALL)
    np.testing.assert_array_equal(decode(content, SMALL), expected)


def sixteen_bits(values: np.ndarray, order: str) -> Image.Image:
    mode = {"<": "I;16", ">": "I;16B"}[order]
    return Image.frombytes(mode, values.shape[::-1], values.astype(f"{order}u2").tobytes())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, big endian", "PGM"])
def test_sixteen_bits_keep_their_upper_eight(kind):
    eight = np.asarray(picture(90, 70, "L"))
    values = eight.astype(np.uint16) * 256 + np.random.default_rng(0).integers(0, 256, eight.shape)
    if kind == "PGM":
        content = b"P5 90 70 65535 " + values.astype(">u2").tobytes()
    else:
        order = ">" if kind.endswith("endian") else "<"
        content = encoded(sixteen_bits(values, order), kind.partition(",")[0])
    expected = decode(encoded(Image.fromarray(eight), "PNG"), SMALL)
    np.testing.assert_array_equal(decode(content, SMALL), expected)


def test_floats_from_zero_to_one_are_scaled():
    values = np.asarray(picture(90, 70, "L")).astype(np.float32) / 255
    expected = decode(encoded(picture(90, 70, "L"), "PNG"), SMALL)
    content = encoded(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(decode(content, SMALL), expected)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan, np.inf])
def test_other_floats_are_refused(wrong):
    values = np.full((40, 40), 0.5, np.float32)
    values[3, 4] = wrong
    with pytest.raises(UndecodableImage, match=r"floats, and not all of them in \[0, 1\]"):
        decode(encoded(Image.fromarray(values), "TIFF"), SMALL)


def test_whole_numbers_of_32_bits_are_refused():
    content = encoded(Image.fromarray(np.full((40, 40), 7, np.int32)), "TIFF")
    with pytest.raises(UndecodableImage, match="whole numbers of 32 bits"):
        decode(content, SMALL)


def test_formats_that_start_programs_are_not_opened(monkeypatch):
    """PIL hands EPS to Ghostscript."""
    content = encoded(picture(40, 40), "EPS")
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with pytest.raises(UndecodableImage, match="not an image of a format read .*TIFF, WEBP"):
        decode(content, SMALL)


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
        (b"no picture at all", "not an image of a format read"),
        (encoded(picture(90, 70), "JPEG")[:900], "truncated"),
        (encoded(picture(90, 70), "PNG")[:900], "truncated"),
        (encoded(picture(4000, 1), "PNG"), "too thin"),
    ],
)
def test_undecodable_content_is_told(content, reason):
    with pytest.raises(UndecodableImage, match=reason):
        decode(content, Preprocessing(256, 224))


def test_images_of_more_pixels_than_allowed_are_told(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6300)
    content = encoded(picture(90, 70), "PNG")
    assert decode(content, SMALL).shape == (32, 32, 3)
    for most in (6299, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        for action in ("error", "ignore"):
            with warnings.catch_warnings(action=action):
                with pytest.raises(UndecodableImage, match=f"more than the {most} pixels allowed"):
                    decode(content, SMALL)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr("jaxood.data.decode.LARGE", 6299)
    inside, most = [], []

    def slow(image, preprocessing):
        inside.append(image.width)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr("jaxood.data.decode.prepare", slow)
    for height, together in ((69, 4), (70, 1)):
        content = encoded(picture(90, height), "PNG")
        most.clear()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _, content=content: decode(content, SMALL), range(4)))
        assert max(most) == together
