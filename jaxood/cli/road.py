"""Measures how faithful attribution maps are: removes the pixels they call relevant, and looks
what becomes of the class (ROAD, Rong et al. 2022).

MoRF removes the most relevant pixels first: a faithful map makes the probability of the class fall
fast, a small area under the curve is good. LeRF removes the least relevant first: a large area is
good. Random maps always stand beside the methods, so that a reader sees what faithful means.

  jaxood road photos/ --weights mobilenet_v2.safetensors --methods banzhaf score-cam
  jaxood road photos/ --weights mobilenet_v2.safetensors --maps mine=maps.npz --steps 20

Maps from elsewhere: an NPZ file with `ids`, an image name each, and an array [n, h, w] under the
NAME that --maps gives it (`jaxood attribute` writes such files).

Writes curves.csv, areas.csv, curves.json, manifest.json, road.png and strip.png. curves.jsonl holds
every image as it comes; the same command goes on from it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from jaxood.cli.options import (
    add_image_arguments,
    add_model_arguments,
    add_output_argument,
    images_from,
    load_from,
    positive,
)
from jaxood.errors import UsageError

RANDOM_GRID = (7, 7)  # positions of a random map, for a model without a feature map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--methods",
        nargs="*",
        metavar="NAME",
        help="attributions of this package (default: banzhaf, unless --maps is given)",
    )
    maps.add_argument(
        "--maps",
        action="append",
        default=[],
        metavar="NAME=FILE.npz",
        help="maps from elsewhere; may be repeated",
    )
    maps.add_argument(
        "--random-maps",
        type=positive,
        default=3,
        metavar="N",
        help="random maps an image, whose mean is the baseline (default: %(default)s)",
    )
    maps.add_argument(
        "--scale",
        choices=("paper", "unit"),
        default="paper",
        help="contrast of a map before it is enlarged: 2^(z/2), or as it is (default: paper)",
    )
    maps.add_argument(
        "--target",
        metavar="CLASS",
        help="class to follow, by index, name or WordNet id (default: each image's top class)",
    )
    removal = parser.add_argument_group("removal")
    removal.add_argument(
        "--steps",
        type=positive,
        default=50,
        metavar="N",
        help="fractions 0, 1/N ... (N-1)/N of the pixels (default: %(default)s)",
    )
    removal.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        metavar="X",
        help="these fractions instead, from 0 to less than 1",
    )
    removal.add_argument(
        "--convention",
        default="exact",
        metavar="NAME",
        help="exact: so many pixels; notebook: all at or above a percentile (default: exact)",
    )
    removal.add_argument(
        "--imputation",
        default="linear",
        metavar="NAME",
        help="linear, mean, zero or blur (default: linear)",
    )
    removal.add_argument(
        "--noise",
        type=float,
        default=0.01,
        metavar="S",
        help="standard deviation of what is added to removed pixels (default: %(default)s)",
    )
    removal.add_argument(
        "--before-normalisation",
        action="store_true",
        help="impute values in [0, 1], as ROAD's authors do, not the normalised image",
    )
    parser.add_argument(
        "--strip",
        nargs="+",
        type=float,
        metavar="X",
        help="fractions shown in strip.png (default: six of those measured)",
    )
    add_model_arguments(parser)
    add_output_argument(parser, "runs/road")


def run(args: argparse.Namespace) -> None:
    from jaxood.attribution.registry import attribution_methods
    from jaxood.perturbation import results
    from jaxood.perturbation.road import RoadSettings, road_curves

    fractions = args.thresholds or [step / args.steps for step in range(args.steps)]
    settings = RoadSettings(
        tuple(sorted(set(fractions))),
        args.convention,
        args.imputation,
        args.noise,
        args.before_normalisation,
    )
    shown = _shown(args.strip, settings.fractions)
    names = args.methods if args.methods is not None else [] if args.maps else ["banzhaf"]
    methods = attribution_methods(names)
    images = images_from(args)
    given = read_maps(args.maps, images.ids, names)
    model = load_from(args)
    target = _target(args.target, model)
    wanted = [*methods, *given, *(f"{results.RANDOM}/{i}" for i in range(args.random_maps))]
    prints = _fingerprints(args, model, settings, methods, given, target, wanted)

    path = args.output / "curves.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {own: i for i, own in enumerate(images.ids)}
    curves = [own for own in results.load_curves(path, prints) if own.id in place]
    done = {(own.id, own.method) for own in curves}
    todo = [
        i for i, own in enumerate(images.ids) if any((own, name) not in done for name in wanted)
    ]
    missing = images.subset(np.array(todo, int))
    sample: list = []

    def explained(some, bar=None) -> Iterator:
        for item in _explained(args, model, some, methods, given, target, bar):
            if not sample or item.id == sample[0].id:
                sample.append(item)
            if (item.id, item.method) not in done:
                yield item

    work = 2 * len(settings.fractions)
    with _bar(work * (len(images) * len(wanted) - len(done)), work * len(wanted)) as bar:
        if todo:
            stream = road_curves(
                model,
                explained(missing, bar),
                settings,
                batch_size=args.batch_size,
                seed=args.seed,
                progress=bar.update,
            )
            for own in stream:
                results.append_curves(path, own, prints[own.method])
                curves.append(own)
    if not curves:
        first = next(iter(missing.skipped.items()))
        wrong = f"{len(images)}, none of which can be decoded"
        raise UsageError("images", wrong, "images", ": ".join(first))
    curves.sort(key=lambda own: (wanted.index(own.method), place[own.id]))
    if not sample:  # all of it is from an earlier run
        first = images.ids.index(curves[0].id)
        for _ in explained(images.subset(np.array([first]))):
            pass
    joined = results.join_random(curves)
    found = results.summary(joined, settings, args.seed)
    print(results.table(found))
    _write(args, model, images, missing.skipped, settings, joined, found, methods)
    _draw(args, model, settings, curves, found, sample, shown)
    print(f"written to {args.output}: curves, areas, manifest and pictures")


def _bar(total: int, an_image: int):
    """Perturbed images classified, with the time left; `leave_out` takes images off the total."""
    from tqdm import tqdm

    bar = tqdm(desc="road", total=total, unit=" images", file=sys.stderr, smoothing=0.1)

    def leave_out(images: int) -> None:
        bar.total -= images * an_image
        bar.refresh()

    bar.leave_out = leave_out
    return bar


def _shown(chosen: list[float] | None, fractions: tuple[float, ...]) -> list[int]:
    """Places among the fractions of those that the strip shows."""
    if chosen is None:
        places = np.linspace(0, len(fractions) - 1, min(6, len(fractions)))
        return sorted(set(places.round().astype(int).tolist()))
    for fraction in chosen:
        if min(abs(fraction - own) for own in fractions) > 1e-9:
            listed = " ".join(f"{own:g}" for own in fractions)
            raise UsageError("--strip", fraction, f"one of the fractions measured: {listed}")
    return [int(np.argmin(np.abs(np.asarray(fractions) - fraction))) for fraction in chosen]


def _target(text: str | None, model) -> int | None:
    if text is None:
        return None
    from jaxood.attributing import number_of_classes
    from jaxood.cli.attribute import find_class
    from jaxood.data.class_names import class_names

    return find_class(text, class_names(number_of_classes(model)))


def read_maps(
    chosen: list[str], ids: tuple[str, ...], taken: list[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Maps from NPZ files, by name and image.

    Raises:
      UsageError: for what is no such file, or a file without an array or an image that is needed.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for text in chosen:
        name, equals, file = text.partition("=")
        if not (name and equals and file) or "/" in name:
            raise UsageError("--maps", text, "NAME=FILE.npz")
        if name in found or name in taken or name == "random":
            raise UsageError("--maps", text, f"a name other than {name}, which is taken")
        try:
            with np.load(file) as arrays:
                listed = dict(arrays)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UsageError("--maps", f"{file} ({error})", "an NPZ file of arrays") from None
        for needed in ("ids", name):
            if needed not in listed:
                wanted = f"arrays ids and {name}"
                raise UsageError("--maps", f"{file} with {', '.join(listed)}", wanted)
        maps = listed[name]
        if maps.ndim != 3 or len(maps) != len(listed["ids"]):
            wanted = f"[{len(listed['ids'])}, h, w], as many as ids"
            raise UsageError("--maps", f"{name} {maps.shape} in {file}", wanted)
        by_id = dict(zip(map(str, listed["ids"]), maps.astype(np.float32), strict=True))
        lacking = [own for own in ids if own not in by_id]
        if lacking:
            wanted = f"a map of every image: {lacking[0]} has none"
            raise UsageError("--maps", f"{file} without {len(lacking)} images", wanted)
        found[name] = {own: by_id[own] for own in ids}
    return found


def _fingerprints(args, model, settings, methods, given, target, wanted) -> dict[str, str]:
    """By method: changes with anything that its curves depend on."""
    from jaxood.files import fingerprint

    def digest(name: str) -> object:
        if name in given:
            return fingerprint([(own, array.tobytes()) for own, array in given[name].items()])
        return repr(methods.get(name, name))

    about = (model.name, model.weights_hash, model.preprocessing, model.dtype)
    return {
        name: fingerprint(*about, settings, args.seed, args.scale, target, digest(name))
        for name in wanted
    }


def _explained(args, model, images, methods: Mapping, given: Mapping, target, bar) -> Iterator:
    """Images with every map that is asked for, as they are read."""
    import jax
    from flax import nnx

    from jaxood.attributing import attribute
    from jaxood.attribution.heatmap import heatmap
    from jaxood.perturbation.results import RANDOM
    from jaxood.perturbation.road import Explained, image_number

    side = model.preprocessing.crop
    shape = nnx.eval_shape(model.module, jax.ShapeDtypeStruct((1, side, side, 3), model.dtype))
    grid = RANDOM_GRID if shape.feature_map is None else shape.feature_map.shape[1:3]
    enlarge = jax.jit(partial(heatmap, size=(side, side), scale=args.scale))
    before = 0
    batches = attribute(
        model, images, methods, target=target, batch_size=args.batch_size, seed=args.seed
    )
    for done, batch in batches:
        if bar is not None:
            bar.leave_out(done - before - len(batch.indices))
        before = done
        ids = [images.ids[index] for index in batch.indices]
        if not ids:
            continue
        maps = dict(batch.maps)
        maps |= {name: np.stack([own[i] for i in ids]) for name, own in given.items()}
        for i in range(args.random_maps):
            draws = [np.random.default_rng([args.seed, i, image_number(own)]) for own in ids]
            maps[f"{RANDOM}/{i}"] = np.stack([draw.random(grid, np.float32) for draw in draws])
        maps = {
            name: own if own.shape[1:] == (side, side) else np.asarray(enlarge(own))
            for name, own in maps.items()
        }
        for row, own in enumerate(ids):
            for name, rows in maps.items():
                yield Explained(own, batch.images[row], int(batch.target[row]), name, rows[row])


def _write(args, model, images, skipped, settings, joined, found, methods) -> None:
    from jaxood.manifest import manifest, write_json
    from jaxood.perturbation.results import write_results

    images.skipped.update(skipped)
    if skipped:
        print(f"{len(skipped)} of {len(images)} images left out: undecodable")
    write_results(args.output, joined, found)
    about = manifest(
        vars(args),
        model,
        [images],
        methods={name: repr(method) for name, method in methods.items()},
        imputed="values in [0, 1]" if settings.before_normalisation else "normalised images",
    )
    write_json(args.output / "manifest.json", about)


def _draw(args, model, settings, curves, found, sample, shown: list[int]) -> None:
    from jaxood.perturbation.plots import draw_curves, draw_strip
    from jaxood.perturbation.results import RANDOM
    from jaxood.perturbation.road import ORDERS, perturbed_images

    draw_curves(args.output / "road.png", found)
    items = [item for item in sample if not item.method.startswith(f"{RANDOM}/")]
    items.append(next(item for item in sample if item.method == f"{RANDOM}/0"))
    pictures = perturbed_images(model, items, settings, args.seed)[:, shown]
    own = {curve.method: curve.confidence for curve in curves if curve.id == sample[0].id}
    confidence = [row[shown] for item in items for row in own[item.method]]
    rows = [(item.method.partition("/")[0], order) for item in items for order in ORDERS]
    fractions = [settings.fractions[i] for i in shown]
    name = sample[0].id.rpartition("/")[2]
    title = f"{name}: what the model saw, and the probability of the class"
    draw_strip(args.output / "strip.png", pictures, rows, fractions, confidence, title)
