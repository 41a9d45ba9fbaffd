"""Prepared images kept on disk: the same batches, nothing decoded twice, nothing damaged served."""

import logging
import shutil
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import encoded, picture

from jaxood.data import cached, files
from jaxood.data.cached import cached_batches, require_space
from jaxood.data.files import ImageFiles
from jaxood.data.images import Arrays, Pictures
from jaxood.data.relabelled import Relabelled
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)
IMAGE = 32 * 32 * 3  # bytes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """22 files, two of which are damaged; 8 go into a chunk."""
    monkeypatch.setattr(cached, "CHUNK", 8)
    (tmp_path / "set").mkdir()
    for index in range(22):
        content = encoded(picture(50 + index, 45), "JPEG")
        cut = index in (3, 21)
        (tmp_path / "set" / f"{index:02}.jpg").write_bytes(content[: 700 if cut else None])
    return tmp_path / "set"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are read, from then on."""
    names, read = [], files.read

    def noted(path, preprocessing):
        names.append(int(path[-6:-4]))
        return read(path, preprocessing)

    monkeypatch.setattr(files, "read", noted)
    return names


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert one.reasons == other.reasons


@pytest.mark.parametrize("batch_size", [3, 8, 30])
def test_a_second_pass_gives_the_same_and_decodes_nothing(folder, tmp_path, decoded, batch_size):
    images = ImageFiles.from_path(folder)
    for start in (0, 5, 22):
        cached_one = tmp_path / f"cache-{start}"
        expected = list(images.batches(SMALL, batch_size, start))
        assert_same(cached_batches(images, cached_one, SMALL, batch_size, start), expected)
        list(cached_batches(images, cached_one, SMALL, 7))
        decoded.clear()
        assert_same(cached_batches(images, cached_one, SMALL, batch_size, start), expected)
        assert decoded == []


def test_a_pass_goes_on_where_another_stopped(folder, tmp_path, decoded):
    images = ImageFiles.from_path(folder)
    with closing(cached_batches(images, tmp_path / "cache", SMALL, 3)) as batches:
        for _ in range(4):  # 12 images: one chunk and a half
            next(batches)
    expected = list(images.batches(SMALL, 5))
    decoded.clear()
    assert_same(cached_batches(images, tmp_path / "cache", SMALL, 5), expected)
    assert min(decoded) == 5  # of the batch that begins in the first chunk and ends in the next


def test_a_damaged_file_is_told_and_made_again(folder, tmp_path, decoded, caplog):
    images = ImageFiles.from_path(folder)
    expected = list(images.batches(SMALL, 4))
    list(cached_batches(images, tmp_path / "cache", SMALL, 4))
    first, second, last = sorted((tmp_path / "cache").glob("*/*.images"))
    whole = second.read_bytes()
    changed = bytearray(whole)
    changed[-5] ^= 4
    for content in (changed, whole[:-1], whole[:30], b"", b"\n", first.read_bytes(), b"\xff" * 99):
        second.write_bytes(content)
        caplog.clear()
        decoded.clear()
        with caplog.at_level(logging.WARNING):
            assert_same(cached_batches(images, tmp_path / "cache", SMALL, 4), expected)
        assert caplog.messages == [f"{second} is damaged: decoded again"]
        assert min(decoded) == 8 and second.read_bytes() == whole
    last.unlink()
    decoded.clear()
    assert_same(cached_batches(images, tmp_path / "cache", SMALL, 4), expected)
    assert min(decoded) == 16


def test_other_images_or_sizes_are_not_served(folder, tmp_path, decoded):
    images = ImageFiles.from_path(folder)
    list(cached_batches(images, tmp_path / "cache", SMALL, 4))
    for preprocessing in (Preprocessing(41, 32), Preprocessing(40, 32, "bicubic")):
        expected = list(images.batches(preprocessing, 4))
        assert_same(cached_batches(images, tmp_path / "cache", preprocessing, 4), expected)
    decoded.clear()
    shown_otherwise = Preprocessing(40, 32, mean=(0.5, 0.5, 0.5))  # normalised later
    list(cached_batches(images, tmp_path / "cache", shown_otherwise, 4))
    assert decoded == []
    (folder / "00.jpg").write_bytes(encoded(picture(70, 45), "JPEG"))
    changed = ImageFiles.from_path(folder)
    expected = list(changed.batches(SMALL, 4))
    assert_same(cached_batches(changed, tmp_path / "cache", SMALL, 4), expected)


def test_images_in_memory_are_not_kept(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    labelled = Arrays(array, np.zeros(5, int), "labelled", class_names=("cat",))
    renamed = Relabelled(labelled, np.array([3]), ("bee", "cow", "dog", "cat"))
    for images in (labelled, renamed, Pictures(list(array))):
        expected = list(images.batches(SMALL, 2))
        assert_same(cached_batches(images, tmp_path / "cache", SMALL, 2), expected)
        require_space([images, None], tmp_path / "cache", SMALL)
    assert not (tmp_path / "cache").exists()


def test_the_space_is_told_and_must_be_there(folder, tmp_path, monkeypatch, caplog):
    images, cache = ImageFiles.from_path(folder), tmp_path / "not" / "there"
    looked_at = []

    def disk(free):
        def usage(path):
            looked_at.append(path)
            return SimpleNamespace(free=free)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    disk(22 * IMAGE)
    require_space([images, None], cache, SMALL)
    assert looked_at == [tmp_path]
    assert caplog.messages == [f"0.1 MB of images will be kept in {cache}, with 0.1 MB free"]
    disk(22 * IMAGE - 1)
    wanted = r"cache_images: got .*there, with 0.1 MB free, wanted a folder on a disk with 0.1 MB"
    with pytest.raises(UsageError, match=wanted):
        require_space([images, None], cache, SMALL)
    with closing(cached_batches(images, cache, SMALL, 8)) as batches:
        next(batches), next(batches)
    disk(6 * IMAGE)
    require_space([images], cache, SMALL)
    disk(6 * IMAGE - 1)
    with pytest.raises(UsageError, match="cache_images"):
        require_space([images], cache, SMALL)
    list(cached_batches(images, cache, SMALL, 8))
    caplog.clear()
    disk(0)
    require_space([images], cache, SMALL)
    assert caplog.messages == []
