"""Photographs to written energies, process start to end, against a plain torch script.

`jaxood evaluate --method energy`, which also measures and draws, with the compilations of an
earlier run at hand (warm) and without (cold). Cores used are the seconds of CPU over those of the
clock: a run that waits for nothing uses nearly all.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).parents[1]
SETS = ("known", "foreign")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="mobilenet_v2", help="of torchvision; random weights")
    parser.add_argument("--images", type=int, default=400, help="photographs, in two sets")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn")
    parser.add_argument("--only", choices=("torch", "cold", "warm"), nargs="+")


class Run(NamedTuple):
    seconds: float
    cores: float


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    what = f"{figures['images']} photographs, process start to results, {figures['arch']}"
    return [
        (what, f"a plain torch script; {told}", f"{figures[f'speed_over_torch_{kind}']:.2f} x")
        for kind, told in (("cold", "nothing compiled before"), ("warm", "compiled before"))
    ]


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in SETS:
            write_photographs(folder / name, args.images // 2, seed=SETS.index(name))
        return compare(folder, args)


def compare(folder: Path, args: argparse.Namespace) -> dict:
    import numpy as np

    write_weights(folder, args.arch)
    sets = [folder / name for name in SETS]
    theirs = [sys.executable, SCRIPTS / "benchmarks/plain_torch.py", args.arch]
    theirs += [folder / "weights.pth", folder / "torch.npz", *sets]
    theirs += ["--batch-size", args.batch_size]
    theirs += ["--schemas"] if lacks_schemas() else []

    def ours(output: str) -> list:
        command = [sys.executable, SCRIPTS / "evaluate.py", "--method", "energy"]
        command += ["--weights", folder / "weights.safetensors", "--output", folder / output]
        command += ["--id-dir", sets[0], "--ood-dir", sets[1], "--batch-size", args.batch_size]
        return command

    def caches(name: str) -> dict:
        return {"JAX_COMPILATION_CACHE_DIR": folder / name, "JAXOOD_CACHE": folder / name}

    timed(theirs)
    timed(ours("checked"), caches("warm"))
    expected, found = np.load(folder / "torch.npz"), np.load(folder / "checked/scores.npz")
    for name, key in zip(SETS, ("in distribution", "foreign"), strict=True):
        scores = found[f"scores/energy/{key}"]
        np.testing.assert_allclose(scores, expected[name], rtol=0, atol=1e-3 * expected[name].std())

    runs: dict[str, list[Run]] = {name: [] for name in args.only or ("torch", "cold", "warm")}
    for number in range(args.runs):
        for name, taken in runs.items():
            cached = "warm" if name == "warm" else f"cold-{number}"
            command = theirs if name == "torch" else ours(f"{name}-{number}")
            taken.append(timed(command, caches(cached)))
    seconds = {name: sorted(taken.seconds for taken in found) for name, found in runs.items()}
    figures = {
        "arch": args.arch,
        "images": args.images,
        "seconds": {name: [round(value, 2) for value in found] for name, found in seconds.items()},
        "slowest_over_fastest": {name: found[-1] / found[0] for name, found in seconds.items()},
        "cores_used": {
            name: min(round(taken.cores, 2) for taken in found) for name, found in runs.items()
        },
    }
    medians = {name: found[len(found) // 2] for name, found in seconds.items()}
    for name in {"cold", "warm"} & set(medians) if "torch" in medians else ():
        figures[f"speed_over_torch_{name}"] = medians["torch"] / medians[name]
    return figures


def write_photographs(folder: Path, count: int, seed: int) -> None:
    """Photographs that packages carry, each time cut and encoded in another way."""
    import numpy as np
    from PIL import Image

    from jaxood.data.photos import package_folder, photos_suite

    sources = list(photos_suite().id_test.paths())
    skimage = package_folder("skimage", "scikit-image") / "data"
    sources += [skimage / name for name in ("astronaut.png", "chelsea.png", "coffee.png")]
    sklearn = package_folder("sklearn", "scikit-learn") / "datasets/images"
    sources += [sklearn / name for name in ("china.jpg", "flower.jpg")]
    generator = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        left, top, right, bottom, quality = generator.integers([1] * 4 + [85], [12] * 4 + [97])
        with Image.open(sources[number % len(sources)]) as image:
            box = left, top, image.width - right, image.height - bottom
            cut = image.convert("RGB").crop(tuple(map(int, box)))
        cut.save(folder / f"{number:04}.jpg", quality=int(quality))


def write_weights(folder: Path, arch: str) -> None:
    """One torchvision network, random weights: torch's state dict, and converted."""
    import torch

    from jaxood.conversion import convert
    from jaxood.conversion.parity import import_publisher

    torch.manual_seed(0)
    network = import_publisher("torchvision.models").get_model(arch)
    torch.save(network.state_dict(), folder / "weights.pth")
    tag = "IMAGENET1K_V1"  # its preprocessing is that of the torch script
    convert(folder / "weights.pth", folder / "weights.safetensors", arch=arch, tag=tag)


def lacks_schemas() -> bool:
    """Whether torchvision cannot be imported as it is, which it cannot beside a CPU's torch."""
    command = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(command, capture_output=True).returncode != 0


def timed(command: list, environment: dict | None = None) -> Run:
    """Runs a command to its end; what its own children take counts as well."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            env=os.environ | {name: str(value) for name, value in (environment or {}).items()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            output.seek(0)
            raise RuntimeError(output.read().decode()[-2000:])
    return Run(seconds, (usage.ru_utime + usage.ru_stime) / seconds)
