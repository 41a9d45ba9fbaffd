"""Thirty kinds of damaged images among good ones: none is lost, none is changed, each is named."""

import io
import os
import struct
import sys
import zlib
from subprocess import run

import numpy as np
import pytest
from PIL import Image

from jaxood.data.decode import UndecodableImage, decode
from jaxood.data.files import ImageFiles
from jaxood.preprocessing import Preprocessing

USUAL = Preprocessing(256, 224)


def picture(seed, size=(60, 50), mode="RGB"):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind, **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def png(width, height, rest=b""):
    """A PNG of any announced size, whose checksums hold."""

    def chunk(name, data):
        length, check = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(name + data))
        return length + name + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rest)) + chunk(b"IEND", b"")


def cut(content, generator):
    return content[: int(generator.integers(1, len(content) * 9 // 10))]


def flipped(content, generator, first=0):
    changed = bytearray(content)
    for index in generator.integers(first, len(content), 20):
        changed[index] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def scrambled(content, generator):
    middle = len(content) // 2
    return content[:middle] + generator.bytes(len(content) - middle)


def damaged(seed):
    """Name and content of a damaged file; thirty kinds, in turn."""
    generator = np.random.default_rng(seed)
    kinds = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
    formats = {"JPEG": "jpg", "TIFF": "tif"}
    harms = [cut, flipped, scrambled]
    number = seed % 30
    if number < 21:
        kind, harm = kinds[number % 7], harms[number // 7]
        content = harm(encoded(picture(seed), kind), generator)
        return f"{seed:05}.{formats.get(kind, kind.lower())}", content
    others = [
        ("png", b""),
        ("jpg", b"this is no picture"),
        ("jpg", encoded(picture(seed), "EPS")),
        ("png", png(60_000, 60_000)),
        ("png", png(0, 10)),
        ("png", png(9_000, 1, b"\0" * 27_001)),
        ("tiff", encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF")),
        ("jpg", encoded(picture(seed), "JPEG")[:2] + generator.bytes(500)),
        ("gif", b"GIF89a" + generator.bytes(300)),
    ]
    ending, content = others[number - 21]
    return f"{seed:05}.{ending}", content


def expected(content):
    """What the decoder makes of the bytes alone, in one thread."""
    try:
        return decode(content, USUAL)
    except UndecodableImage:
        return None


def fill(folder, bad, good):
    """`bad` damaged files and `good` whole ones, mixed; contents by name."""
    contents = dict(damaged(seed) for seed in range(bad))
    contents |= {f"{seed:05}g.png": encoded(picture(seed), "PNG") for seed in range(good)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def through(folder, contents):
    """Decodes all of it in parallel, and holds each image against `expected`."""
    images = ImageFiles.from_path(folder)
    assert sorted(images.ids) == sorted(contents)
    named = 0
    for batch in images.batches(USUAL, 32):
        for row, index in enumerate(batch.indices):
            if index < 0:
                continue
            name = images.ids[index]
            wanted = expected(contents[name])
            assert batch.valid[row] == (wanted is not None), name
            if wanted is None:
                named += 1
                assert batch.reasons[int(index)] and batch.reasons[int(index)].isprintable(), name
            else:
                np.testing.assert_array_equal(batch.images[row], wanted, err_msg=name)
            assert not name.endswith("g.png") or wanted is not None
    return named


def test_damaged_images_among_good_ones(tmp_path):
    contents = fill(tmp_path, 90, 20)
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "endless.png")
    os.symlink(tmp_path / "nothing", tmp_path / "nowhere.png")
    special = dict.fromkeys(("pipe.jpg", "endless.png", "nowhere.png"), b"")
    assert through(tmp_path, contents | special) > 60


@pytest.mark.long
def test_two_thousand(tmp_path):
    assert through(tmp_path, fill(tmp_path, 2000, 200)) > 1300


@pytest.mark.long
def test_memory_is_that_of_a_clean_run(tmp_path):
    """Decoded in processes of their own: peaks in kilobytes."""
    (tmp_path / "clean").mkdir()
    (tmp_path / "damaged").mkdir()
    for seed in range(300):
        content = encoded(picture(seed, (640, 480)), "JPEG")
        (tmp_path / "clean" / f"{seed}.jpg").write_bytes(content)
        (tmp_path / "damaged" / f"{seed}.jpg").write_bytes(content)
    fill(tmp_path / "damaged", 300, 0)
    program = """
        import resource, sys
        from jaxood.data.files import ImageFiles
        from jaxood.preprocessing import Preprocessing
        for batch in ImageFiles.from_path(sys.argv[1]).batches(Preprocessing(256, 224), 32): pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    program = "\n".join(line.strip() for line in program.strip().splitlines())
    peaks = [
        int(run([sys.executable, "-c", program, folder], check=True, capture_output=True).stdout)
        for folder in (tmp_path / "clean", tmp_path / "damaged")
    ]
    assert peaks[1] < 1.3 * peaks[0], peaks


@pytest.mark.long
def test_large_images_do_not_fill_the_memory(tmp_path):
    """Six of 80 megapixels, 240 MB each when decoded; a thread each would take 1.4 GB."""
    content = png(10_000, 8_000, b"\0" * (8_000 * 30_001))
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(content)
    program = (
        "import sys, resource\n"
        "from jaxood.data.files import ImageFiles\n"
        "from jaxood.preprocessing import Preprocessing\n"
        "small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "(batch,) = ImageFiles.from_path(sys.argv[1]).batches(Preprocessing(256, 224), 6)\n"
        "assert batch.valid.all()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small)\n"
    )
    done = run([sys.executable, "-c", program, tmp_path], check=True, capture_output=True)
    assert int(done.stdout) < 900_000, done.stdout
