"""What the benchmarks count in programs, by hand."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax


@pytest.fixture(scope="module")
def benchmark():
    """A module of the benchmarks by name."""
    path = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, path)
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    sys.path.remove(path)


def work(benchmark, function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return benchmark("roofline").work(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_work_of_a_product(benchmark):
    assert work(benchmark, jnp.matmul, (3, 5), (5, 7)) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_work_of_a_grouped_convolution(benchmark):
    def convolution(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=4
        )

    found, _ = work(benchmark, convolution, (2, 8, 6, 12), (3, 3, 3, 8))
    assert found == 2 * (2 * 4 * 3 * 8) * (3 * 3 * 3)


def test_work_within_loops_and_calls(benchmark):
    @jax.jit
    def product(x):
        return x @ x

    def looped(x):
        x = lax.fori_loop(0, 4, lambda _, x: product(x), x)
        x = lax.fori_loop(0, jnp.int32(5), lambda _, x: product(x), x)  # a while loop
        return lax.map(product, jnp.stack([x, x, x]))

    assert work(benchmark, looped, (2, 2))[0] == (4 + 5 + 3) * 2 * 8


@pytest.mark.parametrize(
    ("text", "bytes_sent"),
    [
        ("  %g = f32[8,10]{1,0} all-gather(f32[1,10] %x), dimensions={0}", 320),
        ("  %g = (s32[4]{0}, bf16[6]{0}) all-reduce(%x, %y)", 28),
        ("  %d = f32[8,10]{1,0} dot(%x, %y)", 0),
    ],
)
def test_bytes_sent(benchmark, text, bytes_sent):
    class Program:
        def as_text(self):
            return text

    devices = jax.local_device_count()
    assert benchmark("scaling").sent(Program()) == bytes_sent * (devices - 1) // devices


def test_table(benchmark):
    found = {"speed_over_torch": 1.234, "cores_used": 2}
    text = benchmark("all").table({"pipeline": found, "score-cam": {"speed_over_torchcam": 5.06}})
    head, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert head == "| what | against | figure |"
    assert rows[1].startswith("| JPEG files") and rows[1].endswith("| 1.23 x as fast, same bytes |")
    assert rows[2].endswith("| 5.1 x as fast, same map |")
