"""Two processes with four devices each do one run together, and end together."""

import collections
import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from processes import RESULTS, ended, images, started, untrained

from jaxood.data.files import ImageFiles

HERE = str(Path(__file__).parent)
SAME = [name for name in RESULTS if name not in ("manifest.json", "report.html")]
METHODS = ("knn", "sfp+mahalanobis", "react+energy")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("weights") / "weights.safetensors")


def environment(folder: Path) -> dict[str, str]:
    """Four devices; counted_suite can be imported, and writes to the folder."""
    paths = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
    devices = "--xla_force_host_platform_device_count=4"
    return {"XLA_FLAGS": devices, "PYTHONPATH": paths, "READ": str(folder / "read.txt")}


def alone(cache, folder, command):
    return ended(started(cache, *command, env=environment(folder)))


def together(cache, folder, command, other=None, mishaps=({}, {})):
    """Exit code, output and error output of processes 0 and 1.

    Args:
      other: the command of process 1, where it is another.
      mishaps: what else the environment of each has.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = ["--distributed", "--coordinator", address, "--processes", 2, "--lost-after", 10]
    commands = [[*command, *shared], [*(other or command), *shared]]
    running = [
        started(cache, *commands[i], "--process", i, env=environment(folder) | mishaps[i])
        for i in range(2)
    ]
    try:
        return [ended(process, 300) for process in running]
    finally:
        for process in running:
            process.kill()


def evaluation(weights, output, methods=("knn",)):
    asked = ["evaluate", "--suite", "counted_suite:suite", "--weights", weights, "--batch-size", 8]
    return [*asked, "--bank-fraction", 0.9, "--output", output, "--method", *methods]


def read(folder: Path) -> dict[str, int]:
    """How often each image was."""
    return collections.Counter((folder / "read.txt").read_text().split())


def codes(found) -> list[int]:
    return [code for code, _, _ in found]


def assert_same_scores(left: Path, right: Path) -> None:
    for name in SAME:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


def read_alone(cache, folder, command) -> dict[str, int]:
    """How often one process reads each image: once, and some for the page."""
    code, _, error = alone(cache, folder, command)
    assert code == 0, error
    counts = read(folder)
    (folder / "read.txt").unlink()
    assert len(counts) == 54 + 41 + 90 + 1  # the bank of the training images, and all others
    return counts


@pytest.mark.parametrize("methods", [("knn",), pytest.param(METHODS, marks=pytest.mark.long)])
def test_two_processes_find_what_one_finds(cache, weights, tmp_path, methods):
    """Bit for bit, with as many images a step on a device; each is read as often in all."""
    counts = read_alone(cache, tmp_path, evaluation(weights, tmp_path / "one", methods))
    found = together(cache, tmp_path, evaluation(weights, tmp_path / "two", methods))
    assert codes(found) == [0, 0], found
    assert_same_scores(tmp_path / "one", tmp_path / "two")
    (_, printed, _), (_, unheard, _) = found
    assert printed.startswith("OOD set") and "13 of 90 images left out" in printed and not unheard
    assert read(tmp_path) == counts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "read.txt", "two"]
    stores = sorted(path.name for path in (tmp_path / "two" / "features").iterdir())
    assert stores == ["process-0-of-2", "process-1-of-2"]


@pytest.mark.long
def test_separate_disks(cache, weights, tmp_path):
    commands = [evaluation(weights, tmp_path / name) for name in ("out", "disk")]
    once = read_alone(cache, tmp_path, evaluation(weights, tmp_path / "one"))
    assert codes(together(cache, tmp_path, *commands)) == [0, 0]
    assert_same_scores(tmp_path / "one", tmp_path / "out")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["features"]
    (tmp_path / "read.txt").unlink()
    assert codes(together(cache, tmp_path, *commands)) == [0, 0]
    again = read(tmp_path) + collections.Counter(dict.fromkeys(once, 1))
    assert again == once  # each went on from its own store; some are shown on the page


COMMANDS = {
    "fit": ["--method", "nnguide", "--train-dir", "{images}", "--id-dir", "{others}"],
    "detect": ["{images}", "--format", "csv", "--detector", "{detector}"],
    "attribute": ["{images}", "--method", "banzhaf", "grad-cam"],
    "road": ["{images}", "--steps", 4, "--random-maps", 1],
    "faithfulness": ["{images}", "--measure", "deletion", "sensitivity-n", "--random-maps", 1],
}
PARTIAL = {"command.toml", "manifest.json", "report.html", "features", "measured.jsonl"}


def written(path: Path) -> dict[str, bytes]:
    """The files of a result, or the one that it is."""
    files = [path] if path.is_file() else path.rglob("*")
    named = {str(file.relative_to(path.parent)): file for file in files if file.is_file()}
    return {
        name.partition("/")[2]: file.read_bytes()
        for name, file in named.items()
        if not PARTIAL & set(file.parts) and "process-" not in name
    }


def assert_same_values(left: Path, right: Path) -> None:
    """Rows of a CSV file whose last column is a number."""
    one, two = (
        [line.rpartition(",") for line in path.read_text().splitlines()[1:]]
        for path in (left, right)
    )
    assert [about for about, _, _ in one] == [about for about, _, _ in two]
    numbers = [[float(value) for _, _, value in rows] for rows in (one, two)]
    np.testing.assert_allclose(*numbers, rtol=1e-6, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_gives_what_one_process_gives(cache, weights, tmp_path, command):
    """One image cannot be decoded."""
    shown = images(tmp_path / "images", 18)
    (shown / "0011.png").write_bytes(b"broken")
    named = {"images": shown, "others": images(tmp_path / "others", 9, 1)}
    named["detector"] = tmp_path / "detector.safetensors"

    def asked(name, output):
        options = [str(one).format(**named) for one in COMMANDS[name]]
        there = [] if name == "detect" else ["--output", output]
        return [name, *options, "--weights", weights, "--batch-size", 4, *there]

    if command == "detect":
        assert alone(cache, tmp_path, asked("fit", named["detector"]))[0] == 0
    code, printed, error = alone(cache, tmp_path, asked(command, tmp_path / "one"))
    assert code == 0, error
    found = together(cache, tmp_path, asked(command, tmp_path / "two"))
    assert codes(found) == [0, 0], found
    assert found[0][1] == printed.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert not found[1][1] and "0011.png" in found[0][1] + found[0][2]
    if command == "faithfulness":  # some sums are over other images, and round otherwise
        assert_same_values(tmp_path / "one" / "values.csv", tmp_path / "two" / "values.csv")
    elif command != "detect":
        one, two = written(tmp_path / "one"), written(tmp_path / "two")
        assert one and one.keys() == two.keys()
        assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.long
def test_a_process_that_is_killed(cache, weights, tmp_path):
    """The other ends; all is done again together, and nothing twice but the last chunk."""
    once = read_alone(cache, tmp_path, evaluation(weights, tmp_path / "one"))
    asked = evaluation(weights, tmp_path / "two")
    begun = time.monotonic()
    found = together(cache, tmp_path, asked, mishaps=({}, {"KILLED_AT": "foreign:80"}))
    assert codes(found)[1] == -9 and codes(found)[0] != 0 and time.monotonic() - begun < 60
    assert not any((tmp_path / "two" / name).exists() for name in RESULTS)
    found = together(cache, tmp_path, asked)
    assert codes(found) == [0, 0], found
    assert_same_scores(tmp_path / "one", tmp_path / "two")
    again = set(read(tmp_path) - once)
    assert not once - read(tmp_path)
    # Process 1 has 45 to 89, in steps of 8 and chunks of 16; it was killed as it read 77 to 84.
    assert again and again <= {f"foreign:{number}" for number in range(61, 77)}


@pytest.mark.long
@pytest.mark.parametrize("teller", [0, 1])
def test_a_full_disk_of_one_process_ends_both(cache, weights, tmp_path, teller):
    full = {"FULL_AT": "foreign:20" if teller == 0 else "foreign:80"}
    mishaps = (full, {}) if teller == 0 else ({}, full)
    found = together(cache, tmp_path, evaluation(weights, tmp_path / "out"), mishaps=mishaps)
    assert codes(found) == [1, 1], found
    assert "jaxood evaluate: No space left on device" in found[teller][2]
    told = [line for line in found[1 - teller][2].splitlines() if line.startswith("process")]
    assert len(told) == 1 and told[0].startswith(f"process {teller}: ")
    assert "No space left on device" in told[0]
    assert not any("Traceback" in error for _, _, error in found)
    assert not any((tmp_path / "out" / name).exists() for name in RESULTS)


@pytest.fixture
def folders(weights, tmp_path):
    """A command on two folders of images, and what it is on another machine's."""

    def command(ood, *more):
        asked = ["evaluate", "--weights", weights, "--method", "sfp", "--id-dir", known]
        return [*asked, "--ood-dir", f"other={ood}", "--output", tmp_path / "out", *more]

    known, command.other = images(tmp_path / "known", 20), images(tmp_path / "other", 10)
    return command


@pytest.mark.long
def test_processes_that_do_not_see_the_same(cache, tmp_path, folders):
    copied = shutil.copytree(folders.other, tmp_path / "copied")
    (copied / "0003.png").write_bytes((copied / "0003.png").read_bytes() + b"\n")
    found = together(cache, tmp_path, folders(folders.other), folders(copied))
    said = 'images: got other images in "other" on process 1 than on process 0, wanted the same'
    assert codes(found) == [2, 2] and all(said in error for _, _, error in found), found


@pytest.mark.long
def test_processes_that_are_asked_for_different_things(cache, tmp_path, folders):
    other = folders(folders.other, "--seed", 1)
    found = together(cache, tmp_path, folders(folders.other), other)
    said = "arguments: got other ones on process 1 than on process 0, wanted the same on all"
    assert codes(found) == [2, 2] and all(said in error for _, _, error in found), found
    found = together(cache, tmp_path, folders(folders.other), folders(tmp_path / "none"))
    said = f"--ood-dir: got {tmp_path / 'none'}, wanted a folder"
    assert codes(found) == [2, 2] and all(said in error for _, _, error in found), found
    assert not any("Traceback" in error for _, _, error in found)


def test_copies_are_the_same_images_whenever_they_were_written(tmp_path):
    left = images(tmp_path / "left", 5)
    right = shutil.copytree(left, tmp_path / "right", copy_function=shutil.copyfile)
    os.utime(right / "0002.png", (1, 1))
    one, other = ImageFiles.from_path(left), ImageFiles.from_path(right)
    assert one.sizes == other.sizes and one.fingerprint() != other.fingerprint()
    (right / "0002.png").write_bytes(b"")
    assert one.sizes != ImageFiles.from_path(right).sizes


WRONG = {
    "--coordinator=x:1": "--coordinator: got x:1, wanted --distributed beside it",
    "--distributed --coordinator=x:1": "--processes: got nothing beside coordinator x:1, wanted",
    "--distributed --processes=2 --process=1": "--coordinator: got nothing beside processes 2",
    "--distributed --coordinator=x --processes=2 --process=1": "--coordinator: got x, wanted HOST",
    "--distributed --coordinator=x:1 --processes=2 --process=2": "--process: got 2, wanted 0 to 1",
    "--distributed": "--distributed: got ",
}


@pytest.mark.parametrize("options", WRONG)
def test_options_that_do_not_fit(options, tmp_path, capsys, monkeypatch):
    import jax

    from jaxood.cli import main

    def refused(*arguments, **how):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refused)
    assert main("evaluate", [*options.split(), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"jaxood evaluate: {WRONG[options]}")
