"""Draws which places of an image a model's decision rests on.

Without --methods: the Banzhaf values of SOFA. Several methods at once share the images and the
predictions; an unknown name lists them all.

  jaxood attribute photos/ --weights mobilenet_v2.safetensors
  jaxood attribute cat.jpg --weights resnet50.safetensors --methods banzhaf grad-cam score-cam
  jaxood attribute cat.jpg --weights resnet50.safetensors --methods layercam --layer layer3.5

Writes maps.npz, overlays/ (a PNG an image and method), grid.png, predictions.json, manifest.json.
"""

import argparse
import difflib
import textwrap
from pathlib import PurePath

import numpy as np

from jaxood.cli.options import (
    add_image_arguments,
    add_model_arguments,
    add_output_argument,
    fraction,
    images_from,
    load_from,
    positive,
    progress_bar,
)
from jaxood.errors import UsageError

SHOWN = 5  # skipped images that are named on the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["banzhaf"],
        metavar="NAME",
        help="one or more, such as banzhaf, shapley, grad-cam, score-cam (default: banzhaf)",
    )
    parser.add_argument(
        "--layer",
        metavar="STAGE",
        help="stage for the activation maps (default: the model's own choice)",
    )
    parser.add_argument(
        "--coalitions",
        type=lambda text: text if text == "auto" else positive(text),
        metavar="N",
        help="random subsets of positions for banzhaf and shapley (default: 240); auto: until the"
        " ranking is stable",
    )
    parser.add_argument(
        "--explain",
        choices=("probability", "energy"),
        help="what banzhaf and shapley attribute: the class's probability (default) or the energy",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        metavar="N",
        help="noisy copies of an image for smoothgrad-cam++ (default: 4)",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain, by index, name or WordNet id (default: each image's top class)",
    )
    parser.add_argument(
        "--top",
        type=positive,
        default=5,
        metavar="N",
        help="classes in predictions.json (default: %(default)s)",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--scale",
        choices=("paper", "unit"),
        default="paper",
        help="contrast of maps of a layer: 2^(z/2) as in the SOFA paper (default), or the values as"
        " they are; maps of single pixels are drawn as they are",
    )
    pictures.add_argument(
        "--colours",
        default="inferno",
        metavar="NAME",
        help="a colour map of matplotlib (default: %(default)s)",
    )
    pictures.add_argument(
        "--alpha",
        type=fraction,
        default=0.5,
        metavar="A",
        help="share of the colours in an overlay (default: %(default)s)",
    )
    pictures.add_argument(
        "--grid",
        type=positive,
        default=8,
        metavar="N",
        help="images in grid.png, the first ones (default: %(default)s)",
    )
    add_model_arguments(parser)
    add_output_argument(parser, "runs/attribute")


def run(args: argparse.Namespace) -> None:
    from jaxood.attributing import attribute, number_of_classes
    from jaxood.attribution.pictures import draw_grid, overlay, palette, write_png
    from jaxood.attribution.registry import attribution_methods
    from jaxood.data.class_names import class_names

    methods = attribution_methods(
        args.methods,
        layer=args.layer,
        coalitions=args.coalitions,
        explain=args.explain,
        samples=args.samples,
    )
    colours = palette(args.colours)
    images = images_from(args)
    model = load_from(args)
    names = class_names(number_of_classes(model))
    target = None if args.target is None else find_class(args.target, names)
    batches = attribute(
        model,
        images,
        methods,
        target=target,
        scale=args.scale,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    update = progress_bar("images")
    update(0, len(images))
    predictions, maps, shown = [], {name: [] for name in methods}, []
    for done, batch in batches:
        for row, index in enumerate(batch.indices):
            pictures = {
                name: overlay(batch.images[row], heats[row], colours, args.alpha)
                for name, heats in batch.heats.items()
            }
            stem = f"{index:05d}-{PurePath(images.ids[index]).stem}"
            for name, picture in pictures.items():
                write_png(args.output / "overlays" / f"{stem}.{name}.png", picture)
            found = prediction(batch.probabilities[row], batch.target[row], names, args.top)
            predictions.append({"image": images.ids[index], **found})
            if len(shown) < args.grid:
                shown.append((batch.images[row], caption(found), pictures))
        for name, own in batch.maps.items():
            maps[name].append(own)
        update(done, len(images))
    if not predictions:
        first = next(iter(images.skipped.items()))
        raise UsageError(
            "images", f"{len(images)}, none of which can be decoded", "images", ": ".join(first)
        )
    _write(
        args, model, images, predictions, {name: np.concatenate(own) for name, own in maps.items()}
    )
    cropped, captions, overlays = zip(*shown, strict=True)
    columns = {name: np.stack([own[name] for own in overlays]) for name in methods}
    draw_grid(args.output / "grid.png", np.stack(cropped), captions, columns, args.colours)


def find_class(text: str, names: tuple[str, ...]) -> int:
    """The class of that index, name or (ImageNet) WordNet id.

    Raises:
      UsageError: for one that the model does not have.
    """
    from jaxood.data.class_names import imagenet_names, imagenet_wnids

    if text.isdecimal() and int(text) < len(names):
        return int(text)
    if names == imagenet_names() and text in imagenet_wnids():
        return imagenet_wnids().index(text)
    if text in names:
        return names.index(text)
    close = difflib.get_close_matches(text, names, n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else ""
    raise UsageError("--target", repr(text), f"an index below {len(names)}, or a name", remedy)


def prediction(probabilities, target: int, names: tuple[str, ...], top: int) -> dict:
    """What predictions.json says of an image."""

    def entry(index: int) -> dict:
        probability = float(probabilities[index])
        return {"class": int(index), "name": names[index], "probability": probability}

    best = np.argsort(-probabilities, kind="stable")[:top]
    return {"predicted": [entry(index) for index in best], "target": entry(target)}


def caption(found: dict) -> str:
    """The explained class, and the top class where that is another."""
    top, target = found["predicted"][0], found["target"]
    lines = [f"{textwrap.fill(target['name'], 18)}\n{100 * target['probability']:.1f} %"]
    if top["class"] != target["class"]:
        lines.append(f"(top: {textwrap.fill(top['name'], 18)}\n{100 * top['probability']:.1f} %)")
    return "\n".join(lines)


def _write(args, model, images, predictions: list[dict], maps: dict[str, np.ndarray]) -> None:
    """The arrays and tables; says what was left out."""
    from jaxood.manifest import manifest, write_json

    args.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.output / "maps.npz",
        ids=np.array([found["image"] for found in predictions]),
        target=np.array([found["target"]["class"] for found in predictions]),
        **maps,
    )
    about = {"model": model.name, "images": predictions, "skipped": images.skipped}
    write_json(args.output / "predictions.json", about)
    write_json(args.output / "manifest.json", manifest(vars(args), model, [images]))
    if images.skipped:
        print(f"{len(images.skipped)} of {len(images)} images left out: undecodable")
        for own, reason in list(images.skipped.items())[:SHOWN]:
            print(f"  {own}: {reason}")
        if len(images.skipped) > SHOWN:
            print(f"  ... all of them in {args.output / 'predictions.json'}")
    for found in predictions[:SHOWN]:
        top = found["predicted"][0]
        print(f"{found['image']}: {top['name']} ({100 * top['probability']:.1f} %)")
    print(f"written to {args.output}: maps, overlays, grid, predictions and manifest")
