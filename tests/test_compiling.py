"""Compiler options for a CPU: they arrive, and a compiler that does not know them goes without."""

from functools import partial

import jax
import jax.numpy as jnp
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
