"""What XLA's CPU compiler has to be told of functions that run a network."""

import math
import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp

# Products and convolutions by YNNPACK. Convolutions by Eigen gave wrong numbers in two programs at
# once: RegNetY-16GF's logits were off by 7e-3 from the eighth image on (jax 0.10.2). No reductions
# by YNNPACK: its maximum of NaN and a number is the number.
YNNPACK = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
CPU_OPTIONS: dict[str, str | int] = {
    "xla_cpu_experimental_ynn_fusion_type": YNNPACK,
    # Whole vectors of AVX-512 in loops, not LLVM's halves: 0.90 to 1.00 of a network's time.
    "xla_cpu_prefer_vector_width": 512,
}

# Of images whose activations stay in a CPU's cache, where two programs run at once.
PIXELS_A_CORE = 224 * 224


def images_a_step(height: int, width: int) -> int:
    """Images that a CPU takes at once: a power of two, larger for smaller images and more cores."""
    count = max(1, (os.cpu_count() or 1) * PIXELS_A_CORE // (height * width))
    return 2 ** (count.bit_length() - 1)


def in_steps(function: Callable[..., Any], rows: tuple[jax.Array, ...], step: int) -> Any:
    """`function(*rows)`, so many rows at a time where it is compiled for a CPU.

    Args:
      function: a row of its result depends on the same row of `rows` only.
      step: fewer where it does not divide them.
    """
    n = len(rows[0])
    step = math.gcd(n, step)
    if step == n:
        return function(*rows)

    def one(row):
        found = function(*jax.tree.map(lambda array: array[None], row))
        return jax.tree.map(lambda array: array[0], found)

    def stepwise(*rows):
        if step == 1:  # XLA would copy the blocks for the sake of an axis of length 1
            return jax.lax.map(one, rows)
        blocks = jax.tree.map(lambda array: array.reshape(-1, step, *array.shape[1:]), rows)
        found = jax.lax.map(lambda block: function(*block), blocks)
        return jax.tree.map(lambda array: array.reshape(n, *array.shape[2:]), found)

    return jax.lax.platform_dependent(*rows, cpu=stepwise, default=function)


def computed_once(x: jax.Array) -> jax.Array:
    """`x`, which is read by a matrix product, and by more; the product has to read this very array.

    XLA's CPU compiler computes what has one operand again for each that reads it, and that
    operand's operands as well: a sum activated at the end of each block of a network, from all
    branches before it, which is a fifth of ResNet-101's time. What has two operands, one of its
    readers being a product, it keeps; this selects by one of two.
    """
    return jax.lax.platform_dependent(x, cpu=_selected, default=lambda x: x)


@jax.custom_jvp
def _selected(x):
    return jnp.where(jnp.isnan(x), jnp.nan, x)


@_selected.defjvp
def _selected_slope(primals, tangents):
    return _selected(*primals), *tangents


@cache
def compiler_options() -> dict[str, str | int]:
    """For the default backend; none where its compiler does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def jit(function: Callable, static_argnums: int | tuple[int, ...] = ()) -> Any:
    """`jax.jit(function, static_argnums)` under `compiler_options()`.

    JAX takes compiler options for a whole program only: within another compiled function call
    `function` itself. The backend is chosen at the first call; importing a module starts none.
    `compiled()` is the function that `jax.jit` made.
    """

    @cache
    def compiled() -> Any:
        return jax.jit(function, static_argnums=static_argnums, compiler_options=compiler_options())

    @wraps(function)
    def call(*arguments):
        return compiled()(*arguments)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call
