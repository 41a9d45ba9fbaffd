"""Suites by name, of folders, and of the user's own; classes by index, name or WordNet id."""

import importlib.util

import pytest
from pictures import encoded, picture
from references import package_file

from jaxood.data.class_names import class_names, find_class
from jaxood.data.suite import Suite, folders_suite
from jaxood.data.suites import descriptions, suite
from jaxood.errors import UsageError

OWN = """
import numpy as np
from jaxood.data.images import Arrays
from jaxood.data.suites import Suite

known = Arrays(np.zeros((2, 8, 8, 3), np.uint8), None, "known")
MINE = Suite("mine", None, known, {"train": known})


def build():
    return MINE


def number():
    return 7
"""


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(encoded(picture(20, 20), "PNG"))
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_digits_by_name():
    digits = suite("digits")
    assert digits.train is not None and digits.train.name == "digits 0-5, train"
    assert digits.id_test.name == "digits 0-5"
    assert list(digits.ood) == ["digits 6-9", "patches", "noise"]
    assert digits.groups == {"near": ("digits 6-9",), "far": ("patches", "noise")}
    assert suite(digits) is digits


def test_photos_by_name():
    package_file("shapiq_games"), package_file("skimage")
    photos = suite("photos")
    assert photos.train is None and len(photos.id_test) == 31
    assert photos.id_test.name == "ImageNet photographs" and photos.id_test.labels is None
    assert {name: len(images) for name, images in photos.ood.items()} == {"pictures": 18}
    assert photos.ood["pictures"].ids[0] == "brick.png"


def test_every_listed_suite_is_described():
    assert {"digits", "photos", "openood-imagenet", "svhn"} < set(descriptions())
    for name, description in descriptions().items():
        assert 20 < len(description) < 90, name


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="suite: got photos without the package shapiq, .*pip"):
        suite("photos")


def test_suites_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite_of_mine.py").write_text(OWN)
    for source in ("suite_of_mine:MINE", "suite_of_mine:build"):
        found = suite(source)
        assert isinstance(found, Suite) and found.name == "mine" and list(found.ood) == ["train"]
    with pytest.raises(UsageError, match="suite: got suite_of_mine:number, int, wanted a jaxood"):
        suite("suite_of_mine:number")
    with pytest.raises(UsageError, match="suite: got suite_of_mine:nothing"):
        suite("suite_of_mine:nothing")
    with pytest.raises(UsageError, match="suite: got 'digit'.*Did you mean digits"):
        suite("digit")


def test_groups_are_of_sets_of_the_suite_and_do_not_overlap():
    known = suite("digits").id_test
    sets = {"a": known, "b": known}
    grouped = Suite("mine", None, known, sets, groups={"near": ("b",), "far": ()})
    assert grouped.groups["near"] == ("b",) and grouped.shifted == {} == grouped.missing
    with pytest.raises(UsageError, match="groups: got c in near, wanted one of a, b"):
        Suite("mine", None, known, sets, groups={"near": ("c",)})
    with pytest.raises(UsageError, match="groups: got a in near and in far, wanted a set in one"):
        Suite("mine", None, known, sets, groups={"near": ("a",), "far": ("b", "a")})


def test_a_root_is_for_lists(folders):
    (folders / "list.txt").write_text("a/x.png 3\n")
    (folders / "lists").mkdir()
    (folders / "list.txt").rename(folders / "lists" / "list.txt")
    found = folders_suite(None, folders / "lists" / "list.txt", {"far": folders / "b"}, folders)
    assert found.id_test.path(0) == str(folders / "a/x.png")
    for root, message in (
        (folders / "nowhere", "root: got .*nowhere, wanted a folder that exists"),
        ("", "root: got nothing, wanted a folder"),
    ):
        with pytest.raises(UsageError, match=message):
            folders_suite(None, folders / "lists" / "list.txt", {"far": folders / "b"}, root)
    with pytest.raises(UsageError, match=r"root: got .*, wanted a list \(.txt, .csv\) among"):
        folders_suite(None, folders / "a", {"far": folders / "b"}, folders)
    with pytest.raises(UsageError, match="root: got .*, wanted none, as the suite brings its im"):
        suite("digits", folders)


def test_folders_may_be_called_anything(folders):
    names = {"train": folders / "b", "in distribution": str(folders / "c")}
    found = folders_suite(folders / "a", folders / "a", names)
    assert list(found.ood) == list(names)
    assert [images.name for images in found.ood.values()] == list(names)
    assert (found.train.name, found.id_test.name) == ("train", "in distribution")
    assert folders_suite(None, folders / "a", {}).train is None


@pytest.mark.parametrize(
    ("train", "id_test", "ood", "message"),
    [
        ("nowhere", "a", "b", "train: got .*nowhere, wanted a folder"),
        ("a", "empty", "b", "id_test: got .*empty without an image"),
        ("a", "b", "nowhere", "ood: got .*nowhere, wanted a folder"),
        ("a", "b", "b", "ood: got .*b, wanted another folder than that of id_test"),
        ("a", "b", "../a/a", "ood: got .*a, wanted another folder than that of train"),
    ],
)
def test_wrong_folders_name_the_parameter(folders, train, id_test, ood, message):
    (folders / "a" / "a").symlink_to(".")
    ood = folders / "a" / ood if ood.startswith("..") else folders / ood
    with pytest.raises(UsageError, match=message):
        folders_suite(folders / train, folders / id_test, {"far": ood})


@pytest.mark.parametrize(
    ("text", "index"),
    [("0", 0), ("999", 999), ("tench", 0), ("n01440764", 0), ("n15075141", 999)],
)
def test_imagenet_classes(text, index):
    assert find_class(text, class_names(1000)) == index


def test_classes_of_other_models():
    names = ("ant", "7", "bee")
    assert find_class("bee", names) == 2
    assert find_class("1", names) == 1 and find_class("7", names) == 1  # no index: a name
    for text in ("3", "-1", "n01440764", "٢", "99999999999999999999999"):
        with pytest.raises(UsageError, match="target: got .*, wanted an index below 3, or a name"):
            find_class(text, names)
    with pytest.raises(UsageError, match="Did you mean bee"):
        find_class("beee", names)
