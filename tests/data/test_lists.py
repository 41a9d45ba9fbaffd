"""Lists of images: OpenOOD's, ours and tables with a header; what is in them, what is refused."""

import pytest
from pictures import encoded, picture

from jaxood.data.files import ImageFiles
from jaxood.data.lists import read_list
from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

SMALL = Preprocessing(40, 32)


def small_pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture(40, 40), "PNG"))


def test_lists_are_relative_to_their_folder(tmp_path):
    small_pictures(tmp_path, "in/a b.png", "in/c.png")
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfin/a b.png 7 \r\n\r\nin/c.png -1\t\nin/missing.png 3\n"
    )
    images = ImageFiles.from_path(tmp_path / "list.txt")
    assert images.labels.tolist() == [7, -1, 3] and images.labels_are_classes
    assert tuple(images.ids) == ("in/a b.png", "in/c.png", "in/missing.png")
    (batch,) = images.batches(SMALL, 4)
    assert batch.valid.tolist() == [True, True, False, False]
    assert batch.reasons == {2: "No such file or directory"}


def test_a_list_without_labels_has_paths_with_blanks(tmp_path):
    small_pictures(tmp_path, "a b.png", "c.png")
    (tmp_path / "list.txt").write_text("a b.png\nc.png")
    images = ImageFiles.from_path(tmp_path / "list.txt")
    assert images.labels is None
    (batch,) = images.batches(SMALL, 2)
    assert batch.valid.all()


def test_openoods_lists_are_relative_to_a_root_and_split_at_the_first_blank(tmp_path):
    """Trailing blanks, tabs and returns at the end of a line; -1 is a label only beside others."""
    small_pictures(tmp_path / "images", "in/a.png", "in/c.png")
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "test.txt"
    file.write_bytes(b"\xef\xbb\xbfin/a.png 7 \t\r\n\r\nin/c.png   -1  \r\n")
    images = ImageFiles.from_path(file, root=tmp_path / "images")
    assert tuple(images.ids) == ("in/a.png", "in/c.png")
    assert images.labels.tolist() == [7, -1] and images.labels_are_classes
    (batch,) = images.batches(SMALL, 2)
    assert batch.valid.all()
    file.write_text("in/a.png -1\nin/c.png -1\n")
    listed = read_list(file, "openood")
    assert listed.files == ("in/a.png", "in/c.png")
    assert listed.labels is None and not listed.labels_are_classes
    assert read_list(file).labels.tolist() == [-1, -1]
    file.write_text("in/a.png\nin/c.png\n")
    assert read_list(file, "openood") == (("in/a.png", "in/c.png"), None, False, ())


def test_a_blank_in_a_name_is_for_the_other_convention(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("in/a b.png 7\n")
    assert read_list(file)[0] == ("in/a b.png",)
    with pytest.raises(UsageError, match="line 1: label b.png 7, wanted .* after the first blank"):
        read_list(file, "openood")
    file.write_text('in/a.png {"class_label": 0}\n')
    with pytest.raises(UsageError, match='line 1: label {"class_label": 0}, wanted a class index'):
        read_list(file, "openood")


def test_a_table_with_a_header(tmp_path):
    """Columns by name, in any order; class indices, names of classes, or no labels."""
    small_pictures(tmp_path, "in/a, b.png", "c.png")
    file = tmp_path / "table.csv"
    file.write_bytes(b'\xef\xbb\xbfwidth,label,path\r\n40,3,"in/a, b.png"\r\n\r\n40,0,c.png\r\n')
    images = ImageFiles.from_path(file)
    assert (tuple(images.ids), images.labels.tolist()) == (("in/a, b.png", "c.png"), [3, 0])
    assert images.labels_are_classes and images.class_names == () and images.name == "table"
    (batch,) = images.batches(SMALL, 2)
    assert batch.valid.all()
    file.write_text("path,label\nc.png,zebra\nx.png,ant\ny.png,zebra\nz.png,7\n")
    images = ImageFiles.from_path(file, root=tmp_path / "elsewhere")
    assert images.labels.tolist() == [2, 1, 2, 0] and images.class_names == ("7", "ant", "zebra")
    assert not images.labels_are_classes and images.root == str(tmp_path / "elsewhere")
    file.write_text("path\nc.png\n")
    assert ImageFiles.from_path(file).labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"with the columns \(none\), wanted a header that names one column path"),
        ("c.png,3\n", "with the columns c.png, 3, wanted a header"),
        ("path,label,path\nc.png,3,d.png\n", "with the columns path, label, path"),
        ("path,label\n", "without a row"),
        ("path,label\nc.png\n", "line 2: 1 values, wanted 2, as the header has"),
        ("path,label\nc.png,3\nd.png, \n", "line 3: no label"),
        ("path,label\n,3\n", "line 2: no path"),
        ("path,label\nc.png,99999999999\n", "line 2: label 99999999999"),
        ("path,label\nc.png,--1\n", "line 2: label --1"),
        ('path,label\n"c.png,3\n', "line 2: unexpected end of data"),
        ("path\nc\0.png\n", "line 2: a NUL character"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=f"^train: got {path}.*{message}") as caught:
        ImageFiles.from_path(path, argument="train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png 1\nb.png 99999999999999999999999", "line 2: label 9+, wanted a class index"),
        ("a.png 1\n\nb.png 2147483648", "line 3: label 2147483648, wanted a class index up to"),
        ("a.png ٣", "line 1: label ٣"),
        ("a.png 1\nb.png --1", "line 2: label --1"),
        ("a.png 1\nb.png +1", r"line 2: label \+1"),
        ("a.png 1\nb.png", "line 2: no label, .* as other lines have it"),
        ("a.png\nb\0.png", "line 2: a NUL character"),
        (" \n\n", "which is empty"),
        (b"\xff\xfe\x00", "which is not text"),
    ],
)
def test_wrong_lists_are_one_line(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=f"^train: got {path}.*{message}") as caught:
        ImageFiles.from_path(path, argument="train")
    assert "\n" not in str(caught.value)


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="zero.txt, which is no regular file, wanted a list"):
        read_list(tmp_path / "zero.txt")
