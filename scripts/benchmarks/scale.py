"""A simulated ImageNet: 1,281,167 training images, 50,000 and 5 x 10,000 to score, ten methods.

Images are links to 8 x 8 pictures, the network is one layer as wide as a ResNet-50's last: what is
measured is all else. Each step runs in a process of its own, whose peak memory is told.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

METHODS = ["msp", "energy", "gen", "knn", "nnguide", "vim", "mahalanobis"]
METHODS += ["react+energy", "ash-s+energy", "scale+energy"]
SIDE, PATCH = 8, 4
CLASS_FOLDERS = 1000
DISTINCT = 1 << 16  # pictures of a kind; more images are links to the same
BLOCK = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", type=int, default=1_281_167, help="default: %(default)s")
    parser.add_argument("--test", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--ood", type=int, default=10_000, help="in each set; default: %(default)s")
    parser.add_argument("--sets", type=int, default=5, help="OOD sets; default: %(default)s")
    parser.add_argument("--channels", type=int, default=2048, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="where the images are made; default: /tmp")


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        begun = time.perf_counter()
        make_images(folder, args)
        figures = {"links": args.train + args.test + args.sets * args.ood}
        figures["seconds to make them"] = time.perf_counter() - begun
        for name in ("listing", "first", "again"):
            figures[name] = in_a_process(name, folder, args.channels)
        return figures


def make_images(folder: Path, args: argparse.Namespace) -> None:
    """Hard links, at most 65,000 of a file, as file systems have it."""
    import numpy as np

    def pictures(name: str, low: int, high: int) -> list[Path]:
        generator = np.random.default_rng(low)
        (folder / name).mkdir()
        made = [folder / name / f"{index}.ppm" for index in range(DISTINCT)]
        for path in made:
            # Smooth, so that a picture is more than its mean.
            corners = generator.uniform(low, high, (2, 2, 3))
            image = np.kron(corners, np.ones((SIDE // 2, SIDE // 2, 1)))
            image += generator.normal(0, 20, image.shape)
            pixels = np.clip(image, 0, 255).astype(np.uint8).tobytes()
            path.write_bytes(f"P6 {SIDE} {SIDE} 255\n".encode() + pixels)
        return made

    known, foreign = pictures("known", 0, 255), pictures("foreign", 60, 200)
    for index in range(args.train):
        name, number = index % CLASS_FOLDERS, index // CLASS_FOLDERS
        path = folder / "train" / f"{name:04d}" / f"{number:07d}.ppm"
        if number == 0:
            path.parent.mkdir(parents=True)
        path.hardlink_to(known[index % DISTINCT])
    for name, count, made in (
        ("test", args.test, known),
        *((f"ood{index}", args.ood, foreign) for index in range(args.sets)),
    ):
        (folder / name).mkdir()
        for index in range(count):
            (folder / name / f"{index:07d}.ppm").hardlink_to(made[index % DISTINCT])


def in_a_process(name: str, folder: Path, channels: int) -> dict:
    call = f"from benchmarks import scale; scale.{name}({str(folder)!r}, {channels})"
    command = [sys.executable, "-c", call]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{name} failed")
    return json.loads(done.stdout.splitlines()[-1])


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def listing(folder: str, channels: int) -> None:
    """Prints what a listing and a fingerprint of the training images take."""
    from jaxood.data.files import ImageFiles

    before = peak_gb()
    begun = time.perf_counter()
    images = ImageFiles.from_path(f"{folder}/train")
    listed = time.perf_counter() - begun
    assert images.labels[-1] == images.labels.max() and len(set(images.files[::999])) > 1
    images.fingerprint()
    found = {
        "images": len(images),
        "seconds": listed,
        "fingerprint seconds": time.perf_counter() - begun - listed,
        "peak GB beside the interpreter": peak_gb() - before,
    }
    print(json.dumps(found))


def first(folder: str, channels: int) -> None:
    """Prints figures of a run that reads the images."""
    print(json.dumps(evaluated(folder, channels, ["react+energy"])))


def again(folder: str, channels: int) -> None:
    """Prints figures of a run by ten methods on the features that the first one has kept."""
    print(json.dumps(evaluated(folder, channels, METHODS)))


def evaluated(folder: str, channels: int, methods: list[str]) -> dict:
    import jaxood
    from jaxood.data.suite import folders_suite
    from jaxood.detectors.method import Method
    from jaxood.flows import scoring
    from jaxood.runner.runner import Runner

    taken: dict[str, float] = defaultdict(float)

    def timed(owner, name: str, share: str) -> None:
        call = getattr(owner, name)

        def replaced(*given, **named):
            begun = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                taken[share] += time.perf_counter() - begun

        setattr(owner, name, replaced)

    timed(Runner, "extract", "features")
    timed(Method, "fit_state", "fit")
    timed(scoring, "score_by_all", "scores")
    timed(scoring, "measure", "metrics")
    begun = time.perf_counter()
    ood = {path.name: path for path in sorted(Path(folder).glob("ood*"))}
    suite = folders_suite(f"{folder}/train", f"{folder}/test", ood)
    taken["listing"] = time.perf_counter() - begun
    result = jaxood.evaluate(
        wide_model(channels),
        suite,
        methods,
        batch_size=512,
        store=f"{folder}/features",
    )
    assert not result.failures, result.failures
    evaluated = time.perf_counter()
    result.save(Path(folder) / "-".join(methods))
    seconds = time.perf_counter() - begun
    taken["report"] = time.perf_counter() - evaluated
    taken["rest"] = seconds - sum(taken.values())
    sets = [result.train, result.id_test, *result.ood.values()]
    arrays = [array for one in sets for array in one.features[:2]]
    stored = sum(array.nbytes for array in arrays) / 1e9
    peak = peak_gb()
    figures = {
        "seconds": seconds,
        "shares": {name: round(value / seconds, 3) for name, value in taken.items()},
        "seconds by share": {name: round(value, 2) for name, value in taken.items()},
        "features GB": stored,
        "peak GB": peak,
        "peak GB beside the features": peak - stored,
    }
    if len(methods) > 1:
        figures |= against_one_pass(result, taken["scores"])
    return figures


def against_one_pass(result, seconds: float) -> dict:
    """How long scoring took against each method's program alone, on blocks that lie ready."""
    import jax

    from jaxood.detectors.contract import restricted
    from jaxood.detectors.scoring import _score_block
    from jaxood.flows.scoring import outputs_of

    outputs = outputs_of(result.model, result.id_test.features)
    rows = sum(len(found.features) for found in (result.id_test, *result.ood.values()))
    head, passes = result.model.head, {}
    train = outputs_of(result.model, result.train.features)
    for method in result.methods.values():
        state = method.fit_state(train, result.train.labels, head, None)
        needed = restricted(outputs, method.reads, ())
        blocks = [
            jax.tree.map(lambda array, i=i: jax.device_put(array[i : i + BLOCK]), needed)
            for i in range(0, min(5 * BLOCK, len(outputs.pooled) - BLOCK + 1), BLOCK)
        ]
        times = []
        for block in blocks:
            begun = time.perf_counter()
            jax.block_until_ready(_score_block(method, None, state, block, head))
            times.append(time.perf_counter() - begun)
        passes[method.name] = sorted(times[1:])[len(times[1:]) // 2] * rows / BLOCK
    return {
        "seconds of one pass": {name: round(value, 2) for name, value in passes.items()},
        "scores over one pass for each": seconds / sum(passes.values()),
    }


def wide_model(channels: int):
    """One layer, over 2 x 2 patches, and a head of 1,000 classes."""
    from flax import nnx

    import jaxood

    class Wide(nnx.Module):
        preprocessing = jaxood.Preprocessing(resize=SIDE, crop=SIDE)

        def __init__(self, rngs: nnx.Rngs):
            self.conv = nnx.Conv(3, channels, (PATCH, PATCH), strides=PATCH, rngs=rngs)
            self.fc = nnx.Linear(channels, CLASS_FOLDERS, rngs=rngs)

        @property
        def head(self):
            return jaxood.LinearHead(self.fc.kernel[...], self.fc.bias[...])

        def __call__(self, images):
            features = nnx.relu(self.conv(images))
            return jaxood.model_outputs(self.head, features.mean(axis=(1, 2)), features)

    return Wide(nnx.Rngs(0))
