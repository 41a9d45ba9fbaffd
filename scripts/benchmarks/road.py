"""Imputation of ROAD's masks against a sparse direct solve a mask, and against forward passes.

Every mask of one image, two orders: a smooth map's quantiles, as attributions give them. Each is
first checked against the direct solve. Whole curves, with everything that they take, stand beside
the forward passes in them.
"""

import argparse

import numpy as np

from benchmarks import dispatched, random_model, seconds, seconds_in_turn

NETWORKS = ("resnet50", "mobilenet_v2")
IN_A_ROW = 4
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
    rows = [(what, "sparse direct solve", f"{figures['times_faster_than_direct']:.0f} x faster")]
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


def imputation(model, images, removed):
    """The imputation of a ROAD step."""
    from jaxood.perturbation.imputation import impute_linear

    return impute_linear(images, removed)


def imputation_within(model, images, removed):
    """The same where the images stay in the program, as a ROAD step has them."""
    imputed = imputation(model, images, removed)
    return imputed._replace(images=imputed.images[:, :1, :1])


def run(args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_sample_image

    from jaxood.parallel import rounded_up, shard
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

    runners = {name: Runner(random_model(name)) for name in NETWORKS}
    mesh = runners[NETWORKS[0]].mesh
    count = rounded_up(args.batch, mesh)
    stacked = removed.reshape(masks, size, size)
    parts = [np.resize(stacked[i : i + count], (count, size, size)) for i in range(0, masks, count)]
    images = shard(np.broadcast_to(image, (count, *image.shape)).copy(), mesh)

    def impute(part):
        return runners[NETWORKS[0]].run(imputation, (images, part))

    found = [impute(part) for part in parts]
    filled = np.concatenate([np.asarray(part.images) for part in found])[:masks]
    chosen = [(i, order) for i in range(len(fractions)) for order in (0, 1)]
    chosen = chosen[:: max(len(chosen) // args.direct, 1)]
    errors = []
    for i, order in chosen:
        exact = direct_solve(image, removed[i, order])
        errors.append(np.abs(filled[2 * i + order] - exact).max())
    worst = float(max(errors) / np.ptp(image))
    assert worst < 1e-3, f"imputation is off by {worst} of the range"

    batch = shard(rng.standard_normal((count, size, size, 3), np.float32), mesh)

    def repeated(runner, what, *rows):
        """Of rows that were laid out before, as ROAD's are for all fractions."""
        rows = runner.divided(rows)
        return lambda: dispatched(lambda: runner.run(what, rows), IN_A_ROW)

    settings = RoadSettings()
    item = Explained("photograph", photograph, 0, "smooth", np.asarray(maps[0]))

    def curves(runner):
        return lambda: list(road_curves(runner, [item] * (count // 2), settings, batch_size=count))

    same = removed[np.linspace(0, len(fractions) - 1, count).astype(int), 0]

    taken = seconds(lambda: jax.block_until_ready([impute(part) for part in parts]), repeats=2)
    beside = seconds_in_turn(
        {
            "impute": repeated(runners[NETWORKS[0]], imputation_within, images, same),
            **{name: repeated(runner, logits, batch) for name, runner in runners.items()},
            **{f"{name} curves": curves(runner) for name, runner in runners.items()},
        },
        repeats=3,
    )
    direct = seconds(
        lambda: [direct_solve(image, removed[i, order]) for i, order in chosen], repeats=1, warmup=0
    )

    iterations, residual = (
        np.concatenate([np.asarray(getattr(part, name)) for part in found])[:masks]
        for name in ("iterations", "residual")
    )
    forwards = {name: 1e3 * beside[name] / IN_A_ROW / count for name in NETWORKS}
    figures = {
        "masks": masks,
        "largest_error_of_range": worst,
        "direct_ms_a_mask": 1e3 * direct / len(chosen),
        "ms_a_mask": 1e3 * taken / (count * len(parts)),
        "times_faster_than_direct": direct / len(chosen) * count * len(parts) / taken,
        "mean_iterations": float(iterations.mean()),
        "most_iterations": int(iterations.max()),
        "largest_residual": float(residual.max()),
        "forward_ms_an_image": forwards,
    }
    figures["imputation_over_forward_same_batch"] = {
        name: beside["impute"] / beside[name] for name in NETWORKS
    }
    images_in_curves = len(settings.fractions) * count
    figures["curves_over_forward_passes"] = {
        name: 1e3 * beside[f"{name} curves"] / images_in_curves / forwards[name]
        for name in NETWORKS
    }
    return figures
