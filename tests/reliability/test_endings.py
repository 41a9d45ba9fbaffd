"""Signals, full disks and files that go: the process ends soon, in one line, with nothing torn."""

import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import RESULTS, ended, images, leftovers, results, started, untrained

SOON = 20  # seconds that an ended process may take, on a busy machine
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """Starts the same evaluation into a folder; its files when nothing disturbs it, its seconds."""
    folder = tmp_path_factory.mktemp("endings")
    weights = untrained(folder / "weights.safetensors")
    known, foreign = images(folder / "known", 60), images(folder / "foreign", 400, 1)

    def start(output, *more, **how):
        arguments = ["evaluate", "--weights", weights, "--method", "sfp", "--id-dir", known]
        arguments += ["--ood-dir", f"foreign={foreign}", "--output", output, *more]
        return started(cache, *arguments, **how)

    begun = time.monotonic()
    code, _, error = ended(start(folder / "whole"))
    assert code == 0, error
    start.whole, start.seconds = results(folder / "whole"), time.monotonic() - begun
    start.known, start.foreign, start.weights = known, foreign, weights
    return start


def disturbed(run, output, number, moment):
    """One signal at one moment: the run ends soon, and the next one finishes what it left."""
    process = run(output)
    time.sleep(moment)
    process.send_signal(number)
    begun = time.monotonic()
    code, _, error = ended(process)
    assert time.monotonic() - begun < SOON
    if code != 0:  # it was not over before
        assert code == CODES[number], (number, moment, code, error)
        assert "Traceback" not in error, (number, moment, error)
        assert number == signal.SIGKILL or error.count("interrupted") == 1, (moment, error)
        assert number == signal.SIGKILL or not leftovers(output)
    code, _, error = ended(run(output))
    assert code == 0, error
    assert results(output) == run.whole and not leftovers(output)


@pytest.mark.long
def test_a_run_that_is_ended_goes_on(run, tmp_path):
    disturbed(run, tmp_path / "out", signal.SIGTERM, 0.7 * run.seconds)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
def test_any_moment_will_do(run, tmp_path, number):
    generator = random.Random(int(number))
    for index in range(5):
        # Python has started by then, on a busy machine too.
        moment = generator.uniform(min(2.0, run.seconds / 2), run.seconds)
        disturbed(run, tmp_path / str(index), number, moment)


@pytest.mark.long
def test_a_full_disk_ends_the_run_in_one_line(run, tmp_path):
    output = tmp_path / "out"
    code, _, error = ended(run(output, shell='ulimit -f 4; exec "$@"'))
    lines = [line for line in error.splitlines() if line.startswith("jaxood evaluate: ")]
    assert code == 1 and len(lines) == 1 and "File too large" in lines[0], error
    assert "Traceback" not in error and not leftovers(output)
    assert not set(RESULTS) & {path.name for path in output.iterdir()}
    assert ended(run(output))[0] == 0 and results(output) == run.whole


@pytest.mark.long
def test_two_runs_into_one_folder(run, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: ended(run(tmp_path / "out")), range(2)))
    codes = sorted(code for code, _, _ in found)
    assert codes == [0, 2] and results(tmp_path / "out") == run.whole
    (error,) = [error for code, _, error in found if code == 2]
    assert "--output: got" in error and "no other run is writing to" in error


@pytest.mark.long
def test_another_run_keeps_the_result_of_the_first(run, tmp_path):
    output = tmp_path / "out"
    assert ended(run(output))[0] == 0
    code, _, error = ended(run(output, "--seed", "1"))
    assert code == 0 and f"moved to {output / 'earlier-1'}" in error
    assert results(output / "earlier-1") == run.whole
    assert results(output)["manifest.json"] != run.whole["manifest.json"]


MOUNTING = ("unshare", "--map-root-user", "--mount")  # what is mounted then goes with the process
LIMITS = {
    "file-size limit": ("ulimit -f 4", (), 1, "File too large"),
    "full disk": ("mount -t tmpfs -o size=12k jaxood {}", MOUNTING, 1, "No space left on device"),
    "read-only folder": ("mount -t tmpfs -o ro jaxood {}", MOUNTING, 2, "Read-only file system"),
}


@pytest.mark.long
@pytest.mark.parametrize("command", ["evaluate", "attribute", "road", "fit"])
@pytest.mark.parametrize("limit", LIMITS)
def test_what_cannot_be_written_ends_every_command(run, cache, tmp_path, command, limit):
    limited, within, code, told = LIMITS[limit]
    if limit == "full disk" and command in ("evaluate", "attribute"):
        code, told = 2, "that are free there"  # what will be stored is known before the pass
    if within and subprocess.run([*within, "true"]).returncode:
        pytest.skip("no right to mount")
    output, data = tmp_path / "out", ["--id-dir", run.known]
    output.mkdir()
    arguments = {
        "evaluate": [*data, "--ood-dir", f"foreign={run.foreign}", "--output", output],
        "attribute": [run.known, "--coalitions", "8", "--output", output],
        "road": [run.known, "--steps", "2", "--random-maps", "1", "--output", output],
        "fit": [*data, "--train-dir", run.foreign, "--output", output / "d", "--method", "knn"],
    }[command]
    shell = f'{limited.format(output)}; "$@"; code=$?; find {output} -type f >&2; exit $code'
    arguments = [command, "--weights", run.weights, *arguments]
    process = started(cache, *arguments, shell=shell, within=within)
    ended_with, _, error = ended(process)
    lines = [line for line in error.splitlines() if line.startswith(f"jaxood {command}: ")]
    assert ended_with == code and len(lines) == 1 and told in lines[0], error
    left = error.partition(lines[0])[2].splitlines()
    assert "Traceback" not in error and not any(line.endswith("partial") for line in left), error
    assert not any(Path(line).name in (*RESULTS, "d") for line in left), error


def first_set_stored(output):
    """Whether rows of it are written: its files are open then."""
    return any(path.stat().st_size for path in output.glob("features/*/*/chunks.jsonl"))


@pytest.mark.long
def test_what_goes_while_a_run_is_on(run, tmp_path):
    output, moved = tmp_path / "out", run.foreign.with_name("moved")
    shutil.copytree(run.foreign, moved)
    process = run(output, "--ood-dir", f"moved={moved}", "--method", "msp")
    while not first_set_stored(output) and process.poll() is None:
        time.sleep(0.05)
    shutil.rmtree(output)
    for image in sorted(moved.iterdir())[200:]:
        image.unlink()
    code, printed, error = ended(process)
    assert code == 0, error
    assert "moved: 200 of 400 images left out" in printed
    assert all((output / name).exists() for name in RESULTS)


FULL = 'exec "$@" > /dev/full'


def test_an_output_that_takes_no_more(cache):
    for arguments in (["models"], ["--version"]):
        code, _, error = ended(started(cache, *arguments, shell=FULL), SOON)
        name = "jaxood models" if arguments == ["models"] else "jaxood"
        assert code == 1 and error == f"{name}: No space left on device\n"


@pytest.mark.long
def test_results_and_verdicts_on_an_output_that_takes_no_more(cache, run, tmp_path):
    code, _, error = ended(run(tmp_path / "out", shell=FULL))
    assert code == 1 and error.endswith("\njaxood evaluate: No space left on device\n")
    assert results(tmp_path / "out") == run.whole
    given, detector = ["--weights", run.weights], tmp_path / "detector"
    fitted = started(
        cache, "fit", *given, "--method", "msp", "--id-dir", run.known, "--output", detector
    )
    assert ended(fitted)[0] == 0
    detected = started(cache, "detect", run.known, *given, "--detector", detector, shell=FULL)
    assert ended(detected)[::2] == (1, "jaxood detect: No space left on device\n")
