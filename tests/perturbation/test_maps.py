"""Maps from elsewhere: what is taken, and one line for everything else."""

import os
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.format import write_array_header_1_0

from jaxood.errors import UsageError
from jaxood.perturbation.maps import read_maps, unique

IDS = ("a.png", "b.png")
MAPS = np.arange(8.0).reshape(2, 2, 2)


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "maps.npz", **arrays)
        return tmp_path / "maps.npz"

    return save


def test_names_that_come_again_have_a_number():
    assert unique(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    assert unique(["a", "a", "a (2)"]) == ["a", "a (3)", "a (2)"]
    assert unique(["a (2)", "a", "a"]) == ["a (2)", "a", "a (3)"]
    assert unique(["a", "a (2)", "a (2)", "a", "a"]) == [
        "a",
        "a (2)",
        "a (2) (2)",
        "a (3)",
        "a (4)",
    ]


def test_maps_are_found_by_name_in_whatever_order(saved):
    file = saved(ids=["x.png", "b.png", "a.png"], mine=np.arange(12).reshape(3, 2, 2))
    found = read_maps({"mine": file}, ("a.png", "b.png", "a.png"))
    assert list(found) == ["mine"]
    wanted = [[[8, 9], [10, 11]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    np.testing.assert_array_equal(found["mine"], wanted)
    assert found["mine"][0].dtype == np.float32


def test_an_image_that_a_file_has_no_map_of(saved):
    (first, second) = read_maps({"mine": saved(ids=IDS[:1], mine=MAPS[:1])}, IDS)["mine"]
    np.testing.assert_array_equal(first, MAPS[0])
    assert second is None


@pytest.mark.parametrize(
    "kind", [np.asarray, partial(jnp.asarray, dtype=jnp.float32)], ids=["host", "device"]
)
def test_an_array_is_in_the_order_of_the_images(kind):
    found = read_maps({"mine": kind(MAPS)}, IDS)
    np.testing.assert_array_equal(found["mine"], MAPS)


def test_a_map_that_is_shared_by_two_sources_of_one_file(saved):
    file = saved(ids=IDS, one=MAPS, two=-MAPS)
    found = read_maps({"one": file, "two": str(file)}, IDS)
    np.testing.assert_array_equal(found["two"], -np.asarray(found["one"]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": IDS}, r"maps: got .*maps\.npz with ids, wanted arrays ids and mine"),
        ({"mine": MAPS}, r"maps: got .*maps\.npz with mine, wanted arrays ids and mine"),
        ({"ids": "a.png", "mine": MAPS}, r"maps: got ids \(\) in .*, wanted a list of image names"),
        ({"ids": [IDS], "mine": MAPS}, r"maps: got ids \(1, 2\) in"),
        ({"ids": [*IDS, "a.png"], "mine": MAPS[[0, 1, 0]]}, "with 1 ids that repeat, wanted an id"),
        ({"ids": IDS, "mine": MAPS[:1]}, r"float64 \(1, 2, 2\), wanted numbers \[2, h, w\]"),
        ({"ids": IDS, "mine": MAPS[:, 0]}, r"float64 \(2, 2\), wanted numbers \[2, h, w\]"),
        ({"ids": IDS, "mine": MAPS[:, :0]}, r"float64 \(2, 0, 2\), wanted numbers"),
        ({"ids": IDS, "mine": MAPS.astype(str)}, r"<U32 \(2, 2, 2\), wanted numbers"),
        ({"ids": IDS, "mine": MAPS.astype(complex)}, r"complex128 \(2, 2, 2\), wanted numbers"),
        (
            {"ids": IDS, "mine": MAPS * np.nan},
            "maps: got mine in .* with nan or inf, wanted values",
        ),
        ({"ids": IDS, "mine": np.where(MAPS == 5, np.inf, MAPS)}, "with nan or inf"),
        ({"ids": IDS, "mine": np.where(MAPS == 5, 1e300, MAPS)}, "with nan or inf"),  # in float32
    ],
)
def test_arrays_that_are_none(saved, arrays, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_maps({"mine": saved(**arrays)}, IDS)
    assert caught.value.argument == "maps" and "\n" not in str(caught.value)


def test_files_that_are_none(saved, tmp_path):
    whole = saved(ids=IDS, mine=np.ones((2, 64, 64))).read_bytes()
    wrong = tmp_path / "wrong.npz"
    contents = [b"", b"text", whole[:100], whole[: len(whole) // 2], whole[:-30]]
    middle = bytearray(whole)
    middle[2000] ^= 255
    for content in [*contents, bytes(middle)]:
        wrong.write_bytes(content)
        with pytest.raises(
            UsageError, match="maps: got .*wrong.npz .*wanted an NPZ file"
        ) as caught:
            read_maps({"mine": wrong}, IDS)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "one.npy", MAPS)
    objects = tmp_path / "objects.npz"
    np.savez(objects, ids=np.array(IDS, object), mine=MAPS)
    for file in (tmp_path / "one.npy", tmp_path / "none.npz", tmp_path, objects):
        with pytest.raises(UsageError, match=f"maps: got {file} .*wanted an NPZ file of arrays"):
            read_maps({"mine": file}, IDS)


def test_a_file_that_says_it_is_enormous(tmp_path):
    import zipfile

    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for name, shape, kind in (("ids", (2,), "<U5"), ("mine", (2, 10**7, 10**7), "<f8")):
            with archive.open(f"{name}.npy", "w") as entry:
                write_array_header_1_0(
                    entry, {"descr": kind, "fortran_order": False, "shape": shape}
                )
    with pytest.raises(UsageError, match="maps: got .*bomb.npz .*wanted an NPZ file of arrays"):
        read_maps({"mine": file}, IDS)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "maps.npz")
    with pytest.raises(UsageError, match="not a regular file"):
        read_maps({"mine": tmp_path / "maps.npz"}, IDS)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (MAPS[:1], r"maps: got mine, float64 \(1, 2, 2\), wanted numbers \[2, h, w\]"),
        (MAPS[0], r"maps: got mine, float64 \(2, 2\)"),
        (MAPS > 3, r"maps: got mine, bool \(2, 2, 2\)"),
        (np.where(MAPS == 5, np.inf, MAPS), "maps: got mine with nan or inf"),
    ],
)
def test_arrays_in_memory_that_are_none(maps, message):
    with pytest.raises(UsageError, match=message):
        read_maps({"mine": maps}, IDS)


@pytest.mark.parametrize("name", ["", "a/b", "random", "banzhaf"])
def test_names_that_are_taken(name):
    with pytest.raises(UsageError, match="^maps: got "):
        read_maps({name: MAPS}, IDS, ["banzhaf"])
