"""The one pass for sixty methods against the plain pass: photographs, the real MobileNetV2.

All methods that ask for no gradient: those over several layers, every other score, transform and
view, then transforms and views before msp and knn, until there are as many as asked for. What each
extractor takes alone is told beside it, that of nac too, which asks for a gradient of layers. The
answer is checked first: what an extractor keeps is what it keeps in a pass of its own.

A pass goes from files to what is kept of them; of its compiled step alone the medians are told too:
of wall time, and of the processor's (`cpu`), the steadier on a machine that others use.
"""

import argparse
import itertools
import time

import benchmarks

LAYERS = ("multi-mahalanobis", "aggregate", "gram", "rankfeat", "sfp")
GRADIENTS = ("odin", "i-odin", "adascale-a", "adascale-l", "nac")  # of the image, or of layers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=320, help="of a pass, repeated as needed")
    parser.add_argument("--repeats", type=int, default=9)


def chosen(count: int):
    """So many methods, of which each score, transform and view has a part."""
    from jaxood.detectors.grammar import parse_methods
    from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS

    cosine = ("mcm", "neglabel")
    scores = [name for name in DETECTORS if name not in (*GRADIENTS, *cosine)]
    before = [name for name in (*VIEWS, *TRANSFORMS) if name not in GRADIENTS]
    first = [*LAYERS, *(name for name in (*scores, *before) if name not in LAYERS)]
    pairs = (f"{one}+{score}" for score, one in itertools.product(("msp", "knn"), before))
    return parse_methods(list(itertools.islice(itertools.chain(first, pairs), count)))


def run(args: argparse.Namespace) -> dict:
    import jax
    import numpy as np

    from jaxood.data.photos import photos_suite
    from jaxood.demo.photos import photos_weights
    from jaxood.detectors.grammar import parse_methods
    from jaxood.files import cache_dir
    from jaxood.flows.sources import load_model
    from jaxood.parallel import rounded_up
    from jaxood.runner.runner import Runner
    from jaxood.runner.step import TOP_CLASS

    runner = Runner(load_model(photos_weights(cache_dir(None))))
    methods = chosen(args.methods)
    extractors = {key: one for method in methods for key, one in method.extractors.items()}
    photographs = photos_suite().id_test
    size = rounded_up(args.batch_size, runner.mesh)
    images = photographs.subset(np.resize(np.arange(len(photographs)), size))
    (batch,) = images.batches(runner.model.preprocessing, size)
    target, key = np.full(size, TOP_CLASS, np.int32), jax.random.key(0)

    def call(*chosen):
        step = runner.step(chosen)
        rows = (jax.device_put(batch.images), jax.device_put(target))
        return lambda: jax.block_until_ready(runner.run(step, rows, (key,)))

    calls = {"plain": call(), "all": call(*extractors.values())}
    (states,) = parse_methods(["nac"])[0].extractors.values()
    calls |= {name: call(one) for name, one in {**extractors, states.key: states}.items()}
    plain, together = calls["plain"](), calls["all"]()
    np.testing.assert_allclose(together.logits, plain.logits, rtol=1e-4, atol=1e-3)
    for name in extractors:
        found, alone = (np.asarray(calls[one]().extras[name]) for one in ("all", name))
        np.testing.assert_allclose(found, alone, rtol=2e-3, atol=2e-3 * np.abs(alone).max())
    seconds = benchmarks.seconds_in_turn(calls, args.repeats)
    cpu = benchmarks.seconds_in_turn(calls, args.repeats, clock=time.process_time)
    many = photographs.subset(np.resize(np.arange(len(photographs)), args.images))
    asked = {"plain": (), "all": tuple(extractors.values())}
    passes = {
        name: lambda some=some: runner.extract(many, some, batch_size=size)
        for name, some in asked.items()
    }
    taken = benchmarks.seconds_in_turn(passes, args.repeats)
    return {
        "methods": len(methods),
        "batch_size": size,
        "images_per_second": {name: len(many) / value for name, value in taken.items()},
        "pass_over_plain": taken["all"] / taken["plain"],
        "step_over_plain": seconds["all"] / seconds["plain"],
        "cpu": {name: round(value / cpu["plain"], 2) for name, value in cpu.items()},
        "each_over_plain": {
            name: round(value / seconds["plain"], 2) for name, value in seconds.items()
        },
    }
