"""Attribution by exact coalitions against the surrogate procedure as the original runs it.

The original (Zhu, Yan, Xie, IJCV 2025) trains one Linear(49 -> channels) for an image
under the frozen head (10,000 masks, batch 100, SGD with momentum, 60 epochs) and evaluates it on
8,000 pairs of masks for each position: 784,000 evaluations, in torch, in batches of 100. Real
feature maps: MobileNetV2 on the ImageNet photographs that the demo's packages carry. Errors are
largest errors as a share of the largest value of an image, against a million coalitions.

Images are spread over all devices, as every command does it. On a CPU each core may be one
(JAX_NUM_CPU_DEVICES=2): they then wait for each other once a call, not once an operation.
"""

import argparse
import time

import numpy as np

from benchmarks import dispatched, seconds, seconds_in_turn

REFERENCE_DESIGNS = 8  # of 120 coalitions at once
FIVE = ("banzhaf", "shapley", "grad-cam", "grad-cam++", "leave-one-out")
LEARNING_RATE, MOMENTUM, MASKS, BATCH, PAIRS = 0.002, 0.9, 10_000, 100, 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    given = "default: those of --suite photos"
    parser.add_argument("--weights", help=f"converted MobileNetV2 (.safetensors); {given}")
    parser.add_argument("--images", nargs="+", help=f"photographs or folders; {given}")
    parser.add_argument("--count", type=int, default=32, help="images used (default: 32)")
    parser.add_argument(
        "--original-images", type=int, default=1, help="run through the original (default: 1)"
    )
    parser.add_argument(
        "--reference", type=int, default=1_000_000, help="coalitions of the reference"
    )
    parser.add_argument(
        "--coalitions", type=int, nargs="+", default=[32, 60, 120], help="budgets that are timed"
    )
    parser.add_argument("--repeats", type=int, default=9, help="of five maps and of one")
    parser.add_argument(
        "--surrogate-images", type=int, default=0, help="also train our surrogate on so many"
    )


def original(features: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The original's values of one image, [p]; features [p, c]."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    p, c = features.shape
    maps = torch.from_numpy(features.T.copy())
    head = nn.Linear(c, kernel.shape[1])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(kernel.T.copy()))
        head.bias.copy_(torch.from_numpy(bias.copy()))
    head.requires_grad_(False)
    target = int(head(maps.mean(dim=1)).argmax())
    surrogate = nn.Linear(p, c)

    masks = (torch.rand(MASKS, p) < 0.5).float()[p:]
    with torch.no_grad():
        values = torch.cat(
            [
                torch.softmax(head((maps[None] * part[:, None]).mean(dim=2)), dim=1)[:, target]
                for part in masks.split(BATCH)
            ]
        )
    rate = LEARNING_RATE
    for epoch in range(60):
        if epoch in (0, 30, 50):
            rate = rate / 2 if epoch else rate
            optimiser = torch.optim.SGD(surrogate.parameters(), lr=rate, momentum=MOMENTUM)
        for chosen in torch.randperm(len(masks)).split(BATCH):
            optimiser.zero_grad()
            found = torch.softmax(head(surrogate(masks[chosen])), dim=1)[:, target]
            loss = nn.functional.binary_cross_entropy(found, values[chosen].clamp(0, 1))
            loss.backward()
            optimiser.step()

    result = np.zeros(p)
    with torch.no_grad():
        for position in range(p):
            total = 0.0
            for _ in range(PAIRS // BATCH):
                mask = (torch.rand(BATCH, p) < 0.5).float()
                mask[:, position] = 1.0
                present = torch.softmax(head(surrogate(mask)), dim=1)[:, target]
                mask[:, position] = 0.0
                total += float(
                    (present - torch.softmax(head(surrogate(mask)), dim=1)[:, target]).sum()
                )
            result[position] = total / PAIRS
    return result


def million(feature_map, head, count: int) -> np.ndarray:
    """Values over about `count` coalitions, designs added up in float64."""
    import jax

    from jaxood.attribution.coalitions import position_values

    @jax.jit
    def some(feature_map, head, key):
        return position_values(feature_map, head, key, coalitions=120 * REFERENCE_DESIGNS)

    total, done = 0.0, 0
    while done < count:
        part = some(feature_map, head, jax.random.fold_in(jax.random.key(1), done))
        total = total + np.asarray(part.values, np.float64) * float(part.coalitions[0])
        done += int(part.coalitions[0])
    return total.reshape(len(total), -1) / done


def errors(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Largest error of each image as a share of its largest value."""
    return np.abs(values - reference).max(axis=1) / np.abs(reference).max(axis=1)


def overlap(values: np.ndarray, reference: np.ndarray, keep: int) -> float:
    """Positions among the `keep` highest in both, mean over images."""
    from jaxood.ranking import kept_positions

    both = kept_positions(values, keep) & kept_positions(reference, keep)
    return float(both.sum(axis=1).mean())


def run(args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    from jaxood.attribution.coalitions import position_values
    from jaxood.attribution.surrogate import RESNET50, surrogate_values
    from jaxood.parallel import data_mesh, replicate, shard

    mesh = data_mesh()
    feature_map, head = feature_maps(args.weights, args.images, args.count)
    n = len(feature_map) // mesh.size * mesh.size
    feature_map, head = shard(feature_map[:n], mesh), replicate(head, mesh)
    _, h, w, _ = feature_map.shape
    p, keep = h * w, round(34 / 49 * h * w)
    reference = million(feature_map, head, args.reference)
    figures: dict = {"images": n, "feature_map": list(feature_map.shape[1:]), "kept": keep}

    target = jnp.argmax(head(feature_map.mean(axis=(1, 2))), axis=-1)  # known from the forward pass
    maps = np.asarray(feature_map).reshape(n, p, -1)
    kernel, bias = np.asarray(head.kernel), np.asarray(head.bias)
    taken, found = [], []
    for image in range(min(args.original_images, n)):
        start = time.perf_counter()
        found.append(original(maps[image], kernel, bias))
        taken.append(time.perf_counter() - start)
    found = np.array(found)
    figures["original"] = {
        "seconds_an_image": float(np.median(taken)),
        "max_error": errors(found, reference[: len(found)]).tolist(),
        "kept_overlap": overlap(found, reference[: len(found)], keep),
    }

    for precision in ("float32", "bfloat16"):
        for count in args.coalitions:
            call = jax.jit(
                lambda feature_map, head, key, target, count=count, precision=precision: (
                    position_values(
                        feature_map, head, key, "banzhaf", count, target, precision
                    ).values
                )
            )
            draws = [
                np.asarray(call(feature_map, head, jax.random.key(seed), target)).reshape(n, p)
                for seed in range(8)
            ]
            wrong = np.array([errors(draw, reference) for draw in draws])
            key = replicate(jax.random.key(0), mesh)
            taken = seconds(
                lambda call=call, key=key: call(feature_map, head, key, target).block_until_ready(),
                200,
            )
            figures[f"{count} coalitions, {precision}"] = {
                "milliseconds_an_image": 1e3 * taken / n,
                "times_faster": figures["original"]["seconds_an_image"] * n / taken,
                "max_error": float(wrong.mean()),
                "max_error_of_hardest_image": float(wrong.mean(axis=0).max()),
                "max_error_of_first_images": wrong.mean(axis=0)[: len(found)].tolist(),
                "kept_overlap": float(np.mean([overlap(d, reference, keep) for d in draws])),
            }

    figures["auto"] = _auto_beside_fixed(feature_map, head, target, reference, keep)
    figures["five maps over one"] = _five_over_one(args.weights, args.images, args.repeats)

    if args.surrogate_images:
        some = shard(feature_map[: args.surrogate_images], mesh)
        classes = shard(target[: len(some)], mesh)
        call = jax.shard_map(
            lambda *inputs: surrogate_values(*inputs, settings=RESNET50),
            mesh=mesh,
            in_specs=(P("data"), P(), P("data"), P()),
            out_specs=P("data"),
            check_vma=False,
        )
        inputs = some, head, classes, replicate(jax.random.key(0), mesh)
        call = jax.jit(call).lower(*inputs).compile()
        start = time.perf_counter()
        values = np.asarray(call(*inputs)).reshape(len(some), p)
        correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(values, reference, strict=False)]
        figures["surrogate, batched"] = {
            "images": len(some),
            "seconds_in_all": time.perf_counter() - start,
            "least_correlation": float(np.min(correlation)),
            "max_error": errors(values, reference[: len(some)]).tolist(),
        }
    return figures


def _auto_beside_fixed(feature_map, head, target, reference: np.ndarray, keep: int) -> dict:
    """As many coalitions as the ranking asks for, against the fixed number."""
    import jax

    from jaxood.attribution.coalitions import Banzhaf, position_values

    n, found, calls = len(feature_map), {}, {}
    for name, count in {"auto": "auto", "fixed": Banzhaf().coalitions}.items():
        call = jax.jit(
            lambda key, count=count: position_values(
                feature_map, head, key, "banzhaf", count, target
            )
        )
        draws = [call(jax.random.key(seed)) for seed in range(8)]
        values = [np.asarray(draw.values).reshape(n, -1) for draw in draws]
        found[f"{name} kept_overlap"] = float(
            np.mean([overlap(one, reference, keep) for one in values])
        )
        found[f"{name} coalitions"] = float(np.mean([draw.coalitions for draw in draws]))
        calls[name] = lambda call=call: jax.block_until_ready(call(jax.random.key(0)))
    taken = seconds_in_turn(calls, 51)
    return found | {"time over fixed": taken["auto"] / taken["fixed"]}


def _five_over_one(weights: str | None, images: list[str] | None, repeats: int) -> float:
    """Five maps of a batch of photographs in one step against one, the forward pass included."""
    import jax

    from jaxood.attribution.registry import attribution
    from jaxood.runner.runner import Runner

    model, pixels = photographs(weights, images, 16)
    runner = Runner(model)
    batch = np.resize(pixels, (16, *pixels.shape[1:]))
    targets, key = np.zeros(len(batch), np.int32), jax.random.key(0)

    def maps(names):
        step = runner.step([attribution(name) for name in names])
        return lambda: dispatched(lambda: runner.run(step, (batch, targets), (key,)), 4)

    taken = seconds_in_turn({"five": maps(FIVE), "one": maps(FIVE[:1])}, repeats)
    return taken["five"] / taken["one"]


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    seconds = figures["original"]["seconds_an_image"]
    rows = []
    for name, found in figures.items():
        if isinstance(found, dict) and "times_faster" in found:
            what = f"map of MobileNetV2's positions, {name}, {found['max_error']:.1%} error"
            against = f"the surrogate procedure as published ({seconds:.0f} s)"
            rows.append((what, against, f"{found['times_faster']:,.0f} x faster"))
    auto = figures["auto"]
    fixed = f"{auto['fixed coalitions']:.0f} coalitions"
    if auto["auto kept_overlap"] >= auto["fixed kept_overlap"]:
        what = f"coalitions=auto, the same positions kept ({auto['auto coalitions']:.0f} a map)"
        rows.append((what, fixed, f"{auto['time over fixed']:.2f} of the time"))
    what = "five maps in one step, MobileNetV2's forward pass included"
    rows.append((what, "one map", f"{figures['five maps over one']:.2f} of the time"))
    return rows


def photographs(weights: str | None, images: list[str] | None, count: int):
    """The converted model, and photographs as it takes them."""
    from pathlib import Path

    from jaxood.data.files import ImageFiles
    from jaxood.data.photos import photos_suite
    from jaxood.demo.photos import photos_weights
    from jaxood.files import cache_dir
    from jaxood.flows.sources import load_model

    model = load_model(weights or photos_weights(cache_dir()), arch="mobilenet_v2")
    found = images or photos_suite().id_test.paths()
    files = ImageFiles.from_paths([Path(image) for image in found])
    batch = next(files.batches(model.preprocessing, min(count, len(files))))
    return model, batch.images[batch.valid]


def feature_maps(weights: str | None, images: list[str] | None, count: int):
    """Feature maps of photographs through the converted model, and its head."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    model, pixels = photographs(weights, images, count)
    graphdef, state = nnx.split(model.module)

    @jax.jit
    def features(state, images):
        outputs = nnx.merge(graphdef, state)(model.preprocessing.normalise(images))
        return outputs.feature_map

    return features(state, jnp.asarray(pixels)), model.head
