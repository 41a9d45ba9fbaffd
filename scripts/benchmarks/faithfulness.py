"""Insertion, deletion, pixel flipping and sensitivity-n of one photograph against Quantus on torch.

The same MobileNetV2, map, pixels and subsets: every value is first compared. Quantus's pixel
flipping is deletion too, and insertion where the image and its blurred copy change places; its
faithfulness correlation, once a size of subsets, is sensitivity-n. It sees the image through a mask
of one channel, so that it orders as many features as there are pixels. Needs the packages quantus
and torch, and those of `--suite photos`.
"""

import argparse

import numpy as np

from benchmarks import seconds_in_turn

STEPS = 196  # of 256 pixels: Quantus wants steps that divide the pixels
SIZES, SUBSETS = 3, 50
CURVES = ("insertion", "deletion", "pixel-flipping")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", type=int, default=3, help="index of the photograph")
    parser.add_argument("--batch", type=int, default=32, help="altered images a step")
    parser.add_argument("--repeats", type=int, default=3)


def torch_network():
    """torchvision's MobileNetV2 with the weights that ours were converted from."""
    import torch

    from jaxood.conversion.parity import import_publisher
    from jaxood.demo.photos import mobilenet_v2_checkpoint

    network = import_publisher("torchvision.models").mobilenet_v2()
    network.load_state_dict(torch.load(mobilenet_v2_checkpoint(), weights_only=True))
    return network.eval()


def seen_through(network, image: np.ndarray, other: np.ndarray):
    """A network on masks [n, 1, h, w]: 1 shows the image, 0 the other picture."""
    import torch

    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network
            self.pictures = [torch.tensor(one.transpose(2, 0, 1)[None]) for one in (image, other)]

        def forward(self, mask):
            shown, hidden = self.pictures
            return self.network(hidden + mask * (shown - hidden))

    return Masked().eval()


def quantus_calls(
    subject, normalised: np.ndarray, blurred: np.ndarray, subsets: np.ndarray
) -> dict:
    """What Quantus computes, by measure."""
    import quantus

    network, size = torch_network(), subject.size
    ones = np.ones((1, 1, *size), np.float32)
    (given,) = subject.maps.values()
    shared = {
        "x_batch": ones,
        "y_batch": np.array([subject.target]),
        "a_batch": given[None, None],
        "channel_first": True,
        "device": "cpu",
        "softmax": True,
    }
    options = {"normalise": False, "abs": False, "disable_warnings": True, "perturb_baseline": 0.0}
    gone = seen_through(network, normalised, np.zeros_like(normalised))
    coming = seen_through(network, blurred, normalised)
    flipping = quantus.PixelFlipping(features_in_step=given.size // STEPS, **options)

    def sensitivity():
        found, draw = [], np.random.choice
        for share in shares():
            drawn = iter(subsets)
            np.random.choice = lambda count, size, replace, drawn=drawn: next(drawn)[:size]
            try:
                measure = quantus.FaithfulnessCorrelation(
                    nr_runs=SUBSETS, subset_size=round(share * given.size), **options
                )
                found += measure(model=gone, **shared)
            finally:
                np.random.choice = draw
        return np.array(found)

    return {
        "insertion": lambda: np.array(flipping(model=coming, **shared)[0]),
        "deletion": lambda: np.array(flipping(model=gone, **shared)[0]),
        "pixel-flipping": lambda: np.array(flipping(model=gone, **shared)[0]),
        "sensitivity-n": sensitivity,
    }


def shares() -> list[float]:
    return [0.8 * i / SIZES for i in range(1, SIZES + 1)]


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    what = "insertion, deletion, pixel flipping and sensitivity-n of a photograph, MobileNetV2"
    return [(what, "Quantus", f"{figures['times_faster']:.1f} x as fast, same values")]


def run(args: argparse.Namespace) -> dict:
    import jax.numpy as jnp

    import jaxood
    from jaxood.attribution.heatmap import upsample
    from jaxood.demo.photos import photos_weights
    from jaxood.files import cache_dir
    from jaxood.perturbation.imputation import blurred
    from jaxood.perturbation.measure import Laboratory, row_findings
    from jaxood.perturbation.measures import measure
    from jaxood.perturbation.regions import regions_of
    from jaxood.perturbation.rows import Scene
    from jaxood.perturbation.subject import Subject
    from jaxood.runner.runner import Runner

    model = jaxood.load_model(photos_weights(cache_dir()))
    photographs = jaxood.suite("photos").id_test.subset(np.array([args.image]))
    batch = next(photographs.batches(model.preprocessing, 1))
    rng, size = np.random.default_rng(0), batch.images.shape[1:3]
    smooth = np.asarray(upsample(jnp.asarray(rng.random((1, 7, 7), np.float32)), size))[0]
    # The ranks of its values: without ties, which Quantus orders at will.
    given = np.argsort(np.argsort(smooth, axis=None)).reshape(size).astype(np.float32)
    runner = Runner(model)
    normalised = model.preprocessing.normalise(jnp.asarray(batch.images))
    logits = model.module(normalised).logits
    subject = Subject("photograph", batch.images[0], int(logits.argmax()), {"map": given})
    chosen = {name: measure(f"{name}[steps={STEPS}]") for name in CURVES}
    draws = f"subsets={SUBSETS},sizes={SIZES},patch=1"
    chosen["sensitivity-n"] = measure(f"sensitivity-n[{draws}]")
    laboratory = Laboratory(runner, batch_size=args.batch)

    def ours(measures):
        tasks = {one: ["map"] for one in measures}
        return [np.array(one.curves[""]) for one in row_findings(laboratory, subject, tasks)]

    pixels, scene = regions_of(size, 1), Scene(subject)
    subsets = np.stack([np.argsort(scene.permutation(pixels, 0, i)) for i in range(SUBSETS)])
    pictures = (np.asarray(one)[0] for one in (normalised, blurred(normalised)))
    theirs = quantus_calls(subject, *pictures, subsets)
    worst = {}
    for name, found in zip(chosen, ours(chosen.values()), strict=True):
        expected = theirs[name]()
        # Their curves begin with the first step.
        worst[name] = float(np.abs(found[-len(expected) :] - expected).max())
        assert worst[name] < 1e-3, f"{name} is off by {worst[name]}"

    calls = {f"quantus {name}": theirs[name] for name in chosen}
    calls |= {f"ours {name}": lambda one=one: ours([one]) for name, one in chosen.items()}
    calls["ours"] = lambda: ours(chosen.values())  # in one stream, as `jaxood faithfulness` does
    taken = seconds_in_turn(calls, args.repeats, warmup=0)  # all ran when they were compared
    quantus = sum(taken[f"quantus {name}"] for name in chosen)
    return {
        "largest_difference": worst,
        "seconds": taken,
        "times_faster": quantus / taken["ours"],
        "times_faster_singly": {
            name: taken[f"quantus {name}"] / taken[f"ours {name}"] for name in chosen
        },
        "batch": args.batch,
    }
