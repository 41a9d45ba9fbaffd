"""Suites as tables: those that jaxood carries, and what is refused in one of the user's own."""

import logging
import re

import numpy as np
import pytest
from pictures import encoded, picture

import jaxood
from jaxood.data import suite_table
from jaxood.data.images import Arrays
from jaxood.data.suite_check import check_suite, describe_suite
from jaxood.data.suites import suite, tables
from jaxood.errors import UsageError

# Lines of public copies of OpenOOD v1.5's lists, by name; None: no copy was at hand.
IMAGENET_OOD = {
    "val_openimage_o": 1763,
    "test_ssb_hard": 49000,
    "test_ninco": 5879,
    "test_inaturalist": 10000,
    "test_textures": 5160,
    "test_openimage_o": 15869,
}
CIFAR_FAR = {"test_mnist": 70000, "test_svhn": 26032, "test_texture": 5640}
LINES = {
    "openood-imagenet": IMAGENET_OOD
    | {"train_imagenet": 1281167, "val_imagenet": 5000, "test_imagenet": 45000}
    | {"test_imagenet_v2": 10000, "test_imagenet_c": 10000, "test_imagenet_r": 30000}
    | {"test_imagenet_es": None},
    "openood-imagenet200": IMAGENET_OOD
    | {"train_imagenet200": None, "val_imagenet200": 1000, "test_imagenet200": 9000}
    | {"test_imagenet200_v2": 2000, "test_imagenet200_c": 2000, "test_imagenet200_r": 30000},
    "openood-cifar10": CIFAR_FAR
    | {"train_cifar10": 50000, "val_cifar10": 1000, "test_cifar10": 9000, "val_tin": 1000}
    | {"test_cifar100": 9000, "test_tin": 7793, "test_places365": 35195, "test_cifar10c": 10000},
    "openood-cifar100": CIFAR_FAR
    | {"train_cifar100": 50000, "val_cifar100": 1000, "test_cifar100": 9000, "val_tin": 972}
    | {"test_cifar10": 10000, "test_tin": 6526, "test_places365": 33773},
}
CLASSES = {"imagenet": 1000, "imagenet200": 200, "cifar10": 10, "cifar100": 100}


@pytest.mark.parametrize("name", LINES)
def test_the_lists_of_openood(name):
    table = tables()[name]
    benchmark = name.removeprefix("openood-")
    for entry in table.entries:
        assert entry.is_list and entry.convention == "openood" and entry.source, entry.key
        assert entry.paths[0].startswith(f"benchmark_imglist/{benchmark}/"), entry.key
        textures = entry.name == "textures"
        classic = textures or benchmark.startswith("cifar")
        assert entry.images == ("images_classic" if classic else "images_largescale"), entry.key
        assert entry.cropped == (entry.name == "imagenet_c")
    counts = {re.split(r"[/.]", entry.paths[0])[-2]: entry.count for entry in table.entries}
    assert counts == LINES[name]
    assert list(table.groups) == ["near", "far"]
    assert table.classes == {"imagenet": 1000, "imagenet200": 200, "cifar10": 10}.get(
        benchmark, 100
    )


def test_sets_of_tfds_go_to_the_reader_of_images(monkeypatch):
    """What TFDS has not prepared is said where it is needed; no root is asked for."""
    asked = {}

    def stub(source, name, argument):
        asked[name] = source
        if source == "tfds:cifar10:train":
            raise UsageError(argument, source, "a set that is prepared", "Prepare it")
        return Arrays(np.zeros((2, 32, 32, 3), np.uint8), np.array([3, 1]), name)

    monkeypatch.setattr(suite_table, "image_set", stub)
    found = suite("cifar10")
    assert asked == {
        "train": "tfds:cifar10:train",
        "cifar10": "tfds:cifar10:test",
        "cifar100": "tfds:cifar100:test",
        "svhn": "tfds:svhn_cropped:test",
    }
    assert found.missing == {"train": "train: tfds:cifar10:train"} and found.train is None
    assert found.groups == {"near": ("cifar100",), "far": ("svhn",)} and found.classes == 10
    looked = {entry.key: entry.problem for entry in check_suite("cifar10").sets}
    assert looked["train"] == "tfds:cifar10:train. Prepare it"
    assert looked["ood.svhn"] == "2 images instead of 26,032"
    with pytest.raises(UsageError, match="root: got /, wanted none, as nothing of cifar10 lies"):
        suite("cifar10", "/")


@pytest.fixture
def folder(tmp_path):
    for name in ("known/cat/a.png", "known/ant/b.png", "far/c.png", "far/d.png", "lists/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(20, 20), "PNG"))
    (tmp_path / "lists/far.txt").write_text("far/c.png 7\nfar/d.png 8\n")
    return tmp_path


def written(folder, text):
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_a_table_of_ones_own(folder, caplog):
    text = """
    classes = 2
    [id_test]
    path = ["absent", "known"]
    count = 3
    [id_validation]
    path = "nowhere"
    count = 5
    source = "somebody"
    [ood.train]
    list = "lists/far.txt"
    images = "."
    group = "near"
    [ood.'far, too']
    path = "far"
    """
    for source in (str(written(folder, text)), written(folder, text)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "jaxood"):
            found = suite(source)
        assert caplog.messages == ["mine: id_test has 2 images, 3 are expected"]
    assert (found.name, found.classes, found.id_test.name) == ("mine", 2, "in distribution")
    assert found.id_test.class_names == ("ant", "cat") and found.id_test.labels.tolist() == [0, 1]
    assert found.groups == {"near": ("train",)} and list(found.ood) == ["train", "far, too"]
    assert found.ood["train"].labels is None  # of another world than the model's classes
    assert found.ood["train"].path(1) == str(folder / "far/d.png")
    assert set(found.missing) == {"id_validation"} and found.id_validation is None
    elsewhere = suite(
        written(folder, text.replace('"far"', f'"{folder}/far"')), folder / "far" / ".."
    )
    assert len(elsewhere.ood["far, too"]) == 2
    told = check_suite(folder / "mine.toml")
    assert not told.complete
    assert [(entry.key, entry.found, entry.expected, entry.problem) for entry in told.sets] == [
        ("id_validation", 0, 5, f"{folder}/nowhere is not there"),
        ("id_test", 2, 3, "2 images instead of 3"),
        ("ood.train", 2, 2, ""),
        ("ood.far, too", 2, None, ""),
    ]


def test_every_listed_file_is_looked_for(folder):
    text = '[id_test]\npath = "known"\n[ood.far]\nlist = "lists/far.txt"\nimages = "."\ncount = 2'
    whole = check_suite(written(folder, text))
    assert whole.complete and str(whole).endswith("\nall there")
    (folder / "far/d.png").unlink()
    (entry,) = (one for one in check_suite(folder / "mine.toml").sets if one.key == "ood.far")
    assert (entry.found, entry.expected) == (1, 2)
    assert entry.problem == f"1 of its list are not there, such as {folder}/far/d.png"
    assert len(suite(folder / "mine.toml").ood["far"]) == 2  # told of at the end, as undecodable
    (folder / "lists/far.txt").write_text("far/c.png 7\n")
    (entry,) = (one for one in check_suite(folder / "mine.toml").sets if one.key == "ood.far")
    assert (entry.found, entry.problem) == (1, "its list has 1 lines: one of another version")
    (folder / "far/c.png").unlink()
    with pytest.raises(UsageError, match=f"ood.far: {folder}/far/c.png is not there, wanted its 2"):
        suite(folder / "mine.toml")


def test_a_suite_in_memory_can_be_described():
    told = describe_suite("digits")
    assert [(entry.key, entry.group, entry.expected) for entry in told.sets] == [
        ("train", "", 758),
        ("id_test", "", 325),
        ("ood.digits 6-9", "near", 714),
        ("ood.patches", "far", 500),
        ("ood.noise", "far", 500),
    ]
    assert check_suite(jaxood.suite("digits")).complete
    with pytest.raises(UsageError, match="root: got x, wanted none"):
        check_suite("digits", "x")


ID, FAR = '[id_test]\npath = "known"\n', '[ood.far]\npath = "far"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", r"suite: got FILE \(.*\), wanted a TOML file"),
        (b"\xff", r"suite: got FILE \(.*\), wanted a TOML file"),
        (ID, r"suite: got FILE without \[ood.NAME\], wanted it"),
        (FAR, r"suite: got FILE without \[id_test\], wanted it"),
        (ID + FAR + "[tain]\npath = 'x'", "FILE: tain, wanted one of descr.*Did you mean train"),
        ("lists = 'x'\n" + ID + FAR, "FILE: lists 'x', wanted one of jaxood, openood"),
        ("lists = 3\n" + ID + FAR, "FILE: lists 3, wanted text"),
        ("classes = 0\n" + ID + FAR, "FILE: classes 0, wanted a whole number of at least 1"),
        ("train = 'x'\n" + ID + FAR, "FILE: train 'x', wanted a table"),
        ("[ood]\nfar = 'x'\n" + ID, "FILE: ood: far 'x', wanted a table"),
        (ID + FAR + "cuont = 3", r"FILE: \[ood.far\]: cuont, wanted .*Did you mean count"),
        (ID + FAR + "count = true", r"FILE: \[ood.far\]: count True, wanted a whole number"),
        (ID + FAR + "count = 2.0", r"FILE: \[ood.far\]: count 2.0, wanted a whole number"),
        (ID + FAR + "cropped = 1", r"FILE: \[ood.far\]: cropped 1, wanted true or false"),
        (ID + FAR + "name = 'x'", r"\[ood.far\]: name 'x', wanted it in \[id_test\] only"),
        (ID + FAR + "images = 'x'", "images 'x', wanted it beside list only"),
        (ID + FAR + "spellings = ['x']", "wanted it beside list only"),
        (ID + FAR + "labels = 'wnid'", "labels 'wnid', wanted it in distribution only"),
        (ID + "labels = 'x'\n" + FAR, "labels 'x', wanted one of wnid, number, none"),
        (ID + "group = 'x'\n" + FAR, r"group 'x', wanted it in \[ood.NAME\] only"),
        (ID + "[ood.far]", r"\[ood.far\] with neither, wanted one of path and list"),
        (ID + FAR + "list = 'x.txt'", r"\[ood.far\] with both, wanted one of path and list"),
        (ID + "[ood.far]\npath = []", r"path \[\], wanted text, or a list of texts"),
        (ID + "[ood.far]\npath = ['a', 3]", "wanted text, or a list of texts"),
        (ID + "[ood.far]\npath = ''", "path '', wanted text"),
        (ID + "[ood.far]\npath = 'a.txt'", "wanted a list as list, and as path anything else"),
        (ID + "[ood.far]\nlist = 'a'", "wanted a list as list, and as path anything else"),
        (ID + "[ood.far]\npath = 'tfds:a:b'\ncropped = true", "wanted it without tfds:"),
        ("[id_test]\nlist = 'a.csv'\nlabels = 'wnid'\n" + FAR, "wanted none, as a list has lab"),
        (ID + "labels = 'wnid'\n" + FAR, "root: got id_test: a class folder ant, wanted class f"),
        (ID + "labels = 'number'\n" + FAR, "wanted class folders named by numbers"),
        ("[id_test]\npath = 'far'\nlabels = 'wnid'\n" + FAR, "id_test: no class folder, wanted"),
        (ID + "[ood.far]\npath = 'empty'", "root: got ood.far: .*empty without an image in it"),
        (ID + "[ood.far]\npath = 'x'\nsource = 'y'", "x is not there.*They come from y"),
        (ID + "[ood.far]\nlist = 'x.txt'\ncount = 9", "x.txt is not there, wanted its 9 images"),
    ],
)
def test_what_is_wrong_in_a_table_is_one_line(folder, text, message):
    (folder / "empty").mkdir()
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message.replace("FILE", str(path))) as caught:
        suite(path)
    assert "\n" not in str(caught.value)


def test_labels_may_say_nothing(folder):
    text = '[id_test]\npath = "known"\nlabels = "none"\n' + FAR
    known = suite(written(folder, text)).id_test
    assert known.labels is None and known.class_names == ()


def test_a_missing_table_or_root_is_one_line(folder):
    with pytest.raises(UsageError, match="suite: got nowhere.toml, wanted a TOML file"):
        suite("nowhere.toml")
    with pytest.raises(UsageError, match="root: got none, wanted the folder in which the"):
        suite("imagenet-sfp")
    with pytest.raises(UsageError, match="root: got /nowhere, wanted a folder that exists"):
        suite("imagenet-sfp", "/nowhere")
    with pytest.raises(UsageError, match="suite: got 'openood-imagnet'.*Did you mean"):
        suite("openood-imagnet", folder)
