"""Exact KNN and NNGuide scoring against faiss-cpu's IndexFlatIP and torch's matmul and topk.

Both rivals are given normalised queries; here whole scores are timed, from features on the host to
scores on the host, as an evaluation computes them. On a GPU the rival is torch alone, on the same
device. Memory is what the compiler lays out beside the bank, queries and logits left aside.
"""

import argparse
from functools import partial

from benchmarks import seconds_in_turn

BANKS = ((12_811, 2048), (100_000, 1280))
CLASSES = 1000
STREAMED = 1024  # queries of a bank in host memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=int, default=2048, help="default: %(default)s")
    parser.add_argument("--k", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    host = "rows of a bank in the machine's memory; all of ImageNet: 1281167 (default: %(default)s)"
    parser.add_argument("--host-rows", type=int, default=100_000, help=host)


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    host = figures["in the machine's memory"]
    what = f"neighbours of {STREAMED:,} images in {host['GB']:.1f} GB of the machine's memory"
    streamed = (what, "the products alone", f"{host['over products alone']:.2f} of their time")
    return [
        (f"exact {name}, bank {bank}", rival, f"{found[key]:.2f} x as fast")
        for bank, found in figures.items()
        if isinstance(found, dict)
        for name in ("knn", "nnguide")
        for rival in ("faiss", "torch")
        if (key := f"{name} {rival} / jaxood") in found
    ] + [streamed]


def run(args: argparse.Namespace) -> dict:
    figures = {f"{b} x {c}": _compare(b, c, args) for b, c in BANKS}
    return figures | {"in the machine's memory": _streamed(args.host_rows, args)}


def _streamed(size: int, args: argparse.Namespace) -> dict:
    """A bank of 2,048 channels that stays in the machine's memory, block by block to the device.

    Rows repeat after a while, to be made in short time; the search is beside the products alone.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxood.detectors.neighbours import Bank, HostRows, blocks, nearest

    generator = np.random.default_rng(0)
    some = generator.standard_normal((blocks().bank + 1, 2048), np.float32)
    rows = np.resize(some, (size, 2048))
    queries = jnp.asarray(generator.standard_normal((STREAMED, 2048), np.float32))
    bank = Bank(HostRows(rows), np.int32(size))
    search = jax.jit(nearest, static_argnums=2)
    product = jax.jit(lambda queries, rows: jnp.matmul(queries, rows.T, precision="highest"))
    block = jnp.asarray(rows[: blocks().bank])

    found = search(queries[:8], bank, 1)
    best = np.asarray(queries[:8]) @ some.T
    np.testing.assert_array_equal(np.asarray(found.indices[:, 0]), best.argmax(axis=1))
    calls = {
        "search": lambda: jax.block_until_ready(search(queries, bank, args.k)),
        "product of a block": lambda: product(queries, block).block_until_ready(),
    }
    taken = seconds_in_turn(calls, min(args.repeats, 3))
    products = taken["product of a block"] * size / blocks().bank
    return {
        "rows": size,
        "GB": rows.nbytes / 1e9,
        "seconds": taken["search"],
        "GB/s": rows.nbytes / taken["search"] / 1e9,
        "GFLOP/s": 2 * STREAMED * rows.size / taken["search"] / 1e9,
        "over products alone": taken["search"] / products,
    }


def _compare(size: int, channels: int, args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxood.detectors.method import Method
    from jaxood.detectors.neighbours import Knn, NNGuide, memory_bytes, nearest
    from jaxood.detectors.scoring import score_rows
    from jaxood.heads import LinearHead
    from jaxood.outputs import ModelOutputs

    generator = np.random.default_rng(0)

    def draw(n: int) -> ModelOutputs:
        pooled = generator.gamma(0.5, size=(n, channels)).astype(np.float32)
        logits = 3 * generator.standard_normal((n, CLASSES), dtype=np.float32)
        return ModelOutputs(None, pooled, pooled, logits)

    head = LinearHead(jnp.zeros((channels, CLASSES)), jnp.zeros(CLASSES))
    train, test = draw(size), draw(args.queries)
    queries = np.asarray(test.pooled)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    steps = {"knn": Knn(args.k), "nnguide": NNGuide(args.k)}
    figures: dict = {"queries": args.queries, "k": args.k}
    for name, step in steps.items():
        state = step.fit(train, None, head)
        rows = np.asarray(state.rows)
        found = jax.jit(nearest, static_argnums=2)(queries, state, args.k)
        calls = {"jaxood": partial(score_rows, Method(step), (state,), test, head)}
        for rival, search in _rivals(rows, queries, args.k).items():
            products, indices = search()
            np.testing.assert_allclose(found.products, products, rtol=1e-4)
            same = np.mean(np.asarray(found.indices) == indices)
            assert same > 0.999, f"{rival} finds other neighbours: {same:.5f} are the same"
            figures[f"{name} same neighbours as {rival}"] = float(same)
            calls[rival] = search
        taken = seconds_in_turn(calls, args.repeats)
        figures |= {f"{name} {who} seconds": value for who, value in taken.items()}
        figures |= {
            f"{name} {rival} / jaxood": taken[rival] / taken["jaxood"]
            for rival in calls
            if rival != "jaxood"
        }
        if name == "knn":
            plan = jax.jit(step.score).lower(state, test, head).compile().memory_analysis()
            stated = memory_bytes(size, channels)
            figures["bank MB"] = rows.nbytes / 1e6
            figures["block MB"] = (stated - rows.nbytes) / 1e6
            figures["memory / (bank + one block)"] = (
                rows.nbytes + plan.temp_size_in_bytes
            ) / stated
    return figures


def _rivals(rows, queries, k: int) -> dict:
    import jax
    import torch

    def arrays(found):
        return found[0].cpu().numpy(), found[1].cpu().numpy()

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    bank, sought = torch.tensor(rows, device=device), torch.tensor(queries, device=device)
    rivals = {"torch": lambda: arrays(torch.topk(sought @ bank.T, k))}
    if device == "cpu":
        import faiss

        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        rivals["faiss"] = lambda: index.search(queries, k)
    return rivals
