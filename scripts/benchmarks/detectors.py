"""Every detector, transform and view on digits and photographs: docs/detectors-compared.md.

Each alone, with its defaults (a transform or view before energy), grouped by what it needs. AUROC
and FPR95 are means over the suite's OOD sets. Times are of an image, in milliseconds: fitting, of a
training image; scoring, of a test image, from what the one pass kept; the pass, of a photograph
by MobileNetV2, and what the method's extractors add to it.
"""

import argparse
import time
from pathlib import Path

import benchmarks

GROUPS = (
    "Nothing but the model",
    "Training images",
    "Training images with labels",
    "Layers or the feature map",
    "A gradient",
)
PAGE = Path(__file__).parents[2] / "docs" / "detectors-compared.md"
INTRODUCTION = """# Every detector, compared

Each with its defaults, a transform or a view before `energy`: on scikit-learn's digits (a small \
network trained on 0 to 5; means over digits 6 to 9, patches and noise) and on 31 ImageNet \
photographs against 18 pictures of no ImageNet object (MobileNetV2), for those that need no \
training images, as there are none. 49 images tell little: differences of a few points there are \
chance. In per cent; higher AUROC and lower FPR95 are better. [Which detector](choosing.md) tells \
what to make of it.

Times are of one image, in milliseconds, on two cores (x86-64), by the processor's time: *fit* of \
a training image, *score* of a test image once the pass has its features; *pass* is what the \
method adds to the pass over a photograph by MobileNetV2, in passes without it. `python \
scripts/benchmark.py detectors` makes this page.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)


def run(args: argparse.Namespace) -> dict:
    from jaxood.detectors.grammar import parse_method
    from jaxood.flows.evaluate import evaluate
    from jaxood.flows.listings import list_detectors

    entries = {entry.name: entry for entry in list_detectors() if _linear(entry.name)}
    methods = {name: parse_method(name) for name in entries}
    digits = evaluate(None, "digits", list(methods.values()), seed=0)
    alone = {name: m for name, m in methods.items() if not m.needs_train}
    photos = evaluate(None, "photos", list(alone.values()), seed=0)
    assert not photos.failures and not digits.failures, (photos.failures, digits.failures)
    results = [{one.method: one for one in found.results} for found in (digits, photos)]
    passes = _passes(photos.model, methods, args.batch_size, args.repeats)
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for name, method in methods.items():
        fit, score = _times(digits, method, args.repeats)
        cells = [f"`{name}`", *(_figures(found.get(method.name)) for found in results)]
        cells += [f"{fit:.3f}" if fit else "", f"{score:.3f}", passes.get(name, "")]
        groups[_needs(method)].append(f"| {' | '.join(cells)} |")
    lines = [INTRODUCTION]
    for group, rows in groups.items():
        lines += [f"## {group}\n", HEAD, *rows, ""]
    args.output.write_text("\n".join(lines))
    return {"methods": len(methods), "page": str(args.output)}


HEAD = """\
| | digits: AUROC / FPR95 | photographs | fit | score | pass |
| --- | --- | --- | --- | --- | --- |"""


def _linear(name: str) -> bool:
    """Without those for a cosine head, which neither network has."""
    return name not in ("mcm", "neglabel")


def _needs(method) -> str:
    """The group of a method."""
    extractors = method.extractors.values()
    gradients = {"odin", "i-odin", "adascale", "neuron-states"}
    model, training, labels, layers, gradient = GROUPS
    if any(one.name in gradients for one in extractors):
        return gradient
    if extractors:
        return layers
    if method.needs_labels:
        return labels
    return training if method.needs_train else model


def _figures(result) -> str:
    if result is None:
        return ""
    return f"{100 * result.mean('auroc'):.1f} / {100 * result.mean('fpr95'):.1f}"


def _times(found, method, repeats: int) -> tuple[float, float]:
    """Milliseconds of an image: to fit, and to score."""
    from jaxood.detectors.scoring import score_rows
    from jaxood.flows.scoring import outputs_of

    head = found.model.head
    train = outputs_of(found.model, found.train.features)
    test = outputs_of(found.model, found.ood["patches"].features)
    calls = {"fit": lambda: method.fit_state(train, found.train.labels, head)}
    state = calls["fit"]()
    calls["score"] = lambda: score_rows(method, state, test, head)
    taken = benchmarks.seconds_in_turn(calls, repeats, clock=time.process_time)
    fit = 1000 * taken["fit"] / len(found.train.features) if method.needs_train else 0.0
    return fit, 1000 * taken["score"] / len(test.pooled)


def _passes(model, methods, batch_size: int, repeats: int) -> dict[str, str]:
    """What each method's extractors add to the pass, in plain passes."""
    import jax
    import numpy as np

    from jaxood.data.photos import photos_suite
    from jaxood.runner.runner import Runner
    from jaxood.runner.step import TOP_CLASS

    runner, images = Runner(model), photos_suite().id_test
    (batch,) = images.batches(model.preprocessing, batch_size)
    rows = jax.device_put((batch.images, np.full(batch_size, TOP_CLASS, np.int32)))

    def call(extractors):
        step = runner.step(extractors)
        return lambda: jax.block_until_ready(runner.run(step, rows, (jax.random.key(0),)))

    asking = {name: tuple(m.extractors.values()) for name, m in methods.items() if m.extractors}
    calls = {"": call(())} | {name: call(extractors) for name, extractors in asking.items()}
    taken = benchmarks.seconds_in_turn(calls, repeats, clock=time.process_time)
    return {name: f"+{max(taken[name] / taken[''] - 1, 0):.2f}" for name in asking}
