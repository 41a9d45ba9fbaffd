"""A whole run with SFP against the same run without, and the cores that both use.

Files to features, ResNet-50.
"""

import argparse
import time

import benchmarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="resnet50", help="architecture, random weights")
    parser.add_argument("--images", type=int, default=96, help="photographs, repeated as needed")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    share = f"{figures['sfp_over_plain']:.2f} of its time"
    used = f"{figures['cores_used']:.2f} in use, the least of {figures['runs']} runs"
    what = "ResNet-50 run with SFP, files to features"
    return [(what, "without", share), (what, f"{figures['cores']} cores", used)]


def run(args: argparse.Namespace) -> dict:
    import numpy as np

    from jaxood.data.photos import photos_suite
    from jaxood.detectors.sfp import SpatialPurification
    from jaxood.runner.runner import Runner

    runner = Runner(benchmarks.random_model(args.model))
    photographs = photos_suite().id_test
    images = photographs.subset(np.resize(np.arange(len(photographs)), args.images))
    purification = SpatialPurification()

    cores = []

    def once(*extractors):
        wall, processor = time.perf_counter(), time.process_time()
        found = runner.extract(images, extractors, batch_size=args.batch_size)
        cores.append((time.process_time() - processor) / (time.perf_counter() - wall))
        return found

    plain, with_sfp = once(), once(purification)
    assert len(plain) == args.images and not plain.skipped
    largest = np.abs(plain.logits).max()
    np.testing.assert_allclose(plain.logits, with_sfp.logits, rtol=0, atol=1e-5 * largest)
    purified = with_sfp.extras[purification.key]
    assert purified.shape == plain.pooled.shape and not np.allclose(purified, plain.pooled)

    seconds = benchmarks.seconds_in_turn(
        {"plain": once, "sfp": lambda: once(purification)}, args.repeats
    )
    return {
        "images": args.images,
        "images_per_second": args.images / seconds["plain"],
        "sfp_over_plain": seconds["sfp"] / seconds["plain"],
        "runs": 2 * args.repeats,
        "cores_used": min(cores[-2 * args.repeats :]),
    }
