"""What share of the machine's peak each compiled step reaches.

Peaks are measured in the same run: XLA's float32 products of large matrices, by the faster of the
libraries that it has them from, and copying of an array that no cache holds. Arithmetic is counted
in the program, before the compiler sees it: two for each multiplication of a product or
convolution, loops as often as they run. Bytes are those that products and convolutions read and
write, once each, all between them taken as free. A step cannot be faster than arithmetic over the
one peak, nor, where that fits no cache, than bytes over the other.
"""

import argparse
import math
from functools import partial

import numpy as np

from benchmarks import random_model, seconds

ARCHITECTURES = ["mobilenet_v2", "resnet18", "resnet50", "regnet_y_1_6gf", "vit_b_16"]
EXTRACTORS = ("sfp", "banzhaf", "grad-cam")
GEMM, COPY = 4096, 1 << 28  # rows; bytes
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "default: %(default)s"
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, help=told)
    parser.add_argument("--batch-size", type=int, default=16, help=told)
    parser.add_argument("--repeats", type=int, default=5, help=told)


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    gemm = f"{figures['GEMM GFLOP/s']:.0f} GFLOP/s of XLA's large matrix products"
    return [
        (f"{name}, arithmetic a second", gemm, f"{found['share of GEMM peak']:.0%}")
        for name, found in figures.items()
        if isinstance(found, dict)
    ]


def run(args: argparse.Namespace) -> dict:
    peaks = {"GEMM GFLOP/s": gemm_peak() / 1e9, "copying GB/s": copy_peak() / 1e9}
    figures: dict = dict(peaks)
    for name in args.arch:
        figures |= of_model(name, args, peaks)
    return figures | of_search(args, peaks)


def gemm_peak() -> float:
    """Operations a second."""
    import jax
    import jax.numpy as jnp

    from jaxood import compiling

    draw = np.random.default_rng(0).standard_normal
    left, right = (jnp.asarray(draw((GEMM, GEMM), np.float32)) for _ in range(2))
    expected, taken = np.asarray(left[:2], float) @ np.asarray(right, float), []
    for compiled in (jax.jit, compiling.jit):
        product = compiled(partial(jnp.matmul, precision="highest"))
        np.testing.assert_allclose(product(left, right)[:2], expected, atol=1e-2)
        taken.append(seconds(lambda: product(left, right).block_until_ready()))  # noqa: B023
    return 2 * GEMM**3 / min(taken)


def copy_peak() -> float:
    """Bytes read and written a second."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones(COPY // 4, jnp.float32)
    add = jax.jit(lambda array: array + 1)
    return 2 * COPY / seconds(lambda: add(array).block_until_ready())


def of_model(name: str, args: argparse.Namespace, peaks: dict) -> dict:
    """The plain step of a pass, and the step with each extractor."""
    import jax

    from jaxood.attribution.registry import ATTRIBUTIONS
    from jaxood.detectors.registry import VIEWS
    from jaxood.runner import runner as module
    from jaxood.runner.runner import Runner

    runner, figures = Runner(random_model(name)), {}
    extractors = {**ATTRIBUTIONS, **VIEWS}
    side = runner.model.preprocessing.crop
    size = runner.rows(args.batch_size, args.batch_size)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (size, side, side, 3), np.uint8), np.full(size, -1, np.int32)
    for extra in (None, *EXTRACTORS) if name == ARCHITECTURES[0] else (None,):
        step = runner.step(() if extra is None else (extractors[extra](),))
        shared = (jax.random.key(0),)

        def call(step=step, shared=shared):
            return jax.block_until_ready(runner.run(step, rows, shared))

        assert np.isfinite(np.asarray(call().logits)).all()
        arguments = step, runner._network, runner.mesh, runner._weights, rows, shared
        program = module._on_mesh.compiled().trace(*arguments).jaxpr
        label = f"step of {name}" + (f" with {extra}" if extra else "")
        figures[label] = against_peaks(program.jaxpr, seconds(call, args.repeats), peaks)
    return figures


def of_search(args: argparse.Namespace, peaks: dict) -> dict:
    """Neighbours of 2,048 images in a bank of 12,811."""
    import jax
    import jax.numpy as jnp

    from jaxood.detectors.neighbours import Bank, nearest

    draw = np.random.default_rng(0).standard_normal
    queries, rows = (jnp.asarray(draw((n, 2048), np.float32)) for n in (2048, 12_811))
    bank = Bank(rows, jnp.int32(len(rows)))
    search = jax.jit(nearest, static_argnums=2)
    program = jax.make_jaxpr(nearest, static_argnums=2)(queries, bank, 10)
    found = jax.block_until_ready(search(queries, bank, 10))
    best = np.asarray(queries[:9] @ rows.T).argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(found.indices[:9, 0]), best)
    taken = seconds(lambda: jax.block_until_ready(search(queries, bank, 10)), args.repeats)
    return {"neighbours, bank 12811 x 2048": against_peaks(program.jaxpr, taken, peaks)}


def against_peaks(program, taken: float, peaks: dict) -> dict:
    operations, moved = work(program)
    rate = operations / taken / 1e9
    return {
        "seconds": taken,
        "GFLOP": operations / 1e9,
        "MB": moved / 1e6,
        "FLOP a byte": operations / moved,
        "GFLOP/s": rate,
        "share of GEMM peak": rate / peaks["GEMM GFLOP/s"],
        "GB/s": moved / taken / 1e9,
        "share of copying peak": moved / taken / 1e9 / peaks["copying GB/s"],
    }


def work(program) -> tuple[int, int]:
    """Operations and bytes of the products and convolutions of a jaxpr."""
    operations = moved = 0
    for equation in program.eqns:
        kind, parameters = equation.primitive.name, equation.params
        inner, times = [], 1
        if kind == "scan":
            inner, times = [parameters["jaxpr"].jaxpr], parameters["length"]
        elif kind == "while":
            inner, times = [parameters["body_jaxpr"].jaxpr], rounds(equation)
        elif kind == "cond":
            inner = [parameters["branches"][-1].jaxpr]
        elif kind in ("dot_general", "conv_general_dilated"):
            operations += 2 * multiplications(equation)
            moved += sum(size_of(one.aval) for one in (*equation.invars, *equation.outvars))
        else:
            inner = [parameters[name] for name in CALLS if name in parameters]
            times = parameters["mesh"].size if kind == "shard_map" else 1
        for one in inner:
            found = work(getattr(one, "jaxpr", one))
            operations, moved = operations + times * found[0], moved + times * found[1]
    return operations, moved


def rounds(equation) -> int:
    """Of a loop with known ends, as `fori_loop` makes it."""
    literals = [one.val for one in equation.invars if hasattr(one, "val")]
    ends = [
        int(value)
        for value in literals
        if np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.integer)
    ]
    if not ends:
        raise ValueError("a loop whose rounds are not known cannot be counted")
    return max(ends)


def multiplications(equation) -> int:
    left, right = (one.aval.shape for one in equation.invars[:2])
    out = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return out * math.prod(left[axis] for axis in contracted)
    kernel = equation.params["dimension_numbers"].rhs_spec  # outputs, inputs of a group, window
    return out * math.prod(right[axis] for axis in kernel[1:])


def size_of(aval) -> int:
    return math.prod(aval.shape) * aval.dtype.itemsize
