"""Images that come one after the other: in pipes, archives and watched folders."""

import io
import os
import tarfile
import threading
import time

import numpy as np
import pytest
from PIL import Image

from jaxood.data import arrivals
from jaxood.data.arrivals import from_stream, new_in
from jaxood.data.images import Pictures
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=8, crop=8)


def encoded(seed, form="PNG"):
    picture = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(picture).save(content, form)
    return picture, content.getvalue()


def test_paths_are_given_on_as_they_come():
    read, write = os.pipe()
    with open(read, "rb") as end, open(write, "wb", buffering=0) as begin:
        sets = from_stream(end, 2)
        begin.write("a.png\n\n b ä.png \nc.png\nd".encode())
        assert next(sets).files == ("a.png", "b ä.png")  # while the pipe is open
        assert next(sets).files == ("c.png",)
        begin.write(b".png")
        begin.close()
        assert [found.files for found in sets] == [("d.png",)]


def archive(names):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for seed, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = encoded(seed)[1]
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def test_images_of_an_archive_by_their_names():
    names = ["x/a.png", "notes.txt", "x/b.png", "c.png"]
    sets = list(from_stream(io.BufferedReader(io.BytesIO(archive(names))), 2))
    assert [found.ids for found in sets] == [("x/a.png", "x/b.png"), ("c.png",)]
    (batch,) = sets[0].batches(PREPROCESSING, 2)
    np.testing.assert_array_equal(batch.images, [encoded(0)[0], encoded(2)[0]])


@pytest.mark.parametrize("size", [600, 1100, 1500, 2048])
def test_an_archive_that_was_cut(size):
    """Some is there; that not all is is told."""
    cut = io.BufferedReader(io.BytesIO(archive(["a.png", "b.png", "c.png"])[:size]))
    found = []
    with pytest.raises(UsageError, match="images: got a tar archive that is damaged or ends early"):
        for images in from_stream(cut, 1):
            found += images.ids
    assert found == ["a.png", "b.png"][: size // 1024]


def test_a_watched_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "POLL", 0.01)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"1")
    os.utime(tmp_path / "in" / "a.png", (0, 0))
    sets = new_in([tmp_path])
    assert [os.path.basename(path) for path in next(sets).files] == ["a.png"]

    def put():
        time.sleep(0.1)
        (tmp_path / "in" / "new.txt").write_bytes(b"1")
        (tmp_path / "in" / "b.jpg").write_bytes(b"1")  # young: it may be written still
        os.utime(tmp_path / "in" / "b.jpg", (0, 0))

    thread = threading.Thread(target=put)
    thread.start()
    assert [os.path.basename(path) for path in next(sets).files] == ["b.jpg"]
    thread.join()
    with pytest.raises(UsageError, match="wanted a folder to watch"):
        new_in([tmp_path / "nowhere"])


def test_a_file_that_is_being_written_waits(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    written = arrivals._written(str(tmp_path / "a.png"))
    assert written > time.time() - arrivals.SETTLED
    assert arrivals._written(str(tmp_path / "gone.png")) == float("inf")


def test_bytes_are_images_with_names():
    pictures = Pictures([encoded(0)[1], b"no image"], names=("a", "b"))
    (batch,) = pictures.batches(PREPROCESSING, 2)
    np.testing.assert_array_equal(batch.images[0], encoded(0)[0])
    assert batch.valid.tolist() == [True, False] and "not an image" in batch.reasons[1]
    assert pictures.subset(np.array([1])).ids == ("b",)
    other = Pictures([encoded(1)[1], b"no image"], names=("a", "b"))
    assert pictures.fingerprint() != other.fingerprint()
    with pytest.raises(UsageError, match="names: got 1 of 2 images"):
        Pictures([b"1", b"2"], names=("a",))
