"""Files of embeddings, and what is wrong with them."""

import pickle

import numpy as np
import pytest

from jaxood.data.texts import read_texts
from jaxood.errors import UsageError

CLASSES = np.eye(3, 4, dtype=np.float16)


def test_a_file_with_all_parts_and_one_with_classes_alone(tmp_path):
    names = np.array(["cat", "dog", "eel"])
    parts = {"names": names, "negatives": 2 * np.eye(4), "scale": np.float32(50)}
    np.savez(tmp_path / "texts.npz", classes=CLASSES, **parts)
    found = read_texts(tmp_path / "texts.npz")
    np.testing.assert_array_equal(found.classes, np.eye(3, 4))
    np.testing.assert_array_equal(found.negatives, 2 * np.eye(4))
    assert (found.names, found.scale) == (("cat", "dog", "eel"), 50.0)
    np.save(tmp_path / "texts.npy", CLASSES)
    found = read_texts(tmp_path / "texts.npy")
    assert found[1:] == ((), None, None) and found.classes.dtype == np.float32


WRONG = {
    "other": ({"classes": CLASSES, "labels": CLASSES}, "an array ['labels'], wanted only classes"),
    "none": ({"names": np.array(["a"])}, "without classes, wanted an array `classes`"),
    "flat": (
        {"classes": CLASSES[0]},
        "classes, float16 (4,), wanted floating point numbers [n, c]",
    ),
    "whole": ({"classes": np.eye(3, dtype=int)}, "classes, int64 (3, 3), wanted floating point"),
    "empty": ({"classes": CLASSES[:0]}, "classes, float16 (0, 4), wanted"),
    "zero": ({"classes": CLASSES * [[1], [1], [0]]}, "classes with rows that are not finite, or 0"),
    "infinite": ({"classes": np.full((2, 2), np.inf)}, "not finite"),
    "width": (
        {"classes": CLASSES, "negatives": np.eye(3)},
        "negatives, float64 (3, 3), wanted floating point numbers [n, 4]",
    ),
    "names": (
        {"classes": CLASSES, "names": np.array(["cat"])},
        "names, <U3 (1,), wanted 3 texts, one a class",
    ),
    "numbers": ({"classes": CLASSES, "names": np.arange(3)}, "names, int64 (3,), wanted 3 texts"),
    "scale": ({"classes": CLASSES, "scale": np.float32(-1)}, "scale -1.0, wanted a number above 0"),
    "scales": ({"classes": CLASSES, "scale": np.ones(2)}, "scale [1. 1.], wanted a number above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_go_together(tmp_path, case):
    arrays, line = WRONG[case]
    np.savez(tmp_path / "texts.npz", **arrays)
    with pytest.raises(UsageError) as error:
        read_texts(tmp_path / "texts.npz")
    assert error.value.argument == "texts" and line in str(error.value)


class Runs:
    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def test_files_of_other_kinds_and_pickles(tmp_path):
    np.savez(tmp_path / "objects.npz", classes=np.array([Runs()], object))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Runs()))
    (tmp_path / "text.npz").write_text("a cat")
    np.savez(tmp_path / "half.npz", classes=np.random.default_rng(0).normal(size=(99, 99)))
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:40_000])
    for name in ("objects.npz", "pickle.npy", "text.npz", "half.npz"):
        with pytest.raises(UsageError, match="wanted a whole .npz or .npy file of arrays, without"):
            read_texts(tmp_path / name)
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(UsageError, match="texts: got .*, wanted an existing .npz or .npy file"):
            read_texts(path)
