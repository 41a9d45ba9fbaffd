"""Folders, lists and files as image sets: what is in them, and what is named and left out."""

import os
import sys
import threading
import time
from subprocess import run

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from jaxood.data import files
from jaxood.data.decode import MAX_BYTES, decode
from jaxood.data.files import ImageFiles
from jaxood.errors import UsageError
from jaxood.files import printable
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)


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


def small_pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture(40, 40), "PNG"))
    return folder


def reasons_of(images, batch_size=4):
    return {
        index: reason
        for batch in images.batches(SMALL, batch_size)
        for index, reason in batch.reasons.items()
    }


def test_batches_have_one_size_and_mark_what_is_bad(mixed_folder):
    folder, good, bad = mixed_folder
    images = ImageFiles.from_path(folder)
    assert tuple(images.ids) == tuple(sorted(good | bad))
    batches = list(images.batches(SMALL, 3))
    assert [batch.images.shape for batch in batches] == [(3, 32, 32, 3)] * 3
    indices = np.concatenate([batch.indices for batch in batches])
    np.testing.assert_array_equal(indices, [0, 1, 2, 3, 4, 5, 6, 7, -1])
    for batch in batches:
        wrong = [i for i in batch.indices if i >= 0 and images.ids[i] in bad]
        assert list(batch.reasons) == wrong
        for image, valid, index in zip(batch.images, batch.valid, batch.indices, strict=True):
            if index < 0 or images.ids[index] in bad:
                assert not valid and not image.any()
            else:
                assert valid
                np.testing.assert_array_equal(image, decode(good[images.ids[index]], SMALL))
    reasons = {images.ids[index]: reason for index, reason in reasons_of(images).items()}
    assert reasons["zero.png"] == "the file is empty"
    assert reasons["text.jpg"].startswith("not an image")


def test_batches_go_on_in_the_middle(mixed_folder):
    images = ImageFiles.from_path(mixed_folder[0])
    whole = list(images.batches(SMALL, 2))
    rest = list(images.batches(SMALL, 2, start=4))
    assert [batch.indices.tolist() for batch in rest] == [[4, 5], [6, 7]]
    for early, late in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(early.images, late.images)
        assert early.reasons == late.reasons


def test_a_set_does_not_change(mixed_folder):
    images = ImageFiles.from_path(mixed_folder[0])
    before = dict(vars(images))
    first, second = reasons_of(images), reasons_of(images)
    assert first == second and len(first) == 3
    assert {name: vars(images)[name] for name in before} == before
    with pytest.raises(AttributeError):
        images.name = "other"


def test_class_folders_give_labels(tmp_path):
    def filled(root, names):
        small_pictures(tmp_path / root, *(f"{name}/x.png" for name in names))
        images = ImageFiles.from_path(tmp_path / root)
        return images, images.labels.tolist(), images.labels_are_classes, images.class_names

    named, *rest = filled("named", ["zebra", "ant"])
    assert rest == [[0, 1], False, ("ant", "zebra")]
    assert tuple(named.ids) == ("ant/x.png", "zebra/x.png")
    _, *rest = filled("numbers", ["0", "10", "2"])  # sorted as text, numbered by value
    assert rest == [[0, 10, 2], True, ()]
    _, *rest = filled("wnids", ["n01440764", "n15075141"])
    assert rest == [[0, 999], True, ()]
    _, *rest = filled("long", ["99999999999999999999999", "٣"])  # names, not numbers
    assert rest == [[0, 1], False, ("99999999999999999999999", "٣")]


def test_a_subset_keeps_everything_else(tmp_path):
    folder = small_pictures(tmp_path, "ant/a.png", "ant/b.png", "bee/c.png")
    images = ImageFiles.from_path(folder, "insects")
    part = images.subset(np.array([2, 0]))
    assert (tuple(part.ids), part.labels.tolist()) == (("bee/c.png", "ant/a.png"), [1, 0])
    assert (part.name, part.class_names) == ("insects", ("ant", "bee"))
    numbered = ImageFiles.from_path(small_pictures(tmp_path / "n", "3/a.png", "5/b.png"))
    part = numbered.subset(np.array([1]))
    assert part.labels_are_classes and part.labels.tolist() == [5]
    (batch,) = part.batches(SMALL, 1)
    assert batch.valid.all()


def test_an_undecodable_file_may_be_named_twice(tmp_path):
    small_pictures(tmp_path, "good.png")
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "list.txt").write_text("bad.png\ngood.png\ngood.png\nbad.png\n")
    images = ImageFiles.from_path(tmp_path / "list.txt")
    assert list(reasons_of(images, batch_size=2)) == [0, 3]
    assert tuple(images.ids) == ("bad.png", "good.png", "good.png", "bad.png")


def test_missing_and_empty_folders_are_one_line(tmp_path):
    wanted = "a folder, an image, or a .txt or .csv list, that exists"
    for path in (tmp_path / "nowhere", "nul\0", "x" * 5000):
        with pytest.raises(UsageError, match=f"ood: got .*{wanted}"):
            ImageFiles.from_path(path, argument="ood")
    with pytest.raises(UsageError, match=f"images: got nothing, wanted {wanted}"):
        ImageFiles.from_path("")
    with pytest.raises(UsageError, match="images: got .* without an image in it, wanted files"):
        ImageFiles.from_path(tmp_path)


def test_paths_of_several_kinds_are_one_set(tmp_path, monkeypatch):
    monkeypatch.chdir(small_pictures(tmp_path, "photos/a.png", "photos/sub/b.png", "cat.png"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "l.txt").write_text("../cat.png 3\n../photos/a.png 4")
    images = ImageFiles.from_paths(["photos", "cat.png", "lists/l.txt"])
    assert tuple(images.ids) == (
        "photos/a.png",
        "photos/sub/b.png",
        "cat.png",
        "lists/../cat.png",
        "lists/../photos/a.png",
    )
    assert images.labels is None and reasons_of(images) == {}
    assert tuple(ImageFiles.from_paths(["."]).ids)[0] == "cat.png"
    with pytest.raises(UsageError, match="images: got nothing"):
        ImageFiles.from_paths([])


def test_only_regular_files_are_read(tmp_path):
    """A pipe would be waited for, a device never ends."""
    small_pictures(tmp_path, "good.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to("good.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    images = ImageFiles.from_path(tmp_path)
    reasons = {images.ids[index]: reason for index, reason in reasons_of(images).items()}
    odd = "not a regular file"
    missing = "No such file or directory"
    assert reasons == {"pipe.jpg": odd, "zero.jpg": odd, "broken.png": missing}


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    images = ImageFiles.from_path(tmp_path)
    (batch,) = images.batches(SMALL, 1)
    assert not batch.valid.any() and "bytes, more than the" in batch.reasons[0]


def test_links_that_loop_are_followed_once(tmp_path):
    small_pictures(tmp_path, "set/a.png", "set/sub/b.png", "other/c.png")
    (tmp_path / "set" / "again").symlink_to(".")
    (tmp_path / "set" / "sub" / "up").symlink_to("..")
    (tmp_path / "set" / "aside").symlink_to(tmp_path / "other")
    images = ImageFiles.from_path(tmp_path / "set")
    assert tuple(images.ids) == ("a.png", "aside/c.png", "sub/b.png")


def test_folders_that_link_to_each_other_are_soon_walked(tmp_path):
    """Twelve, each with links to all the others: 12! ways lead through them."""
    names = [f"folder{index:02}" for index in range(12)]
    small_pictures(tmp_path, *(f"{name}/a.png" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / other).symlink_to(tmp_path / other)
    images = ImageFiles.from_path(tmp_path)
    assert len(images) <= 2 * 12 and {f"{name}/a.png" for name in names} <= set(images.ids)


def test_the_order_is_that_of_a_walk(tmp_path):
    names = ("z.png", "b/z.png", "b/a/x.png", "a/y.png", "a.png", "b/.git/x.png", "c/notes.md")
    small_pictures(tmp_path, *names)
    expected = ["a.png", "z.png", "a/y.png", "b/z.png", "b/a/x.png"]
    assert list(ImageFiles.from_path(tmp_path).ids) == expected


def test_names_are_printable(tmp_path):
    raw = os.path.join(os.fsencode(tmp_path), b"\xff\x1b[31m.png")
    with open(raw, "wb") as file:
        file.write(encoded(picture(40, 40), "PNG"))
    images = ImageFiles.from_path(tmp_path)
    assert tuple(images.ids) == ("\\udcff\\x1b[31m.png",)
    assert reasons_of(images) == {}
    assert printable("ideographic\u3000blank é") == "ideographic\u3000blank é"


def test_fingerprint_changes_with_a_file(mixed_folder):
    folder, _, _ = mixed_folder
    images = ImageFiles.from_path(folder)
    before = images.fingerprint()
    assert ImageFiles.from_path(folder).fingerprint() == before
    (folder / "grey.png").write_bytes(encoded(picture(70, 91, "L"), "PNG"))
    assert ImageFiles.from_path(folder).fingerprint() != before
    assert images.fingerprint() == before  # of the images as the set was made


def test_decoding_ends_when_the_batches_are_closed(tmp_path, monkeypatch):
    small_pictures(tmp_path, *(f"{index:03d}.png" for index in range(200)))
    read, calls = files.read, []

    def slow_read(path, preprocessing):
        calls.append(path)
        time.sleep(0.01)
        return read(path, preprocessing)

    monkeypatch.setattr(files, "read", slow_read)
    batches = ImageFiles.from_path(tmp_path).batches(SMALL, 2)
    next(batches)
    batches.close()
    ended = len(calls)
    time.sleep(0.3)
    assert len(calls) == ended < 150


@pytest.mark.long
def test_an_error_amid_the_batches_ends_the_process(tmp_path):
    """Nor does an iterator that is suspended amid them keep the interpreter from ending."""
    small_pictures(tmp_path, *(f"{index:03d}.png" for index in range(40)))
    script = (
        "import contextlib\n"
        "from jaxood.data.files import ImageFiles\n"
        "from jaxood.preprocessing import Preprocessing\n"
        f"images = ImageFiles.from_path({str(tmp_path)!r})\n"
        "with contextlib.closing(images.batches(Preprocessing(40, 32), 4)) as batches:\n"
        "    next(batches)\n"
        "    raise OSError('no space left')\n"
    )
    ended = run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "no space left" in ended.stderr


def test_decoding_is_spread_over_threads(tmp_path, monkeypatch):
    small_pictures(tmp_path, *(f"{index:03d}.png" for index in range(8)))
    both = threading.Barrier(2, timeout=30)  # passed by two at once, or never

    def read_together(path, preprocessing):
        both.wait()
        return np.asarray(Image.new("RGB", (32, 32)))

    monkeypatch.setattr(files, "read", read_together)
    assert reasons_of(ImageFiles.from_path(tmp_path)) == {}
