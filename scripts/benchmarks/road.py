"""Imputation of ROAD's masks against a sparse direct solve a mask, and against forward passes.

Every mask of one image, two orders: a smooth map's quantiles, as attributions give them. Each is
first checked against the direct solve. Whole curves, with everything that they take, stand beside
the forward passes in them.
"""

import argparse

import numpy as np

from benchmarks import random_model, seconds, seconds_in_turn

NETWORKS = ("resnet50", "mobilenet_v2")
WEIGHTS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--thresholds", type=int, default=50, help="masks an order")
    parser.add_argument(
        "--direct", type=int, default=10, help="masks solved directly, evenly taken"
    )
    parser.add_argument("--batch", type=int, default=8, help="images of the forward passes")
    parser.add_argument("--seed", type=int, default=0)


def direct_solve(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """One system in sparse form and SciPy's `spsolve`, as ROAD's authors do it (vectorised)."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    height, width, channels = image.shape
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(removed.sum())
    diagonal, b = np.zeros(removed.sum()), np.zeros((removed.sum(), channels))
    rows, columns, values = [], [], []
    for (down, right), weight in WEIGHTS.items():
        for y, x in ((down, right), (-down, -right)):
            here = np.s_[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
            there = np.s_[max(y, 0) : height - max(-y, 0), max(x, 0) : width - max(-x, 0)]
            mine, other = number[here].ravel(), number[there].ravel()
            given = image[there].reshape(-1, channels)
            diagonal[mine[mine >= 0]] += weight
            known = (mine >= 0) & (other < 0)
            b[mine[known]] += weight * given[known]
            both = (mine >= 0) & (other >= 0)
            rows.append(mine[both])
            columns.append(other[both])
            values.append(np.full(both.sum(), -weight))
    pixels = np.arange(len(b))
    matrix = sparse.csc_matrix(
        (
            np.concatenate([*values, diagonal]),
            (np.concatenate([*rows, pixels]), np.concatenate([*columns, pixels])),
        )
    )
    filled = image.astype(np.float64)
    filled[removed] = spsolve(matrix, b).reshape(b.shape)
    return filled


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    what = "imputation of a ROAD mask, 224 x 224"
    rows = [
        (what, f"sparse direct solve, {kind} start", f"{figures[kind][key]:.0f} x faster")
        for key in ("times_faster_than_direct",)
        for kind in ("warm", "cold")
    ]
    for name, share in figures["imputation_over_forward_same_batch"].items():
        rows.append((what, f"{name}'s forward pass on the same batch", f"{share:.2f} of its time"))
    for name, times in figures["curves_over_forward_passes"].items():
        rows.append(("ROAD curves", f"{name}'s forward passes", f"{times:.2f} of their time"))
    return rows


def smooth(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A random map of `cells` x `cells`, enlarged as attributions are."""
    import jax.numpy as jnp

    from jaxood.attribution.heatmap import upsample

    return np.asarray(upsample(jnp.asarray(rng.random((1, cells, cells), np.float32)), 2 * (size,)))


def logits(model, images):
    """The forward pass of a ROAD step."""
    from jaxood.models.blocked import forward

    return forward(model, images)[0].logits


def run(args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_sample_image

    from jaxood.compiling import jit
    from jaxood.parallel import rounded_up, shard
    from jaxood.perturbation.imputation import impute_linear
    from jaxood.perturbation.removal import removal_order
    from jaxood.perturbation.road import Explained, RoadSettings, road_curves
    from jaxood.runner.runner import Runner

    rng = np.random.default_rng(args.seed)
    size, fractions = args.size, tuple(i / args.thresholds for i in range(1, args.thresholds))
    fractions = (*fractions, 0.98)[: args.thresholds]
    photograph = load_sample_image("china.jpg")[:size, :size]
    image = ((photograph / 255 - 0.45) / 0.225).astype(np.float32)
    maps = jnp.asarray(np.repeat(smooth(rng, size, 7), 2, axis=0))
    keys = jax.random.split(jax.random.key(args.seed), 2)
    ranks, counts = removal_order(maps, jnp.array([False, True]), fractions, "exact", keys)
    removed = np.asarray(ranks[None] < counts.T[:, :, None, None])  # thresholds, orders
    masks = len(fractions) * 2
    images = np.broadcast_to(image, (2, *image.shape))

    solve = jit(impute_linear)

    def warm():
        """As ROAD does it: each threshold begins where the last one ended."""
        previous, found = jnp.asarray(images), []
        for at in removed:
            imputed = solve(images, at, previous)
            previous = imputed.images
            found.append(imputed)
        return jax.block_until_ready(found)

    def cold():
        return jax.block_until_ready([solve(images, at) for at in removed])

    found = {"warm": warm(), "cold": cold()}
    chosen = [(i, order) for i in range(len(fractions)) for order in (0, 1)]
    chosen = chosen[:: max(len(chosen) // args.direct, 1)]
    errors = []
    for i, order in chosen:
        exact = direct_solve(image, removed[i, order])
        errors += [np.abs(np.asarray(run[i].images[order]) - exact).max() for run in found.values()]
    worst = float(max(errors) / np.ptp(image))
    assert worst < 1e-3, f"imputation is off by {worst} of the range"

    runners = {name: Runner(random_model(name)) for name in NETWORKS}
    mesh = runners[NETWORKS[0]].mesh
    count = rounded_up(args.batch, mesh)
    batch = shard(rng.standard_normal((count, size, size, 3), np.float32), mesh)

    def forward(runner):
        return lambda: jax.block_until_ready(runner.run(logits, (batch,)))

    settings = RoadSettings()
    item = Explained("photograph", photograph, 0, "smooth", np.asarray(maps[0]))

    def curves(runner):
        return lambda: list(road_curves(runner, [item] * (count // 2), settings, batch_size=count))

    part = removed[:: max(len(fractions) // args.batch, 1)][: args.batch, 0]
    same = (np.broadcast_to(image, (len(part), *image.shape)), part)

    taken = seconds_in_turn({"warm": warm, "cold": cold}, repeats=2)
    beside = seconds_in_turn(
        {
            "impute": lambda: jax.block_until_ready(solve(*same)),
            **{name: forward(runner) for name, runner in runners.items()},
            **{f"{name} curves": curves(runner) for name, runner in runners.items()},
        },
        repeats=3,
    )
    direct = seconds(
        lambda: [direct_solve(image, removed[i, order]) for i, order in chosen], repeats=1, warmup=0
    )

    def most(kind: str, field: str, how) -> float:
        return float(how([np.asarray(getattr(step, field)) for step in found[kind]]))

    figures = {
        "masks": masks,
        "largest_error_of_range": worst,
        "direct_ms_a_mask": 1e3 * direct / len(chosen),
        "forward_ms_an_image": {name: 1e3 * beside[name] / count for name in NETWORKS},
    }
    for kind in found:
        figures[kind] = {
            "ms_a_mask": 1e3 * taken[kind] / masks,
            "times_faster_than_direct": direct / len(chosen) * masks / taken[kind],
            "mean_iterations": most(kind, "iterations", np.mean),
            "most_iterations": most(kind, "iterations", np.max),
            "largest_residual": most(kind, "residual", np.max),
        }
    figures["imputation_over_forward_same_batch"] = {
        name: beside["impute"] / len(part) / (beside[name] / count) for name in NETWORKS
    }
    figures["curves_over_forward_passes"] = {
        name: beside[f"{name} curves"] / (len(settings.fractions) * beside[name])
        for name in NETWORKS
    }
    return figures
