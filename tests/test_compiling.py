"""Programs for a CPU: loops over steps, and compiler options, which arrive where they are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import compiling

pytestmark = pytest.mark.optimised


@pytest.fixture(autouse=True)
def fresh():
    compiling.compiler_options.cache_clear()
    yield
    compiling.compiler_options.cache_clear()


def convolve(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_convolutions_are_ynnpacks_and_reductions_are_not():
    """Eigen's convolutions change what they give beside another program."""
    images, kernel = jnp.ones((1, 64, 64, 32)), jnp.ones((3, 3, 32, 32))
    text = compiling.jit(convolve).compiled().lower(images, kernel).compile().as_text()
    assert text.count("__ynn_fusion") == 1
    largest = compiling.jit(partial(jnp.max, axis=1))
    assert "__ynn_fusion" not in largest.compiled().lower(images).compile().as_text()


def test_a_compiler_that_does_not_know_an_option_goes_without(monkeypatch):
    monkeypatch.setattr(compiling, "CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert compiling.compiler_options() == {}
    assert compiling.jit(jnp.square)(3.0) == 9.0


def test_other_devices_have_no_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.compiler_options() == {}


def test_static_arguments_and_the_plain_function():
    @partial(compiling.jit, static_argnums=0)
    def named(name: str, x):
        return {name: x + 1}

    assert named("a", jnp.float32(1)) == {"a": 2}
    assert jax.jit(partial(named.__wrapped__, "b"))(1.0) == {"b": 2}


@pytest.mark.parametrize("number", [1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("n", "step"), [(1, 2), (4, 4), (12, 4), (6, 4), (5, 4)])
@pytest.mark.parametrize("halved", [False, True])
def test_steps_give_each_row_what_is_its_own(number, n, step, halved):
    """Whatever the first number of all, by which XLA is kept from knowing the first index."""
    x = np.arange(3.0 * n, dtype=np.float32).reshape(n, 3)
    x[0, 0] = number
    factor = np.arange(n, dtype=np.int32)

    def first(x, factor):
        return {"times": x * factor.astype(np.float32), "factor": factor}

    def second(made):
        return made["times"].sum(axis=1), made["factor"] + jnp.int32(1)

    def function(x, factor):
        return second({"times": x * factor.astype(np.float32)[:, None], "factor": factor})

    halves = (first, second) if halved else None
    found = compiling.in_steps(function, (jnp.asarray(x), jnp.asarray(factor)), step, halves)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found[0], (x * factor[:, None]).sum(axis=1))
    np.testing.assert_array_equal(found[1], factor + 1)


@pytest.mark.cpu
def test_the_first_half_takes_one_row_at_a_time_and_the_second_a_step():
    shapes = []

    def half(x):
        shapes.append(x.shape)
        return x

    compiling.in_steps(lambda x: x, (jnp.ones((12, 5)),), 4, (half, half))
    assert set(shapes) == {(5,), (4, 5)}
