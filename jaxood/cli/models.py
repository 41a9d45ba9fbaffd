"""List the architectures: parameters, input, feature map, and the weights published for them.

Sizes are computed from the networks; accuracies are ImageNet top-1 in per cent as published
(CIFAR's for networks of 32x32 images).
"""

import argparse

HEADER = ("architecture", "parameters", "input", "feature map", "tag", "top-1", "checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="only this architecture")


def run(args: argparse.Namespace) -> None:
    from jaxood.errors import choose
    from jaxood.models.registry import ARCHITECTURES

    names = [choose("name", args.name, ARCHITECTURES)] if args.name else list(ARCHITECTURES)
    rows = [HEADER, *(row for name in names for row in describe(name))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def describe(name: str) -> list[tuple[str, ...]]:
    """One row a weight tag, from the network's shapes: nothing is allocated or computed."""
    import math

    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxood.models.loading import abstract_model, parameters
    from jaxood.models.registry import ARCHITECTURES

    rows = []
    maps: dict[int, str] = {}
    for tag, weights in ARCHITECTURES[name].tags.items():
        model = abstract_model(name, weights.num_classes)
        side = weights.preprocessing.crop
        if side not in maps:
            images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
            outputs = nnx.eval_shape(lambda model, images: model(images), model, images)
            maps[side] = "x".join(map(str, outputs.feature_map.shape[1:]))
        count = sum(math.prod(array.shape) for array in parameters(model).values())
        rows.append(
            (
                name,
                f"{count / 1e6:.2f} M",
                f"{side}x{side}",
                maps[side],
                tag,
                "" if weights.top1 is None else f"{weights.top1:.1f}",
                weights.checkpoints[0] if weights.checkpoints else "",
            )
        )
    return rows
