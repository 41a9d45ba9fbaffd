"""The one pass for sixty methods against the plain forward: photographs, the real MobileNetV2.

All methods that ask for no input gradient: every score, alone and after every transform and view
that goes with it, in turn until there are as many as asked for; those over several layers first.
The answer is checked first: each method's scores are those of a pass for it alone.
"""

import argparse
import itertools

import benchmarks

LAYERS = ("multi-mahalanobis", "aggregate", "gram", "nac", "rankfeat", "sfp")
GRADIENTS = ("odin", "i-odin", "adascale-a", "adascale-l")  # of the image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
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
    calls |= {name: call(one) for name, one in extractors.items()}
    plain, together = calls["plain"](), calls["all"]()
    np.testing.assert_allclose(together.logits, plain.logits, rtol=1e-4, atol=1e-3)
    for name in extractors:
        found, alone = (np.asarray(calls[one]().extras[name]) for one in ("all", name))
        np.testing.assert_allclose(found, alone, rtol=2e-3, atol=2e-3 * np.abs(alone).max())
    seconds = benchmarks.seconds_in_turn(calls, args.repeats)
    return {
        "methods": len(methods),
        "batch_size": size,
        "images_per_second": size / seconds["plain"],
        "pass_over_plain": seconds["all"] / seconds["plain"],
        "each_over_plain": {name: seconds[name] / seconds["plain"] for name in extractors},
    }
